"""The documentation server that the quickstart crawls."""

import os
import pathlib
import select
import socket
import subprocess
import sys
import urllib.request

import pytest
from refusals import refused

from data.crawling.pydoc_server import serve_pydoc


def test_pydoc_server_serves_the_standard_library_and_dies_with_its_parent():
  code = (
    'import subprocess, sys, data.crawling.pydoc_server as p\n'
    'popen = subprocess.Popen\n'
    'def spy(*a, **k):\n  s = popen(*a, **k); print(s.pid, flush=True); return s\n'
    'subprocess.Popen = spy\n'
    'with p.serve_pydoc() as url:\n  print(url, flush=True); sys.stdin.read()\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    bufsize=1,
  )
  with process:
    pid, url = int(process.stdout.readline()), process.stdout.readline().strip()
    server = os.pidfd_open(pid)
    with urllib.request.urlopen(url + 'heapq.html') as answer:
      assert b'heappushpop' in answer.read()
    with urllib.request.urlopen(url) as answer:
      assert b'numpy' not in answer.read()
    # pydoc imports what lies in its folder: a page that hangs must not keep the server alive.
    started = pathlib.Path(f'/proc/{pid}/cwd/started')
    os.mkfifo(started)
    started.with_name('hanging.py').write_text(
      'import time\nopen("started", "w").close()\ntime.sleep(600)\n'
    )
    with socket.create_connection(('127.0.0.1', int(url.rstrip('/').rpartition(':')[2]))) as client:
      client.sendall(b'GET /hanging.html HTTP/1.0\r\n\r\n')
      started.read_bytes()  # until the page hangs
      process.kill()
      process.wait()
      select.select([server], [], [])  # until it ends
  os.close(server)


def test_pydoc_server_ends_with_the_block_and_names_a_taken_port():
  with serve_pydoc() as url:
    urllib.request.urlopen(url + 'keywords.html').close()
    port = int(url.rstrip('/').rpartition(':')[2])
    with refused(f'port {port}'), serve_pydoc(port):
      pass
  with pytest.raises(OSError), socket.create_connection(('127.0.0.1', port)):
    pass
