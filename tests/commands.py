"""Commands started as a user starts them: in the root of the repository, without the devices and strictness of tests."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(('XLA_FLAGS', 'JAX_NUMPY'))}


def start(*arguments: object, **environment: str) -> subprocess.Popen:
  """python ARGUMENTS ..., its output in pipes of text."""
  return subprocess.Popen([sys.executable, *map(str, arguments)], cwd=ROOT, text=True, env=ENVIRONMENT | environment,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(*arguments: object, text: str = '', timeout: float = 900, **environment: str) -> tuple[int, str, str]:
  """(exit status, stdout, stderr) of python ARGUMENTS ... with `text` at its standard input."""
  process = start(*arguments, **environment)
  out, err = process.communicate(text, timeout=timeout)
  return process.returncode, out, err
