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

This file keeps the checkpoints of a run; checkpoint_arrays.py reads and writes one of them, and
checkpoint_folders.py finds them.
"""

import contextlib
import errno
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from lm.base import buckets, files
from lm.base import config as config_lib
from lm.base.errors import UserError, invalid
from lm.weights import best, checkpoint_arrays, checkpoint_folders, origin
from lm.weights.checkpoint_arrays import Tree


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
    self._handler = checkpoint_arrays.Handler(self.directory)
    self._saver = ocp.AsyncCheckpointer(
      self._handler, atomicity_options=checkpoint_arrays.atomicity(self.directory)
    )
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
    items = checkpoint_arrays.Items(
      params=ocp.args.PyTreeSave(state['params']), state=ocp.args.PyTreeSave(rest)
    )
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
    return {
      'params': checkpoint_arrays.read_tree(path, 'params', abstract_state['params']),
      **checkpoint_arrays.read_tree(path, 'state', rest),
    }

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


def open_run(workdir: files.AnyPath, settings: ConfigDict) -> Checkpointer:
  """Returns the checkpoints of a run's folder, kept as `config.checkpoint` says."""
  return Checkpointer(
    workdir / 'checkpoints',
    keep_last=settings.keep_last,
    keep_every=settings.keep_every or None,
    keep_best=best.parse(settings.best),
  )


def _any_process(value: bool) -> bool:
  """Returns whether the value is true in any process of the run."""
  return (
    bool(multihost_utils.process_allgather(np.array(value)).any())
    if jax.process_count() > 1
    else value
  )


def _worth_telling(record: logging.LogRecord) -> bool:
  """Returns whether a log record of Orbax is worth showing.

  It is not if it is also raised, from `wait`, or if it follows from how we call Orbax.
  """
  orbax = f'{os.sep}orbax{os.sep}' in record.pathname
  return not (orbax and (record.exc_info or record.funcName == 'merge_ocdbt_per_process_files'))
