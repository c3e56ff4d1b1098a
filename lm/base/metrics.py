"""The metrics of a run: `metrics.jsonl`, one JSON object a line, and TensorBoard event files."""

import contextlib
import json
import math
import pathlib
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lm.base import buckets, files
from lm.base.errors import UserError

JSONL = ('metrics.jsonl', 'samples.jsonl', 'rollouts.jsonl')
FLUSH_SECONDS = 60  # between two copies into a bucket


class Metrics:
  """Appends to the files of JSONL and to the event files of one run.

  The files of a run that was killed and resumed equal those of an unbroken run, except for measured
  times: lines past the step that the run resumes from are removed, and so is a last line that the
  kill cut off. TensorBoard hides the events past that step.

  Nothing can be appended to an object in a bucket. The files of a run there are written on the
  local disk and copied whole by `flush`, which must be called before each checkpoint and is called
  here about every FLUSH_SECONDS.

  Args:
    workdir: the run's folder, created if missing.
    resume_step: the step of the checkpoint that the run resumes from. None starts anew and removes
      what was there.
    active: whether to write at all; in a run of several processes only one does.

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
    """Removes what was written past a step."""
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
    import tensorboardX  # here, since it imports the clients of buckets that are installed

    purge = None if resume_step is None else resume_step + 1
    self._events = tensorboardX.SummaryWriter(str(self._local), purge_step=purge, flush_secs=10)
    self.flush()

  def flush(self) -> None:
    """Brings all that was written so far into the run's folder."""
    if not self._active:
      return
    self._events.flush()
    if self._local != self._workdir:
      for file in self._local.iterdir():
        buckets.upload(file, self._workdir / file.name)
    self._flushed = time.monotonic()

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends `{"step": step, **values}` and flushes it.

    NaN and infinities become null, and leave a gap in TensorBoard's curve.

    Args:
      step: the training step. A step may have several lines.
      values: numbers (Python's, NumPy's or 0-d arrays) by slash-separated names ('train/loss').
    """
    if not self._active:
      return
    line: dict[str, float | None] = {'step': step}
    for name, value in values.items():
      number = value if isinstance(value, int) else float(value)
      line[name] = number if math.isfinite(number) else None  # JSON has no others
      if line[name] is not None:
        self._events.add_scalar(name, number, step)
    _append(self._local / 'metrics.jsonl', line)
    if self._local != self._workdir and time.monotonic() - self._flushed > FLUSH_SECONDS:
      self.flush()

  def text(self, step: int, name: str, text: str) -> None:
    """Appends `{"step", "name", "text"}` to `samples.jsonl`, and the text to TensorBoard."""
    if not self._active:
      return
    _append(self._local / 'samples.jsonl', {'step': step, 'name': name, 'text': text})
    # TensorBoard renders Markdown, which shows indented lines as they are.
    self._events.add_text(name, '    ' + text.replace('\n', '\n    '), step)

  def rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Appends `{"step": step, **row}` for each sampled answer to `rollouts.jsonl`."""
    if self._active and rows:
      _append(self._local / 'rollouts.jsonl', *({'step': step, **row} for row in rows))

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
  """Measures where the wall time of a process goes, and the speed of its steps.

  The parts are `start` (until the loop), `compile` (of the step), `step`, `input` (waiting for a
  batch), `rollout` (sampling and grading of answers), `score` (what models say of them before an
  update), `save` and `eval`. Where one part is
  inside another, the time counts for the inner one alone, so that their fractions add up to at most
  1; the rest is spent in the loop itself.

  Args:
    now: returns the time in seconds.
  """

  PARTS = ('start', 'compile', 'step', 'input', 'rollout', 'score', 'save', 'eval')
  _NOT_STEPS = ('start', 'compile', 'rollout', 'score', 'save', 'eval')  # not part of perf/step_s

  def __init__(self, now: Callable[[], float] = time.perf_counter):
    self._now = now
    self._began = self._marked = now()
    self._seconds = dict.fromkeys(self.PARTS, 0.0)
    self._open = ['start']
    self._asked = self._first_step = None
    self.compiled = False  # whether the part `compile` has ended
    self._restart()

  @contextlib.contextmanager
  def part(self, name: str) -> Iterator[None]:
    """Attributes the wall time inside the block to a part."""
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
    """Ends the part `start`, with which every clock begins."""
    self._mark()
    self._open.remove('start')
    self._restart()

  def first_step(self) -> None:
    """Records, at its first call, how long the first step took, compilation included."""
    if self._asked is not None:
      self._first_step, self._asked = self._now() - self._asked, None

  def step(self, tokens: int, flops: float) -> None:
    """Counts a step.

    Args:
      tokens: the tokens that its updates were computed from, once for each update, without padding
        and rows that were skipped.
      flops: the model FLOPs of these tokens on one chip.
    """
    self._steps += 1
    self._tokens += tokens
    self._flops += flops

  def read(self) -> dict[str, float]:
    """Returns the metrics of the steps since the last call.

    perf/step_s                the seconds of a step, sampling not included
    perf/input_s               the seconds of it that were spent waiting for the batch
    perf/rollout_s             the seconds of sampling and grading for a step, in RL
    perf/score_s               the seconds of scoring its answers before the first update, in RL
    perf/tokens_per_s          tokens per second of perf/step_s
    perf/model_flops_per_s     model FLOPs per second of perf/step_s, on one chip
    perf/first_step_s          the seconds of the first step, compilation included; only once
    goodput/PART               the fraction of each part in the time since this process began
    """
    self._mark()
    spent = {part: self._seconds[part] - self._before[part] for part in self.PARTS}
    seconds = self._marked - self._since - sum(spent[part] for part in self._NOT_STEPS)
    values = {
      'perf/step_s': seconds / self._steps,
      'perf/input_s': spent['input'] / self._steps,
      'perf/tokens_per_s': self._tokens / seconds,
      'perf/model_flops_per_s': self._flops / seconds,
    }
    for part in ('rollout', 'score'):
      if spent[part]:
        values[f'perf/{part}_s'] = spent[part] / self._steps
    if self._first_step is not None:
      values['perf/first_step_s'], self._first_step = self._first_step, None
    self._restart()
    return values | self.goodput()

  def goodput(self) -> dict[str, float]:
    """Returns the fraction of each part in the time since this process began."""
    self._mark()
    total = self._marked - self._began
    return {f'goodput/{part}': seconds / total for part, seconds in self._seconds.items()}

  def _mark(self) -> None:
    """Attributes the time since the last mark to the innermost open part."""
    now = self._now()
    if self._open:
      self._seconds[self._open[-1]] += now - self._marked
    self._marked = now

  def _restart(self) -> None:
    """Starts the means of `read` anew."""
    self._since, self._before = self._marked, dict(self._seconds)
    self._steps, self._tokens, self._flops = 0, 0, 0.0


def read(workdir: files.Path) -> list[dict[str, Any]]:
  """Returns the lines of a run's `metrics.jsonl`, without a last one that is being written.

  Raises:
    FileNotFoundError: the run has none.
    UserError: a line is not JSON.
  """
  return json_lines(files.as_path(workdir) / 'metrics.jsonl')


def samples(workdir: files.Path) -> list[dict[str, Any]]:
  """Returns the lines of a run's `samples.jsonl`. Raises as `read`."""
  return json_lines(files.as_path(workdir) / 'samples.jsonl')


def rollouts(workdir: files.Path) -> list[dict[str, Any]]:
  """Returns the lines of a run's `rollouts.jsonl`. Raises as `read`."""
  return json_lines(files.as_path(workdir) / 'rollouts.jsonl')


def peak_rss_bytes() -> int:
  """Returns the largest resident memory of this process so far, in bytes."""
  try:
    status = pathlib.Path('/proc/self/status').read_text()
  except FileNotFoundError:  # not Linux
    unit = 1 if sys.platform == 'darwin' else 1024  # macOS counts bytes, the BSDs KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  # Not ru_maxrss, which on Linux a child inherits from the process that started it.
  return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) * 1024


def _append(path: pathlib.Path, *values: dict[str, Any]) -> None:
  with open(path, 'a', encoding='utf-8') as file:  # closing it flushes every line
    file.writelines(json.dumps(value, allow_nan=False) + '\n' for value in values)


def json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  lines = []
  # A kill may have cut off the line after the last newline.
  complete = path.read_bytes().split(b'\n')[:-1]
  for number, line in enumerate(complete, 1):
    try:
      lines.append(json.loads(line))
    except ValueError as error:
      raise UserError(field=f'line {number} of {path}', value=line, allowed='JSON') from error
  return lines


def _cut(path: pathlib.Path, resume_step: int | None) -> None:
  """Keeps the complete lines of a file up to `resume_step`; None keeps nothing."""
  keep = []
  if resume_step is not None and path.exists():
    keep = [line for line in json_lines(path) if line['step'] <= resume_step]
  files.write_text(path, ''.join(json.dumps(line) + '\n' for line in keep))
