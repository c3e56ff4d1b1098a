"""Commands as a user starts them, in the root of the repository: `call` runs one in this process,
the others start processes of their own.
"""

import contextlib
import importlib
import io
import json
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from unittest import mock

import jax

from lm.base import errors

ROOT = pathlib.Path(__file__).parent.parent


def as_users_have_it(environment: Mapping[str, str]) -> dict[str, str]:
  """An environment without the devices and the strictness that conftest.py put there. Programs are
  compiled in haste, as in the tests.
  """
  kept = {name: value for name, value in environment.items() if not name.startswith('JAX_NUMPY')}
  flags = [flag for flag in kept['XLA_FLAGS'].split() if 'device_count' not in flag]
  return {**kept, 'XLA_FLAGS': ' '.join(flags)}


ENVIRONMENT = as_users_have_it(os.environ)


def call(*arguments: object, text: str = '', devices: int = 1) -> tuple[int, str, str]:
  """What `run` returns, of a command that runs in this process: `call('train.py', ...)` or
  `call('-m', 'lm.chat', ...)`.

  It spares the start of an interpreter and the imports. It sees `devices` of the virtual devices.
  Mixed dtypes and ranks are allowed, as they are for users. What it sets for its process
  (environment, mesh, signals) is as before afterwards.
  """
  first, *rest = map(str, arguments)
  name = rest.pop(0) if first == '-m' else first.removesuffix('.py')
  module = importlib.import_module(name)
  if hasattr(module, '__path__'):
    module = importlib.import_module(f'{name}.__main__')
  given, out, err = (
    io.TextIOWrapper(io.BytesIO(part), 'utf-8') for part in (text.encode(), b'', b'')
  )
  some = jax.devices()[:devices]
  handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
  with (
    contextlib.chdir(ROOT),
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
    mock.patch.object(sys, 'argv', [name, *rest]),
    mock.patch.object(sys, 'stdin', given),
    mock.patch.object(jax, 'devices', lambda backend=None: some),
    mock.patch.dict(os.environ, as_users_have_it(os.environ), clear=True),
    jax.set_mesh(None),
    jax.numpy_dtype_promotion('standard'),
    jax.numpy_rank_promotion('allow'),
    logged_to(err),
    warnings.catch_warnings(),
  ):
    warnings.simplefilter('ignore', DeprecationWarning)  # ml_collections' way to load a config
    try:
      errors.run(module.main)
      status = 0
    except SystemExit as ended:
      status = ended.code or 0
    finally:
      for number, handler in handlers.items():
        signal.signal(number, handler)
  if isinstance(status, str):  # which the interpreter would print
    err.write(f'{status}\n')
    status = 1
  said = []
  for stream in (out, err):
    stream.seek(0)
    said.append(stream.read())
  return status, *said


@contextlib.contextmanager
def logged_to(stream: io.TextIOBase) -> Iterator[None]:
  """Writes warnings of the logging module to a stream, as Python does where nobody handles them."""
  handler = logging.StreamHandler(stream)
  handler.setLevel(logging.WARNING)
  root = logging.getLogger()
  loggers = root, logging.getLogger('absl')
  # Libraries that other tests used may have changed these.
  before = [(logger, logger.level, logger.propagate, logger.disabled) for logger in loggers]
  for logger in loggers:
    logger.setLevel(logging.WARNING)
    logger.propagate, logger.disabled = True, False
  root.addHandler(handler)
  try:
    yield
  finally:
    root.removeHandler(handler)
    for logger, level, propagate, disabled in before:
      logger.setLevel(level)
      logger.propagate, logger.disabled = propagate, disabled


def run(*arguments: object, text: str = '', **environment: str) -> tuple[int, str, str]:
  """(exit status, stdout, stderr) of python ARGUMENTS ... with `text` at its standard input,
  without the devices and strictness of tests.
  """
  done = subprocess.run(
    [sys.executable, *map(str, arguments)],
    cwd=ROOT,
    env=ENVIRONMENT | environment,
    input=text,
    capture_output=True,
    text=True,
    check=False,
  )
  return done.returncode, done.stdout, done.stderr


# In a process: commands of a list, one after the other.
SERIES = """
import json, sys
sys.path.insert(0, 'tests')
import commands
for arguments in json.loads(sys.argv[1]):
  status, out, err = commands.call(*arguments)
  if status:
    sys.exit(f'{arguments}: status {status}: {err}')
"""


def run_in_turn(*series: Sequence[object], **environment: str) -> None:
  """Runs commands one after the other in one process of their own, which spares starts and
  compilations. Fails if one of them fails.
  """
  each = [[str(argument) for argument in arguments] for arguments in series]
  status, _, err = run('-c', SERIES, json.dumps(each), **environment)
  assert status == 0, err


def kill_at(path: pathlib.Path, *arguments: object) -> None:
  """Starts python ARGUMENTS ... and kills it with SIGKILL as soon as `path` exists, which it must
  before the end.
  """
  # a file: a pipe that nobody reads would fill up
  with (
    tempfile.TemporaryFile('w+') as log,
    subprocess.Popen(
      [sys.executable, *map(str, arguments)], cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log
    ) as process,
  ):
    while not path.exists():
      if process.poll() is not None:
        log.seek(0)
        raise AssertionError(f'ended before {path}:\n{log.read()}')
      time.sleep(0.02)
    process.kill()


def start(log: pathlib.Path, *arguments: object, **environment: str) -> subprocess.Popen:
  """python ARGUMENTS ... under way, what it prints going to a file."""
  with open(log, 'w', encoding='utf-8') as file:
    return subprocess.Popen(
      [sys.executable, *map(str, arguments)],
      cwd=ROOT,
      env=ENVIRONMENT | environment,
      stdout=file,
      stderr=file,
    )


def free_port() -> int:
  """A port of this machine that nothing listens on."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def start_many(
  count: int, folder: pathlib.Path, *arguments: object, **environment: str
) -> list[subprocess.Popen]:
  """The processes of one run on this machine, each with one device; process I prints into
  `folder/log.I`.
  """
  folder.mkdir(parents=True, exist_ok=True)
  options = f'--coordinator=127.0.0.1:{free_port()}', f'--num-processes={count}'
  return [
    start(folder / f'log.{i}', *arguments, *options, f'--process-id={i}', **environment)
    for i in range(count)
  ]


def end(processes: list[subprocess.Popen]) -> list[int]:
  """The exit statuses of processes, which are waited for in turn. What still runs when the test is
  over, since it failed or took too long, is killed.
  """
  try:
    return [process.wait() for process in processes]
  finally:
    for process in processes:
      process.kill()
      process.wait()
