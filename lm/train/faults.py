"""What a run does about faults: requests to stop, steps that are not to be trusted, and the data
that is left out for them.
"""

import itertools
import os
import signal
import sys

import jax
from jax.experimental import multihost_utils

from lm.base import files

ON_BAD_STEP = ('stop', 'skip', 'rewind')


class Stop:
  """Requests to stop: SIGTERM, or a first SIGINT (Ctrl-C); a second SIGINT interrupts at once. A
  context manager.

  Between `polled` and leaving it, requests wait until `asked` looks. At other times nothing is lost
  by ending: the process exits with status 0, in order, so that checkpoints under way are finished.

  In a run of several processes a request to any of them reaches all, and all see it after the same
  step: jax's preemption service has the handler of SIGTERM then (it looks once a second), and
  requests wait until `asked` at all times.
  """

  def __init__(self):
    self._requested = self._polled = False
    self._times = 0

  def asked(self) -> bool:
    """Whether to stop after the step that was just dispatched; to be called after each by every
    process.
    """
    self._times += 1
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(self._times)
    return self._requested

  def polled(self, on: bool) -> None:
    """Says whether `asked` is being called from now on."""
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
  """The batches that a run leaves out, as `jumps.json` in its folder: [{"step": S, "batches": N},
  ...], as they came.

  All updates after step S read N batches further on. So which batch an update reads depends on this
  file and its number alone, and a run that was killed and goes on, even from before S, does what it
  would have done.
  """

  def __init__(self, path: files.Path):
    self._path = files.as_path(path)
    self.all: list[dict[str, int]] = files.read_json(self._path) if self._path.exists() else []

  def add(self, step: int, batches: int) -> None:
    """Leaves out the next `batches` batches after `step`."""
    self._write([*self.all, {'step': step, 'batches': batches}])

  def clear(self) -> None:
    """For a run that starts anew."""
    if self.all:
      self._write([])

  def batch(self, update: int) -> int:
    """The number of the batch that an update reads, both counted from 0."""
    return update + sum(jump['batches'] for jump in self.all if jump['step'] <= update)

  def ranges(self, start: int, stop: int) -> list[tuple[int, int]]:
    """The batches of updates start .. stop - 1, as ranges (first, end)."""
    cuts = sorted(
      {start, stop, *(jump['step'] for jump in self.all if start < jump['step'] < stop)}
    )
    return [(self.batch(a), self.batch(a) + b - a) for a, b in itertools.pairwise(cuts)]

  def _write(self, jumps: list[dict[str, int]]) -> None:
    if jax.process_index() == 0:
      files.write_json(self._path, jumps)
    self.all = jumps
