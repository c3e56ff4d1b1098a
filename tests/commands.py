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
from typing import IO, Any
from unittest import mock

import jax
import preloaded

from lm.base import allocator, errors

ROOT = pathlib.Path(__file__).parent.parent


def as_users_have_it(environment: Mapping[str, str]) -> dict[str, str]:
  """An environment without the devices and the strictness that conftest.py put there, in which
  Python keeps what it has compiled. Programs are compiled in haste, as in the tests, and do not
  start anew to get huge pages.
  """
  ours = 'JAX_NUMPY', 'PYTHONDONTWRITEBYTECODE'
  kept = {name: value for name, value in environment.items() if not name.startswith(ours)}
  flags = [flag for flag in kept['XLA_FLAGS'].split() if 'device_count' not in flag]
  return {**kept, 'XLA_FLAGS': ' '.join(flags), allocator.TUNABLES: f'{allocator.HUGE}=0'}


ENVIRONMENT = as_users_have_it(os.environ)
EARLY = preloaded.early(ENVIRONMENT)
FORKED = {'train.py', 'eval.py', 'lm.chat', 'lm.hf'}  # programs that are spared their imports


def call(*arguments: object, text: str = '', devices: int = 1) -> tuple[int, str, str]:
  """What `run` returns, of a command that runs in this process: `call('train.py', ...)` or
  `call('-m', 'lm.chat', ...)`.

  It spares the start of an interpreter and the imports. It sees `devices` of the virtual devices.
  Answers are drawn with caches of one size and prompts are read in parts of one size, since each
  size is compiled anew (tests/lm/test_engine.py has them all). Mixed dtypes and ranks are allowed,
  as they are for users. What it sets for its process (environment, mesh, signals) is as before
  afterwards.
  """
  from lm.infer import programs

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
    mock.patch.object(programs, 'buckets', lambda capacity: [capacity]),
    mock.patch.object(programs, 'CHUNKS', (64,)),
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


def _process(
  arguments: Sequence[object],
  environment: Mapping[str, str],
  streams: Sequence[IO],
  anew: bool | None,
) -> subprocess.Popen | preloaded.Program:
  """Starts python ARGUMENTS ... in the root of the repository.

  Args:
    arguments: a script, -m and a module, or -c and code, with their arguments.
    environment: what differs from ENVIRONMENT.
    streams: standard input, output and error.
    anew: whether an interpreter is started, instead of a process that has imported jax and all
      that train.py needs (`preloaded`). By default one is for all but FORKED, and where the
      environment asks for it.
  """
  arguments, variables = [str(argument) for argument in arguments], ENVIRONMENT | environment
  if anew is None:
    anew = FORKED.isdisjoint(arguments[:2])
  if not anew and preloaded.early(variables) == EARLY and sys.platform == 'linux':
    return preloaded.Program(arguments, variables, ROOT, streams)
  given, out, err = streams
  return subprocess.Popen(
    [sys.executable, *arguments], cwd=ROOT, env=variables, stdin=given, stdout=out, stderr=err
  )


def run(
  *arguments: object, text: str = '', anew: bool | None = None, **environment: str
) -> tuple[int, str, str]:
  """(exit status, stdout, stderr) of python ARGUMENTS ... with `text` at its standard input,
  without the devices and strictness of tests. `anew` is as in `_process`.
  """
  with contextlib.ExitStack() as files:
    # Files, since a pipe that nobody reads would fill up.
    given, out, err = (files.enter_context(tempfile.TemporaryFile('w+')) for _ in range(3))
    given.write(text)
    given.seek(0)
    process = _process(arguments, environment, (given, out, err), anew)
    (status,) = end([process])
    for stream in (out, err):
      stream.seek(0)
    return status, out.read(), err.read()


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
  status, _, err = run('-c', SERIES, json.dumps(each), anew=False, **environment)
  assert status == 0, err


def kill_at(path: pathlib.Path, *arguments: object) -> None:
  """Starts python ARGUMENTS ... and kills it with SIGKILL as soon as `path` exists, which it must
  before the end.
  """
  with tempfile.TemporaryDirectory() as folder:
    log = pathlib.Path(folder) / 'log'
    process = start(log, *arguments)
    try:
      while not path.exists():
        assert process.poll() is None, f'ended before {path}:\n{log.read_text()}'
        time.sleep(0.02)
    finally:
      process.kill()
      process.wait()


def start(
  log: pathlib.Path, *arguments: object, anew: bool | None = None, **environment: str
) -> subprocess.Popen | preloaded.Program:
  """python ARGUMENTS ... under way, what it prints going to a file. `anew` is as in `_process`."""
  with open(os.devnull) as nothing, open(log, 'w', encoding='utf-8') as file:
    return _process(arguments, environment, (nothing, file, file), anew)


def free_port() -> int:
  """A port of this machine that nothing listens on."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def start_many(
  count: int, folder: pathlib.Path, *arguments: object, **options: Any
) -> list[subprocess.Popen | preloaded.Program]:
  """The processes of one run on this machine, each with one device; process I prints into
  `folder/log.I`. The options are those of `start`.
  """
  folder.mkdir(parents=True, exist_ok=True)
  run = f'--coordinator=127.0.0.1:{free_port()}', f'--num-processes={count}'
  return [
    start(folder / f'log.{i}', *arguments, *run, f'--process-id={i}', **options)
    for i in range(count)
  ]


def end(processes: Sequence[subprocess.Popen | preloaded.Program]) -> list[int]:
  """The exit statuses of processes, which are waited for in turn. What still runs when the test is
  over, since it failed or took too long, is killed.
  """
  try:
    return [process.wait() for process in processes]
  finally:
    for process in processes:
      process.kill()
      process.wait()
