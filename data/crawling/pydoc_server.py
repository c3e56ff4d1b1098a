"""Serves the documentation of the standard library on this machine, as a web site to crawl."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from lm.base.errors import UserError

# Pages whose rendering imports a module that hangs, opens windows or prints, and Python's tests.
PYDOC_EXCLUDE = (
  r'^/(test|_test\w*|_?xx\w*|idlelib|lib2to3|turtledemo|turtle|this|antigravity|__main__|search)\b'
  r'|\btests?\b'
)

# pydoc's server stops at the end of its input, but joins its thread first, which may hang in a
# module that it imports. This thread ends it at once, so that not even a kill -9 of the parent
# leaves it behind.
_PYDOC = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
sys.argv = ['pydoc', '-p', sys.argv[1]]
runpy.run_module('pydoc', run_name='__main__')
"""


@contextlib.contextmanager
def serve_pydoc(port: int = 0) -> Iterator[str]:
  """Runs the documentation server on a loopback port (0: a free one); yields its URL.

  It ends with the block, and with this process however that ends. It sees the standard library
  alone: no site-packages, and an empty working folder, since pydoc imports what it finds there.

  Raises UserError naming the port when it is taken.
  """
  with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile() as log:
    server = subprocess.Popen(
      [sys.executable, '-I', '-S', '-c', _PYDOC, str(port)], cwd=empty,
      env={**os.environ, 'BROWSER': 'true'},
      stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
      deadline = time.monotonic() + 60
      while not (ready := re.search(rb'ready at (http://\S+)', os.pread(log.fileno(), 4096, 0))):
        if server.poll() is not None or time.monotonic() > deadline:
          said = os.pread(log.fileno(), 4096, 0).decode('utf-8', 'replace').strip() or 'no answer'
          raise UserError(
            f'the documentation server does not start on port {port}: {said.splitlines()[-1]}'
          )
        time.sleep(0.05)
      yield ready[1].decode()
    finally:
      server.kill()
      server.communicate()
