"""Processes that a benchmark times by turns, so that a load from elsewhere affects all of them.

Each system runs in a worker of its own, because two of them in one process would share threads and
memory. A worker prints one line of JSON when it is ready and one for each line that it reads.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lm.base.errors import UserError, missing_package

# The program that tells which of its arguments are packages that are not installed.
_MISSING = """
import importlib.util, sys
print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))
"""


@dataclasses.dataclass(frozen=True)
class FromData:
  """What benchmarks need that joins `data/`, which this room does not import.

  Attributes:
    locate: returns the folder of a model: a checkpoint, or one that a Python package carries.
    export: writes a model as a folder that transformers reads: (model, folder).
    load: yields the figures of the loader for the arguments of the command `load`.
  """

  locate: Callable[[str], Any]
  export: Callable[[str, Any], None]
  load: Callable[[argparse.Namespace], Iterator[dict[str, Any]]]


def require(python: str, packages: Sequence[str], need: str) -> None:
  """Raises UserError, naming it, where an interpreter lacks a package that `need` needs."""
  told = subprocess.run(
    [python, '-c', _MISSING, *packages], capture_output=True, text=True, check=False
  )
  if told.returncode:
    raise UserError(
      field='--beside-python', value=python, allowed='a Python interpreter', message=told.stderr
    )
  if missing := told.stdout.split():
    error = missing_package(missing[0], 'bench', need)
    raise error if python == sys.executable else error.at(python)


def json_lines(command: Sequence[str]) -> list[dict[str, Any]]:
  """Returns the lines of JSON that `python -m COMMAND` prints. Raises UserError where it fails."""
  done = subprocess.run(
    [sys.executable, '-m', *command], stdout=subprocess.PIPE, text=True, check=False
  )
  if done.returncode:
    raise UserError(
      field=f'exit status of python -m {" ".join(command)}',
      value=done.returncode,
      allowed='0',
      message='Its error is above.',
    )
  return [json.loads(line) for line in done.stdout.splitlines()]


class Worker:
  """The parent's end of a worker process."""

  def __init__(
    self, system: str, python: str, argv: list[str], env: Mapping[str, str] | None = None
  ):
    """Starts the worker and waits until it is ready.

    Args:
      system: what it runs, for errors.
      python: the interpreter.
      argv: the arguments of `python -m lm.bench`.
      env: added to the environment.
    """
    self._system = system
    self._process = subprocess.Popen(
      [python, '-m', 'lm.bench', *argv],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, **(env or {})},
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
    """Returns the next line that the worker prints. Raises UserError where it has ended."""
    line = self._process.stdout.readline()
    if not line:
      raise UserError(
        field=f'answer of the benchmark of {self._system}', message='Its error is above.'
      )
    self.seen.append(json.loads(line))
    return self.seen[-1]


@contextlib.contextmanager
def of_model(
  args: argparse.Namespace,
  argv: Sequence[str],
  from_data: FromData,
  peer: str,
  env: Mapping[str, str] | None = None,
) -> Iterator[list[Worker]]:
  """Starts our worker and, with --beside, that of a peer that runs the same model.

  Args:
    args: the arguments of the command.
    argv: the same as text.
    from_data: exports the model for the peer.
    peer: its name as a system.
    env: added to the environment of our worker.
  """
  with tempfile.TemporaryDirectory() as folder:
    workers = [Worker('deepdive', sys.executable, [*argv, '--system=deepdive'], env)]
    if args.beside:
      exported = pathlib.Path(folder) / 'model'
      from_data.export(args.model, exported)
      own = [*argv, f'--system={peer}', f'--model={exported}']
      workers.append(Worker(peer, args.beside_python, own))
    yield workers
    for worker in workers:
      worker.close()
