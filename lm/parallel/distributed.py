"""Runs of several processes: how they find each other, and what only one of them does."""

import contextlib
import importlib.util
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from lm.base.errors import UserError

# Environment variables with the number of processes that Slurm and Open MPI started.
_PROCESS_COUNTS = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')


def initialize(
  coordinator: str | None, num_processes: int | None, process_id: int | None, heartbeat_seconds: int
) -> None:
  """Joins this process to its run; a process by itself stays alone. Call it before all else of jax.

  Args:
    coordinator: HOST:PORT where process 0 waits for the others. None, as for the next two, lets jax
      find all three where it can: in a Slurm step, under Open MPI's mpirun, and on Cloud TPU (GCE
      or GKE, with one slice or several).
    num_processes: the number of processes of the run. 1 without a coordinator keeps this process
      alone wherever it is.
    process_id: the number of this process, from 0.
    heartbeat_seconds: after so long without a sign a process counts as lost, and the others end
      with an error.

  Raises:
    UserError: only some of the three are given, or the process number is out of range.
  """
  given = {
    '--coordinator': coordinator,
    '--num-processes': num_processes,
    '--process-id': process_id,
  }
  missing = [name for name, value in given.items() if value is None]
  if num_processes == 1 and coordinator is None:
    return
  if 0 < len(missing) < 3:
    raise UserError(
      field=missing[0],
      message='--coordinator=HOST:PORT, --num-processes=N and --process-id=I are needed together.',
    )
  if not missing and not 0 <= process_id < num_processes:
    raise UserError(
      field='--process-id',
      value=process_id,
      allowed=f'0 to {num_processes - 1}, since --num-processes is {num_processes}',
    )
  if not missing or _in_cluster():
    # A process that ends with an error waits for the others to end, and they notice only when it
    # has ended. The shutdown therefore has the same limit as the heartbeat.
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      heartbeat_timeout_seconds=heartbeat_seconds,
      shutdown_timeout_seconds=heartbeat_seconds,
    )


def initialize_from(options: Any) -> None:
  """Calls `initialize` with the flags of `lm.base.config.define_process_flags`."""
  initialize(
    options['coordinator'].value,
    options['num-processes'].value,
    options['process-id'].value,
    options['heartbeat-seconds'].value,
  )


def _in_cluster() -> bool:
  """Returns whether jax finds this run by itself: in a cluster, or on a Cloud TPU machine."""
  if any(int(os.environ.get(name, 1)) > 1 for name in _PROCESS_COUNTS):
    return True
  chips = [*pathlib.Path('/dev').glob('accel[0-9]*'), *pathlib.Path('/dev/vfio').glob('[0-9]*')]
  has_libtpu = importlib.util.find_spec('libtpu') is not None
  return bool(chips) and has_libtpu and os.environ.get('JAX_PLATFORMS') != 'cpu'


def is_main() -> bool:
  """Returns whether this process writes what exists once: metrics, report, tokenizer, config."""
  return jax.process_index() == 0


@contextlib.contextmanager
def main_first(what: str) -> Iterator[None]:
  """Lets process 0 run the block alone; the others run it afterwards and find its files there."""
  if not is_main():
    multihost_utils.sync_global_devices(what)
  yield
  if is_main():
    multihost_utils.sync_global_devices(what)


def fetch(tree: Any) -> Any:
  """Returns the values of arrays as NumPy arrays in every process, wherever the arrays are."""

  def gathered(x):
    is_here = not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated
    return x if is_here else multihost_utils.process_allgather(x, tiled=True)

  return jax.device_get(jax.tree.map(gathered, tree))


def wait_for_all(what: str) -> None:
  """Waits until every process is here, so that none takes the end of another for its loss."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)
