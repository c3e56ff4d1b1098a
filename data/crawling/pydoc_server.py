"""Serves the documentation of the standard library on this machine, as a web site to crawl."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from lm.base.errors import invalid

# Pages whose rendering imports a module that hangs, opens windows or prints, and Python's tests.
PYDOC_EXCLUDE = (
  r'^/(test|_test\w*|_?xx\w*|idlelib|lib2to3|turtledemo|turtle|this|antigravity|__main__|search)\b'
  r'|\btests?\b'
)

# pydoc's server stops at the end of its input, but first joins its thread, which may hang in a
# module that it imports. The thread started here ends the process at once, so that the server never
# outlives its parent, not even after a kill -9.
_PYDOC = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
sys.argv = ['pydoc', '-p', sys.argv[1]]
runpy.run_module('pydoc', run_name='__main__')
"""


@contextlib.contextmanager
def serve_pydoc(port: int = 0) -> Iterator[str]:
  """Runs the documentation server on a loopback port (0: a free port) and yields its URL.

  The server ends with the block, and with this process however that ends. It sees the standard
  library alone: no site-packages, and an empty working folder, because pydoc imports what it finds
  there.

  Raises UserError naming the port if it is taken.
  """
  with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile() as log:
    server = subprocess.Popen(
      [sys.executable, '-I', '-S', '-c', _PYDOC, str(port)],
      cwd=empty,
      env={**os.environ, 'BROWSER': 'true'},
      stdin=subprocess.PIPE,
      stdout=log,
      stderr=subprocess.STDOUT,
    )
    try:
      deadline = time.monotonic() + 60
      while not (ready := re.search(rb'ready at (http://\S+)', os.pread(log.fileno(), 4096, 0))):
        if server.poll() is not None or time.monotonic() > deadline:
          output = os.pread(log.fileno(), 4096, 0).decode('utf-8', 'replace').strip()
          cause = (output or 'no answer').splitlines()[-1]
          raise invalid(f'port {port}', 'one on which the documentation server starts', cause)
        time.sleep(0.05)
      yield ready[1].decode()
    finally:
      server.kill()
      server.communicate()
