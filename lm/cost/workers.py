"""Processes that a benchmark times by turns, so that a load from elsewhere affects all of them.

Each system runs in a worker of its own, because two of them in one process would share threads and
memory. A worker prints one line of JSON when it is ready and one for each line that it reads.
"""

import json
import subprocess
from typing import Any

from lm.base.errors import UserError


class Worker:
  """The parent's end of a worker process."""

  def __init__(self, system: str, python: str, argv: list[str]):
    """Starts the worker and waits until it is ready.

    Args:
      system: what it runs, for errors.
      python: the interpreter.
      argv: the arguments of `python -m lm.bench`.
    """
    self._system = system
    self._process = subprocess.Popen(
      [python, '-m', 'lm.bench', *argv],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self.seen: list[dict[str, Any]] = []
    self._read()

  def ask(self, what: Any = None) -> dict[str, Any]:
    """Sends a line to the worker, waits for its answer, and returns it."""
    self._process.stdin.write(json.dumps(what) + '\n')
    self._process.stdin.flush()
    return self._read()

  def close(self) -> None:
    """Ends the worker."""
    self._process.stdin.close()
    self._process.wait()

  def _read(self) -> dict[str, Any]:
    line = self._process.stdout.readline()
    if not line:
      raise UserError(
        field=f'answer of the benchmark of {self._system}', message='Its error is above.'
      )
    self.seen.append(json.loads(line))
    return self.seen[-1]
