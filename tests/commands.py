"""Commands started as a user starts them: in the root of the repository, without the devices and
strictness of tests.
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
ENVIRONMENT = {
  name: value
  for name, value in os.environ.items()
  if not name.startswith(('XLA_FLAGS', 'JAX_NUMPY'))
}


def run(
  *arguments: object, text: str = '', timeout: float = 900, **environment: str
) -> tuple[int, str, str]:
  """(exit status, stdout, stderr) of python ARGUMENTS ... with `text` at its standard input."""
  done = subprocess.run(
    [sys.executable, *map(str, arguments)],
    cwd=ROOT,
    env=ENVIRONMENT | environment,
    input=text,
    capture_output=True,
    text=True,
    timeout=timeout,
    check=False,
  )
  return done.returncode, done.stdout, done.stderr


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


def end(processes: list[subprocess.Popen], timeout: float = 600) -> list[int]:
  """The exit statuses of processes, waited for in turn; what has not ended by then is killed."""
  try:
    return [process.wait(timeout) for process in processes]
  finally:
    for process in processes:
      process.kill()
      process.wait()
