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


def initialize(
  coordinator: str | None, num_processes: int | None, process_id: int | None, heartbeat_seconds: int
) -> None:
  """Joins this process to its run; to be called before anything else of jax. A process by itself
  stays so.

  Args:
    coordinator: HOST:PORT, where process 0 waits for the others. None, as the next two, has jax
      find all three where it
      can: in a Slurm step, under Open MPI's mpirun, on Cloud TPU (GCE or GKE, also several slices).
    num_processes: of the whole run; 1 alone keeps to this process wherever it is.
    process_id: this process's number, from 0.
    heartbeat_seconds: a process that was silent for so long counts as lost, and the others end with
      an error.

  Raises:
    UserError: only some of the three are given, or the process number is not below the number of
      processes.
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
      f'{missing[0]} is missing; --coordinator=HOST:PORT, --num-processes=N and --process-id=I go '
      'together'
    )
  if not missing and not 0 <= process_id < num_processes:
    raise UserError(
      f'--process-id is {process_id}; with --num-processes={num_processes} it is 0 to '
      f'{num_processes - 1}'
    )
  if not missing or _in_cluster():
    # A process that ends with an error waits for the others to end; they notice only when it has.
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
  """Whether something that jax knows has started this process as one of several, or on a Cloud TPU
  host.
  """
  if any(
    int(os.environ.get(name, 1)) > 1 for name in ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')
  ):
    return True
  chips = [*pathlib.Path('/dev').glob('accel[0-9]*'), *pathlib.Path('/dev/vfio').glob('[0-9]*')]
  return (
    bool(chips)
    and importlib.util.find_spec('libtpu') is not None
    and os.environ.get('JAX_PLATFORMS') != 'cpu'
  )


def is_main() -> bool:
  """Whether this is the process that writes what there is one of: metrics, report, tokenizer,
  config.
  """
  return jax.process_index() == 0


@contextlib.contextmanager
def main_first(what: str) -> Iterator[None]:
  """Process 0 does the block alone, then the others do, who find its files there."""
  if not is_main():
    multihost_utils.sync_global_devices(what)
  yield
  if is_main():
    multihost_utils.sync_global_devices(what)


def fetch(tree: Any) -> Any:
  """The values of arrays as NumPy arrays in every process, wherever they lie."""

  def one(x):
    whole = not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated
    return x if whole else multihost_utils.process_allgather(x, tiled=True)

  return jax.device_get(jax.tree.map(one, tree))


def wait_for_all(what: str) -> None:
  """Waits until every process is here: what a process does last is not taken for its loss."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)
