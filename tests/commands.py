"""Commands started as a user starts them: in the root of the repository, without the devices and strictness of tests."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(('XLA_FLAGS', 'JAX_NUMPY'))}


def run(*arguments: object, text: str = '', timeout: float = 900, **environment: str) -> tuple[int, str, str]:
  """(exit status, stdout, stderr) of python ARGUMENTS ... with `text` at its standard input."""
  done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=ENVIRONMENT | environment, input=text,
                        capture_output=True, text=True, timeout=timeout, check=False)
  return done.returncode, done.stdout, done.stderr


def kill_at(path: pathlib.Path, *arguments: object) -> None:
  """Starts python ARGUMENTS ... and kills it with SIGKILL as soon as `path` exists, which it must before the end."""
  with tempfile.TemporaryFile('w+') as log, subprocess.Popen(  # a file: a pipe that nobody reads would fill up
      [sys.executable, *map(str, arguments)], cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log) as process:
    while not path.exists():
      if process.poll() is not None:
        log.seek(0)
        raise AssertionError(f'ended before {path}:\n{log.read()}')
      time.sleep(0.02)
    process.kill()
