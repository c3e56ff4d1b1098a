"""Checkpoints, written whole in the background by Orbax, with their origin and file digests.

A checkpoint is the folder `checkpoints/STEP/`:
  params/           The parameters alone (an Orbax tree), so that evaluation and chat never read the
                    optimizer's state.
  state/            Everything else of the train state: the optimizer's state and the step.
  provenance.json   The config, the code version, and the fingerprints of data and tokenizer:
                    whatever JSON the trainer gave; and the metrics that were measured.
  digest.json       The sha256 of every file above.

On a disk, Orbax writes into `STEP.orbax-checkpoint-tmp` and renames it when all hosts are done. The
digest is written just before that rename. A folder named by its step is therefore complete, and a
process may be killed at any moment. A bucket cannot rename a folder. There the digest is the last
of a checkpoint's files to be written and the first to be removed, and a folder without a digest is
not a checkpoint.
"""

import contextlib
import dataclasses
import errno
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from lm.base import buckets, files
from lm.base import config as config_lib
from lm.base.errors import UserError, invalid
from lm.parallel.sharding import leaf_name
from lm.weights import best, checkpoint_folders, orbax_s3, origin

_CHUNK = 2**26  # The size of a chunk of a stored array, in bytes.
orbax_s3.install()
Tree = Any  # A pytree of arrays, or of jax.ShapeDtypeStructs.


class _Handler(ocp.CompositeCheckpointHandler):
  """Writes params/ and state/, then the provenance and the digest.

  The provenance and the digest are written in the background, before the final rename.
  """

  provenance: Any = None

  def __init__(self, directory: files.Path, **options):
    # There is no compression: float32 weights shrink by only a few percent, and it would take cores
    # from the training step. On a disk few files hold all arrays (OCDBT). In a bucket each array
    # has objects of its own: the few files of OCDBT are written several times in a save, with
    # conditions on their generation, which gcp-storage-emulator does not report.
    options = {'use_compression': False, 'use_ocdbt': not buckets.is_url(directory)} | options
    super().__init__(
      composite_options=ocp.CompositeOptions(atomicity_options=_atomicity(directory)),
      **{item: ocp.PyTreeCheckpointHandler(**options) for item in ('params', 'state')},
    )

  def finalize(self, directory):
    super().finalize(directory)
    files.write_json(directory / 'provenance.json', self.provenance)
    names = list(files.sizes(directory))
    digests = files.sha256_all([directory / name for name in names])
    files.write_json(directory / 'digest.json', dict(zip(names, digests, strict=True)))


@ocp.args.register_with_handler(_Handler, for_save=True, for_restore=True)
class _Items(ocp.args.Composite):
  """The items of one save, a type of its own by which Orbax finds the handler."""


class Checkpointer:
  """Saves, lists and restores the checkpoints of one training run.

  It is a context manager, to be used from the main thread.

  Args:
    directory: the `checkpoints` folder of the run. It is created if it is missing, and what a
      killed save left in it is removed.
    keep_last: how many of the newest checkpoints to keep (at least 1).
    keep_every: checkpoints whose step is a multiple of this are kept forever; None keeps none.
    keep_best: the rule by which the best checkpoint is kept; None keeps none.
  """

  def __init__(
    self,
    directory: files.Path,
    *,
    keep_last: int,
    keep_every: int | None = None,
    keep_best: best.Rule | None = None,
  ):
    for field, number in (('keep_last', keep_last), ('keep_every', keep_every)):
      if number is not None and number < 1:
        raise UserError(field=field, value=number, allowed='at least 1')
    self.directory = files.absolute(directory)
    self._keep_last, self._keep_every, self._rule = keep_last, keep_every, keep_best
    files.make_dir(self.directory)
    self._clean()
    self._best: tuple[int | None, float] = None, math.inf  # The step and the cost of the best one.
    if self._rule:
      self._best = best.find(self.directory, self.steps(), self._rule)
    self._handler = _Handler(self.directory)
    self._saver = ocp.AsyncCheckpointer(self._handler, atomicity_options=_atomicity(self.directory))
    self._saving: int | None = None
    self._verified: int | None = None
    logging.getLogger('absl').addFilter(_worth_telling)

  def is_best(self, measured: Mapping[str, float]) -> bool:
    """Returns whether these metrics are better than those of every checkpoint so far."""
    return self._rule is not None and self._rule.cost(measured) < self._best[1]

  def check(self, measured: Collection[str]) -> None:
    """Raises UserError if the metric of the rule is not among all that are measured."""
    best.check(self._rule, measured)

  def save(
    self,
    step: int,
    state: dict[str, Tree],
    provenance: dict[str, Any],
    measured: Mapping[str, float] | None = None,
  ) -> None:
    """Starts saving `state` (keys 'params', 'opt_state', 'step', ...) in the background.

    When it returns, the arrays are copied off the device and may be donated. It waits for the
    previous save first, so that at most one is under way.

    Args:
      measured: metrics of this state, by which the best checkpoint is found.

    Raises:
      UserError: there is a checkpoint of this step.
      OSError: this save or the previous one could not be written. The message names the folder and
        the last good step.
    """
    self.wait()
    if step in self.steps():
      raise UserError(
        field=f'step to be saved in {self.directory}',
        value=step,
        allowed='a step that has no checkpoint yet',
      )
    finite = {name: value for name, value in (measured or {}).items() if math.isfinite(value)}
    self._handler.provenance = provenance | ({'measured': finite} if finite else {})
    self._saving = step
    if self.is_best(finite):
      self._best = step, self._rule.cost(measured)
    needed = sum(x.nbytes for x in jax.tree.leaves(state))
    with self._disk_errors():
      # A full disk is detected before anything is written, rather than half-way.
      if not buckets.is_url(self.directory) and shutil.disk_usage(self.directory).free < needed:
        raise OSError(errno.ENOSPC, f'{needed:,} bytes are needed')
    rest = {name: tree for name, tree in state.items() if name != 'params'}
    items = _Items(params=ocp.args.PyTreeSave(state['params']), state=ocp.args.PyTreeSave(rest))
    with self._disk_errors():
      self._saver.save(self.directory / str(step), args=items)

  def wait(self) -> None:
    """Waits for the save under way, and removes the checkpoints that are not to be kept.

    Raises:
      OSError: the save failed.
    """
    with self._disk_errors():
      self._saver.wait_until_finished()
    self._saving = None
    steps = self.steps()
    for step in steps[: -self._keep_last]:
      kept = step == self._best[0] or (self._keep_every and step % self._keep_every == 0)
      if not kept and jax.process_index() == 0:
        checkpoint_folders.remove(self.directory / str(step))

  def steps(self) -> list[int]:
    """Returns the steps of the complete checkpoints, ascending."""
    return checkpoint_folders.steps(self.directory)

  def latest(self) -> int | None:
    """Returns the last complete step, or None."""
    return max(self.steps(), default=None)

  def sound(self) -> int | None:
    """Returns the newest step whose files are what was written, or None if nothing was saved.

    Newer checkpoints, which are torn or altered, are set aside as `STEP.corrupt` and logged.
    `restore` does not read the files of this step twice. In a run of several processes all call
    this, each reads its share of the files, and all get the same answer.

    Raises:
      UserError: there are checkpoints and none of them is sound; nothing is set aside.
    """
    corrupt, error = [], None
    for step in sorted(checkpoint_folders.folders(self.directory), reverse=True):
      try:
        folder = self.directory / str(step)
        checkpoint_folders.verify(folder, 'params/', 'state/', 'provenance.json')
        bad = False
      except UserError as found:
        bad, error = True, error or found
      if not _any_process(bad):
        self._verified = step
        break
      corrupt.append(step)
    else:
      if corrupt:
        folder = self.directory / str(corrupt[0])
        raise error or invalid(f'checkpoint {folder}', 'sound', 'see the other processes')
      return None
    for step in corrupt:
      aside = self.directory / f'{step}.corrupt'
      logging.warning(
        'checkpoint %s is corrupt (%s): set aside as %s, going on from step %d',
        self.directory / str(step),
        error or 'see the other processes',
        aside.name,
        self._verified,
      )
      if jax.process_index() == 0:
        files.replace_dir(self.directory / str(step), aside, last='digest.json')
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('corrupt checkpoints set aside')
    return self._verified

  def restore(self, abstract_state: dict[str, Tree], step: int | None = None) -> dict[str, Tree]:
    """Reads a state onto the shardings of `abstract_state`, whatever sharding it was saved from.

    Args:
      abstract_state: as given to `save`, with a jax.ShapeDtypeStruct (shape, dtype, sharding) for
        each array.
      step: which checkpoint; None means the last complete one.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      UserError: a file is torn or altered, or the name, shape or dtype of a stored array is not the
        requested one.
    """
    path = checkpoint_folders.locate(self.directory / str(self.latest() if step is None else step))
    rest = {name: tree for name, tree in abstract_state.items() if name != 'params'}
    if path.name != str(self._verified):
      checkpoint_folders.verify(path, 'params/', 'state/')
    return {'params': _read(path, 'params', abstract_state['params']), **_read(path, 'state', rest)}

  def resume(
    self,
    abstract_state: dict[str, Tree],
    provenance: dict[str, Any],
    *,
    defaults: ConfigDict,
    allow: Collection[str],
    free: Collection[str],
  ) -> tuple[int | None, dict[str, Tree] | None]:
    """Returns the step and the state of the newest sound checkpoint, or (None, None).

    Args:
      abstract_state: shapes of the state (see `restore`).
      provenance: what the run is now, to compare with what the checkpoint was made by.
      defaults: the config with the defaults of fields that the checkpoint may lack.
      allow, free: fields that may differ (see `lm.weights.origin.check_provenance`).

    Raises:
      UserError: a field differs that may not differ.
    """
    step = self.sound()
    if step is None:
      return None, None
    stored = self.provenance(step)
    stored['config'] = config_lib.complete(stored['config'], defaults)
    origin.check_provenance(stored, provenance, allow, free)
    return step, self.restore(abstract_state, step)

  def provenance(self, step: int) -> dict[str, Any]:
    """Returns the record of where the state of `step` came from, as given to `save`."""
    return checkpoint_folders.provenance(self.directory / str(step))

  def close(self) -> None:
    """Waits for the save under way and ends the background threads.

    Raises:
      OSError: the save failed.
    """
    try:
      self.wait()
    finally:
      self._saver.close()
      self._clean()

  def __enter__(self) -> 'Checkpointer':
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def _clean(self) -> None:
    """Removes what a killed or failed save or removal left behind."""
    if jax.process_index() == 0:
      for path in checkpoint_folders.unfinished(self.directory):
        files.remove(path)

  @contextlib.contextmanager
  def _disk_errors(self) -> Iterator[None]:
    """Turns a failed write into an OSError that names the folder, and cleans up.

    What is half-written is removed.
    """
    try:
      yield
    except (OSError, ValueError) as error:
      # TensorStore reports the operating system's errors as ValueErrors that carry the code in
      # their text.
      found = re.search(r"os_error_code='(\d+)'", str(error))
      code = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
      if code is None and not buckets.is_url(self.directory):
        raise
      # The writes of other arrays that are under way must fail too before the folder is removed, or
      # they would create it again.
      time.sleep(1)
      self._clean()
      what = ' '.join(str(error).split()) if code is None else os.strerror(code)
      text = f'{what}: checkpoint {self._saving} is not saved, the last good one is {self.latest()}'
      raise OSError(code or errno.EIO, text, str(self.directory)) from error


@dataclasses.dataclass(frozen=True)
class ArrayType:
  """The dtype and shape of a stored array."""

  dtype: np.dtype
  shape: tuple[int, ...]

  def __str__(self) -> str:
    return f'{self.dtype}[{",".join(map(str, self.shape))}]'


@dataclasses.dataclass(frozen=True)
class Deferred:
  """An array that is created when it is to be written, and dropped once it is written."""

  make: Callable[[], np.ndarray]


class _DeferredHandler(ocp.type_handlers.NumpyHandler):
  """Writes one deferred array after the other, as NumPy arrays are written."""

  async def serialize(self, values, infos, args=None):
    for value, info, arg in zip(values, infos, args, strict=True):
      for written in await super().serialize([value.make()], [info], [arg]):
        written.result()
    return []


def open_run(workdir: files.AnyPath, settings: ConfigDict) -> Checkpointer:
  """Returns the checkpoints of a run's folder, kept as `config.checkpoint` says."""
  return Checkpointer(
    workdir / 'checkpoints',
    keep_last=settings.keep_last,
    keep_every=settings.keep_every or None,
    keep_best=best.parse(settings.best),
  )


def write_params(path: files.Path, params: Tree, provenance: dict[str, Any]) -> None:
  """Writes a checkpoint of parameters alone, holding one of them in memory at a time.

  Args:
    path: the folder of the step, `checkpoints/STEP`; it must not exist.
    params: a `Deferred` for each parameter.
    provenance: as for `Checkpointer.save`.
  """
  arrays = (
    (Deferred, _DeferredHandler(deepcopy_host_arrays=False)),
    (jax.Array, ocp.type_handlers.ArrayHandler()),
  )
  handler = _Handler(
    path, type_handler_registry=ocp.type_handlers.create_type_handler_registry(*arrays)
  )
  handler.provenance = provenance
  # Arrays are written in chunks, so that a host that needs a part of one reads a part of the file.
  chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK), params)
  with ocp.Checkpointer(handler) as saver:
    saver.save(
      files.absolute(path), args=_Items(params=ocp.args.PyTreeSave(params, save_args=chunks))
    )


def params_metadata(path: files.Path) -> dict[str, ArrayType]:
  """Returns the dtype and shape of each stored parameter, by its slash-separated name.

  Raises:
    FileNotFoundError, UserError: as `load_params`.
  """
  path = checkpoint_folders.locate(path)
  checkpoint_folders.verify(path, 'params/')
  return _arrays(ocp.PyTreeCheckpointHandler().metadata(epath.Path(path / 'params')).tree)


def read_params(path: files.Path, names: Collection[str]) -> dict[str, np.ndarray]:
  """Returns some of the parameters as they are stored, on the host.

  The other parameters are not read, and the files are not verified.
  """
  handler, directory = (
    ocp.PyTreeCheckpointHandler(),
    epath.Path(checkpoint_folders.locate(path) / 'params'),
  )
  wanted = jax.tree_util.tree_map_with_path(
    lambda p, _: (
      ocp.RestoreArgs(restore_type=np.ndarray) if leaf_name(p) in names else ocp.PLACEHOLDER
    ),
    handler.metadata(directory).tree,
  )
  read = handler.restore(directory, args=ocp.args.PyTreeRestore(wanted, restore_args=wanted))
  return {
    leaf_name(p): x
    for p, x in jax.tree_util.tree_leaves_with_path(read)
    if x is not ocp.PLACEHOLDER
  }


def load_params(path: files.Path, abstract_params: Tree) -> tuple[Tree, dict[str, Any]]:
  """Reads the parameters of a checkpoint, and where it came from.

  The optimizer's state is not read.

  Args:
    path: anything that `checkpoint_folders.locate` takes.
    abstract_params: a jax.ShapeDtypeStruct for each parameter; those without a sharding go to the
      first device. A parameter that is stored in another floating-point type is cast to the
      requested one.

  Raises:
    FileNotFoundError, UserError: as `Checkpointer.restore`.
  """
  path = checkpoint_folders.locate(path)
  checkpoint_folders.verify(path, 'params/')
  return _read(path, 'params', abstract_params, cast=True), checkpoint_folders.provenance(path)


def _atomicity(directory: files.Path) -> ocp.options.AtomicityOptions:
  """Returns how Orbax makes a folder appear at once.

  On a disk it renames the folder. In a bucket, where nothing is renamed, it writes a file last.
  """
  mode = ocp.options.AtomicityMode
  return ocp.options.AtomicityOptions(
    mode=mode.COMMIT_FILE if buckets.is_url(directory) else mode.AUTO
  )


def _any_process(value: bool) -> bool:
  """Returns whether the value is true in any process of the run."""
  return (
    bool(multihost_utils.process_allgather(np.array(value)).any())
    if jax.process_count() > 1
    else value
  )


def _read(path: files.AnyPath, item: str, abstract: Tree, cast: bool = False) -> Tree:
  """Reads one tree onto the shardings of `abstract`.

  Args:
    cast: whether the arrays may be stored in another floating-point type.

  Raises:
    UserError: an array does not fit; the message names the first.
  """
  first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or first), abstract
  )
  handler, directory = ocp.PyTreeCheckpointHandler(), epath.Path(path / item)
  stored, wanted = _arrays(handler.metadata(directory).tree), _arrays(abstract)
  for name in sorted(stored.keys() | wanted.keys()):
    found, expected = stored.get(name), wanted.get(name)
    if found == expected:
      continue
    floats = (
      found and expected and all(jnp.issubdtype(x.dtype, jnp.floating) for x in (found, expected))
    )
    if not (cast and floats and found.shape == expected.shape):
      found, expected = ('no such array' if x is None else str(x) for x in (found, expected))
      raise UserError(
        field=f'{item}/{name}', value=found, allowed=f'{expected}, as in the model'
      ).at(f'checkpoint {path}')
  restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
  return handler.restore(
    directory, args=ocp.args.PyTreeRestore(abstract, restore_args=restore_args)
  )


def _arrays(tree: Tree) -> dict[str, ArrayType]:
  """Returns the dtype and shape of each array of a tree, by its slash-separated name."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {leaf_name(path): ArrayType(np.dtype(x.dtype), tuple(x.shape)) for path, x in leaves}


def _worth_telling(record: logging.LogRecord) -> bool:
  """Returns whether a log record of Orbax is worth showing.

  It is not if it is also raised, from `wait`, or if it follows from how we call Orbax.
  """
  orbax = f'{os.sep}orbax{os.sep}' in record.pathname
  return not (orbax and (record.exc_info or record.funcName == 'merge_ocdbt_per_process_files'))
