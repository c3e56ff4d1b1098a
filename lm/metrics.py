"""Metrics of a run: one JSON object a line in `metrics.jsonl`, and TensorBoard event files beside it."""

import contextlib
import json
import math
import pathlib
import re
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import tensorboardX

from lm import files
from lm.errors import UserError


class Metrics:
  """Appends to `metrics.jsonl`, `samples.jsonl` and the event files of one run. In a run of many hosts, one makes it.

  A file of a run that was killed and went on equals that of an unbroken run, but for measured times: lines past the
  step the run resumes from, and a last line torn by the kill, are cut. (TensorBoard hides the events past that step.)

  Args:
    workdir: the run's folder; made if missing.
    resume_step: the step of the checkpoint the run goes on from; None starts anew and removes what was there.

  Raises:
    UserError: a line other than the last is not JSON.
  """

  def __init__(self, workdir: files.Path, resume_step: int | None = None):
    self._workdir = pathlib.Path(workdir)
    self._workdir.mkdir(parents=True, exist_ok=True)
    if resume_step is None:
      for events in self._workdir.glob('events.out.tfevents.*'):
        events.unlink()
    for name in ('metrics.jsonl', 'samples.jsonl'):
      _cut(self._workdir / name, resume_step)
    purge = None if resume_step is None else resume_step + 1
    self._events = tensorboardX.SummaryWriter(str(self._workdir), purge_step=purge, flush_secs=10)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends `{"step": step, **values}`, flushed at once. What JSON cannot hold, a NaN or an infinity, becomes null.

    Args:
      step: the training step; a step may have several lines.
      values: numbers (Python's, NumPy's or 0-d arrays) by slash-separated names ('train/loss').
    """
    numbers = {name: value if isinstance(value, int) else float(value) for name, value in values.items()}
    line = {'step': step} | {name: number if math.isfinite(number) else None for name, number in numbers.items()}
    _append(self._workdir / 'metrics.jsonl', line)
    for name, number in numbers.items():
      self._events.add_scalar(name, number, step)

  def text(self, step: int, name: str, text: str) -> None:
    """Appends `{"step", "name", "text"}` to `samples.jsonl`; TensorBoard shows it as preformatted text."""
    _append(self._workdir / 'samples.jsonl', {'step': step, 'name': name, 'text': text})
    self._events.add_text(name, '    ' + text.replace('\n', '\n    '), step)  # Markdown's way to leave it as it is

  def close(self) -> None:
    """Flushes and closes the event file."""
    self._events.close()

  def __enter__(self) -> 'Metrics':
    return self

  def __exit__(self, *_) -> None:
    self.close()


class Clock:
  """Where the time of a training run goes: means over the updates since they were last asked for."""

  def __init__(self):
    self.restart()

  def restart(self) -> None:
    """Leaves out what has passed: an evaluation or the writing of a checkpoint."""
    self._start, self._input, self._updates, self._tokens = time.perf_counter(), 0.0, 0, 0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """The time inside is spent waiting for a batch."""
    start = time.perf_counter()
    yield
    self._input += time.perf_counter() - start

  def update(self, tokens: int) -> None:
    """Counts an update of so many tokens."""
    self._updates, self._tokens = self._updates + 1, self._tokens + tokens

  def read(self) -> dict[str, float]:
    """{perf/step_s, perf/input_s: seconds an update, of which waiting for its batch; perf/tokens_per_s}; then restarts."""
    seconds = time.perf_counter() - self._start
    values = {'perf/step_s': seconds / self._updates, 'perf/input_s': self._input / self._updates,
              'perf/tokens_per_s': self._tokens / seconds}
    self.restart()
    return values


def read(workdir: files.Path) -> list[dict[str, Any]]:
  """The lines of a run's `metrics.jsonl`, in order; a last line still being written is left out.

  Raises FileNotFoundError, or UserError naming the line that is not JSON.
  """
  return _lines(pathlib.Path(workdir) / 'metrics.jsonl')


def samples(workdir: files.Path) -> list[dict[str, Any]]:
  """The lines of a run's `samples.jsonl`, in order. Raises as `read`."""
  return _lines(pathlib.Path(workdir) / 'samples.jsonl')


def peak_rss_bytes() -> int:
  """The most memory this process has had resident so far, in bytes."""
  try:
    status = pathlib.Path('/proc/self/status').read_text()
  except FileNotFoundError:  # not Linux; macOS counts in bytes, the BSDs in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)
  # Not ru_maxrss, which a child inherits from the process that started it.
  return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) * 1024


def _append(path: pathlib.Path, value: dict[str, Any]) -> None:
  with open(path, 'a', encoding='utf-8') as file:  # closed, so flushed, at every line
    file.write(json.dumps(value, allow_nan=False) + '\n')


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
  lines = []
  complete = path.read_bytes().split(b'\n')[:-1]  # what follows the last newline was torn off by a kill
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
