"""The handling of faults: requests to stop, bad steps, and the data that is left out for them."""

import dataclasses
import itertools
import os
import signal
import sys

import jax
from jax.experimental import multihost_utils

from lm.base import files

ON_BAD_STEP = ('stop', 'skip', 'rewind')


@dataclasses.dataclass(frozen=True)
class Symptom:
  """What is wrong with the metrics of a step, though the step itself was sound.

  Attributes:
    metric: the name of the metric.
    value: its value in the step.
    allowed: its bound, and the field of the config that sets it.
    meaning: what it means to be beyond the bound, as a sentence.
    stops: whether the run ends because of it, or only says so.
  """

  metric: str
  value: float
  allowed: str
  meaning: str
  stops: bool


class Stop:
  """A context manager that notes requests to stop: SIGTERM or a first SIGINT (Ctrl-C).

  A second SIGINT interrupts at once. After `polled(True)` and until `polled(False)`, requests wait
  until `asked` is called. At other times nothing is lost by ending: the process exits with status
  0, in order, so that checkpoints under way are finished.

  In a run of several processes a request to any of them reaches all, and all see it after the same
  step: then jax's preemption service has the handler of SIGTERM (it looks once a second), and
  requests always wait until `asked` is called.
  """

  def __init__(self):
    self._requested = self._polled = False
    self._times = 0

  def asked(self) -> bool:
    """Returns whether to stop after the step that was just dispatched.

    Every process calls it after each step.
    """
    self._times += 1
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(self._times)
    return self._requested

  def polled(self, on: bool) -> None:
    """Sets whether `asked` is called from now on; if not, a request that waits ends the process."""
    self._polled = on
    if self._requested and not on and jax.process_count() == 1:
      sys.exit(0)

  def _handle(self, number: int, _) -> None:
    if self._requested and number == signal.SIGINT:
      raise KeyboardInterrupt
    self._requested = True
    if jax.process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)
    elif not self._polled:
      sys.exit(0)

  def __enter__(self) -> 'Stop':
    numbers = (signal.SIGINT,) if jax.process_count() > 1 else (signal.SIGINT, signal.SIGTERM)
    self._previous = {number: signal.signal(number, self._handle) for number in numbers}
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)


class Jumps:
  """The batches that a run leaves out, kept in `jumps.json` in its folder.

  The file is [{"step": S, "batches": N}, ...], in the order in which the entries were added. All
  updates after step S read N batches further on. Which batch an update reads thus depends only on
  this file and the update's number, and a run that was killed and continues, even from before S,
  does what it would have done.
  """

  def __init__(self, path: files.Path):
    self._path = files.as_path(path)
    self.all: list[dict[str, int]] = files.read_json(self._path) if self._path.exists() else []

  def add(self, step: int, batches: int) -> None:
    """Leaves out the next `batches` batches after `step`."""
    self._write([*self.all, {'step': step, 'batches': batches}])

  def clear(self) -> None:
    """Removes all entries, for a run that starts from scratch."""
    if self.all:
      self._write([])

  def batch(self, update: int) -> int:
    """Returns the number of the batch that an update reads, both counted from 0."""
    return update + sum(jump['batches'] for jump in self.all if jump['step'] <= update)

  def ranges(self, start: int, stop: int) -> list[tuple[int, int]]:
    """Returns the batches of updates start .. stop - 1, as ranges (first, end)."""
    cuts = sorted(
      {start, stop, *(jump['step'] for jump in self.all if start < jump['step'] < stop)}
    )
    return [(self.batch(a), self.batch(a) + b - a) for a, b in itertools.pairwise(cuts)]

  def _write(self, jumps: list[dict[str, int]]) -> None:
    if jax.process_index() == 0:
      files.write_json(self._path, jumps)
    self.all = jumps
