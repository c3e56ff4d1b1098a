"""Metrics of a run: one JSON object a line in `metrics.jsonl`, and TensorBoard event files beside
it.
"""

import contextlib
import json
import math
import pathlib
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import tensorboardX

from lm.base import buckets, files
from lm.base.errors import UserError

JSONL = ('metrics.jsonl', 'samples.jsonl')
FLUSH_SECONDS = 60


class Metrics:
  """Appends to `metrics.jsonl`, `samples.jsonl` and the event files of one run.

  A file of a run that was killed and went on equals that of an unbroken run, but for measured
  times: lines past the step the run resumes from, and a last line torn by the kill, are cut.
  (TensorBoard hides the events past that step.)

  Nothing can be appended to an object of a bucket: of a run there the files are written on the
  local disk and copied whole, by `flush`, which belongs before each checkpoint, and about every
  FLUSH_SECONDS.

  Args:
    workdir: the run's folder; made if missing.
    resume_step: the step of the checkpoint the run goes on from; None starts anew and removes what
      was there.
    active: in a run of several processes one is; the others' write nothing.

  Raises:
    UserError: a line other than the last is not JSON.
  """

  def __init__(self, workdir: files.Path, resume_step: int | None = None, *, active: bool = True):
    self._workdir, self._active = files.as_path(workdir), active
    if active:
      self._local, self._flushed = self._workdir, time.monotonic()
      if buckets.is_url(self._workdir):
        self._spool = tempfile.TemporaryDirectory(prefix='deepdive-metrics-')
        self._local = pathlib.Path(self._spool.name)
        if resume_step is not None:
          for name in JSONL:
            if (self._workdir / name).exists():
              (self._local / name).write_bytes((self._workdir / name).read_bytes())
      self._open(resume_step)

  def rewind(self, step: int) -> None:
    """Takes back what was written past a step."""
    if self._active:
      self._events.close()
      self._open(step)

  def _open(self, resume_step: int | None) -> None:
    files.make_dir(self._local)
    if resume_step is None and self._workdir.is_dir():
      for events in self._workdir.glob('events.out.tfevents.*'):
        events.unlink()
    for name in JSONL:
      _cut(self._local / name, resume_step)
    purge = None if resume_step is None else resume_step + 1
    self._events = tensorboardX.SummaryWriter(str(self._local), purge_step=purge, flush_secs=10)
    self.flush()

  def flush(self) -> None:
    """Sees to it that all that was written so far is in the run's folder."""
    if not self._active:
      return
    self._events.flush()
    if self._local != self._workdir:
      for file in self._local.iterdir():
        buckets.upload(file, self._workdir / file.name)
    self._flushed = time.monotonic()

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends `{"step": step, **values}`, flushed at once. What JSON cannot hold, a NaN or an
    infinity, becomes null.

    Args:
      step: the training step; a step may have several lines.
      values: numbers (Python's, NumPy's or 0-d arrays) by slash-separated names ('train/loss').
    """
    if not self._active:
      return
    numbers = {
      name: value if isinstance(value, int) else float(value) for name, value in values.items()
    }
    line = {'step': step} | {
      name: number if math.isfinite(number) else None for name, number in numbers.items()
    }
    _append(self._local / 'metrics.jsonl', line)
    for name, number in numbers.items():
      self._events.add_scalar(name, number, step)
    if self._local != self._workdir and time.monotonic() - self._flushed > FLUSH_SECONDS:
      self.flush()

  def text(self, step: int, name: str, text: str) -> None:
    """Appends `{"step", "name", "text"}` to `samples.jsonl`; TensorBoard shows it as preformatted
    text.
    """
    if not self._active:
      return
    _append(self._local / 'samples.jsonl', {'step': step, 'name': name, 'text': text})
    # Markdown's way to leave it as it is
    self._events.add_text(name, '    ' + text.replace('\n', '\n    '), step)

  def close(self) -> None:
    """Flushes and closes the event file."""
    if self._active:
      self._events.close()
      try:
        self.flush()
      finally:
        if self._local != self._workdir:
          self._spool.cleanup()

  def __enter__(self) -> 'Metrics':
    return self

  def __exit__(self, *_) -> None:
    self.close()


class Clock:
  """Where the wall time of a process goes: shares of its parts, and means over the steps since they
  were last asked for.

  The parts are `start` (until the loop), `compile` (of the step), `step`, `input`, `rollout`
  (answers are sampled, graded and scored), `save` and `eval`. The time of one inside another is the
  inner one's alone, so their shares add up to at most 1; what is left is the loop's own.
  """

  PARTS = ('start', 'compile', 'step', 'input', 'rollout', 'save', 'eval')
  _ASIDE = ('start', 'compile', 'rollout', 'save', 'eval')  # no update's time

  def __init__(self):
    self._began = self._marked = time.perf_counter()
    self._seconds = dict.fromkeys(self.PARTS, 0.0)
    self._open = ['start']
    self._asked = self._first_step = None
    self.compiled = False  # whether the part `compile` is over
    self._restart()

  @contextlib.contextmanager
  def part(self, name: str) -> Iterator[None]:
    """The time inside is that part's."""
    self._mark()
    self._open.append(name)
    if name == 'compile':
      self._asked = self._marked
    try:
      yield
    finally:
      self._mark()
      self._open.pop()
      self.compiled |= name == 'compile'

  def started(self) -> None:
    """The part `start` is over."""
    self._mark()
    self._open.remove('start')
    self._restart()

  def first_step(self) -> None:
    """A step has been waited for; of the first it is noted how long that took, compilation
    included.
    """
    if self._asked is not None:
      self._first_step, self._asked = time.perf_counter() - self._asked, None

  def step(self, tokens: int, flops: float) -> None:
    """Counts a step.

    Args:
      tokens: that its updates were computed from, once for each update; neither padding nor rows
        that were skipped.
      flops: model FLOPs of these tokens, of one chip.
    """
    self._steps, self._tokens, self._flops = (
      self._steps + 1,
      self._tokens + tokens,
      self._flops + flops,
    )

  def read(self) -> dict[str, float]:
    """What to log; the means then begin anew.

    perf/step_s, perf/input_s: seconds a step, of which waiting for its batch; perf/rollout_s, of
    stage rl: seconds a step beside perf/step_s in which its answers were sampled, graded and
    scored; perf/tokens_per_s and perf/model_flops_per_s, over perf/step_s; perf/first_step_s, once;
    goodput/PART: shares of the time since this process began.
    """
    self._mark()
    seconds = (
      self._marked
      - self._since
      - sum(self._seconds[part] - self._before[part] for part in self._ASIDE)
    )
    waited, sampled = (self._seconds[part] - self._before[part] for part in ('input', 'rollout'))
    values = {
      'perf/step_s': seconds / self._steps,
      'perf/input_s': waited / self._steps,
      'perf/tokens_per_s': self._tokens / seconds,
      'perf/model_flops_per_s': self._flops / seconds,
    }
    if sampled:
      values['perf/rollout_s'] = sampled / self._steps
    if self._first_step is not None:
      values['perf/first_step_s'], self._first_step = self._first_step, None
    self._restart()
    return values | self.goodput()

  def goodput(self) -> dict[str, float]:
    """The share of each part in the time since this process began."""
    self._mark()
    return {
      f'goodput/{part}': seconds / (self._marked - self._began)
      for part, seconds in self._seconds.items()
    }

  def _mark(self) -> None:
    """Gives the time since the last mark to the innermost open part."""
    now = time.perf_counter()
    if self._open:
      self._seconds[self._open[-1]] += now - self._marked
    self._marked = now

  def _restart(self) -> None:
    self._since, self._before, self._steps, self._tokens, self._flops = (
      self._marked,
      dict(self._seconds),
      0,
      0,
      0.0,
    )


def read(workdir: files.Path) -> list[dict[str, Any]]:
  """The lines of a run's `metrics.jsonl`, in order; a last line still being written is left out.

  Raises FileNotFoundError, or UserError naming the line that is not JSON.
  """
  return _lines(files.as_path(workdir) / 'metrics.jsonl')


def samples(workdir: files.Path) -> list[dict[str, Any]]:
  """The lines of a run's `samples.jsonl`, in order. Raises as `read`."""
  return _lines(files.as_path(workdir) / 'samples.jsonl')


def peak_rss_bytes() -> int:
  """The most memory this process has had resident so far, in bytes."""
  try:
    status = pathlib.Path('/proc/self/status').read_text()
  except FileNotFoundError:  # not Linux; macOS counts in bytes, the BSDs in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
      1 if sys.platform == 'darwin' else 1024
    )
  # Not ru_maxrss, which a child inherits from the process that started it.
  return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) * 1024


def _append(path: pathlib.Path, value: dict[str, Any]) -> None:
  with open(path, 'a', encoding='utf-8') as file:  # closed, so flushed, at every line
    file.write(json.dumps(value, allow_nan=False) + '\n')


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
  lines = []
  # what follows the last newline was torn off by a kill
  complete = path.read_bytes().split(b'\n')[:-1]
  for number, line in enumerate(complete, 1):
    try:
      lines.append(json.loads(line))
    except ValueError as error:
      raise UserError(f'{path}, line {number} is not JSON: {line[:80]!r}') from error
  return lines


def _cut(path: pathlib.Path, resume_step: int | None) -> None:
  """Leaves of a file the complete lines up to `resume_step`; nothing if that is None."""
  keep = []
  if resume_step is not None and path.exists():
    keep = [line for line in _lines(path) if line['step'] <= resume_step]
  files.write_text(path, ''.join(json.dumps(line) + '\n' for line in keep))
