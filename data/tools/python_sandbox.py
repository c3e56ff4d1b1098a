"""Runs Python programs that a model wrote, isolated from this machine.

`Sandbox().run(code)` returns what a program printed and what went wrong. A program is one process
that sees Python's standard library, an empty scratch folder in memory and nothing else: no network,
no other file or process, no environment, no descriptor of this process. It cannot start processes.
Its time, memory, threads, files and output are limited (`Limits`).

There is one way to run a program, and it needs Linux's user, mount, process and network namespaces
and seccomp filters (data/tools/isolation.py). Where one of them is not permitted, as in many
containers, `Sandbox` raises UserError that says which.
"""

import atexit
import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

from lm.base.errors import UserError

MAX_CODE_CHARS = 100_000  # of a program
START_SECONDS = 120  # for the server to start, on a machine that may be busy
GRACE_SECONDS = 30  # for an answer, after the program's own time is over
_ROOT = pathlib.Path(__file__).parents[2]
_SERVE = (
  'import sys; sys.path.append(sys.argv[2]); '
  'from data.tools import sandbox_process; sandbox_process.main(int(sys.argv[1]))'
)


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a program may use.

  Attributes:
    cpu_seconds: processor time, whole seconds.
    wall_seconds: elapsed time.
    memory_bytes: address space, Python included, which takes about 60 MB.
    threads: threads, the main one included.
    scratch_bytes: all files in the scratch folder together.
    files: files and folders in the scratch folder.
    open_files: file descriptors, of which four are given.
    output_bytes: output on stdout and stderr together; more is cut, and ends the program.
  """

  cpu_seconds: int = 5
  wall_seconds: float = 20
  memory_bytes: int = 512 << 20
  threads: int = 16
  scratch_bytes: int = 16 << 20
  files: int = 256
  open_files: int = 64
  output_bytes: int = 4_000


@dataclasses.dataclass(frozen=True)
class Result:
  """What came of a program.

  Attributes:
    output: what it wrote to stdout and stderr, and the value of its last expression.
    error: its exception as 'TYPE: MESSAGE (line N)', or the limit that ended it; '' for none.
  """

  output: str
  error: str

  @property
  def text(self) -> str:
    """The output, and below it 'error: ...' if there was one."""
    return '\n'.join(
      filter(None, [self.output.rstrip('\n'), self.error and f'error: {self.error}'])
    )


class Sandbox:
  """Runs programs in processes of their own, each as if it were the first.

  It holds one process from which programs are forked, so that a call does not start Python. Threads
  may share a sandbox; their programs run at the same time. A process that was forked from this one
  must make its own.
  """

  def __init__(self, limits: Limits | None = None):
    """Starts the process, and tries that a program can be isolated.

    Raises:
      UserError: this machine does not permit an isolation that the sandbox needs.
      RuntimeError: Python did not start.
    """
    self.limits = limits or Limits()
    self._lock, self._closed = threading.Lock(), False
    self._start()
    atexit.register(self.close)
    try:
      self.run('')
    except BaseException:
      self.close()
      raise

  def run(self, code: str, limits: Limits | None = None) -> Result:
    """Runs a program and returns its result. Faults of the program are part of the result.

    The value of a last expression is printed as in a notebook, whole numbers as integers.

    Args:
      code: the program.
      limits: for this program; by default those of the sandbox.

    Raises:
      UserError: this machine no longer permits the isolation; the program did not run.
      RuntimeError: the sandbox is closed, or its process ended twice.
    """
    if len(code) > MAX_CODE_CHARS:
      return Result('', f'longer than {MAX_CODE_CHARS:,} characters')
    limits = limits or self.limits
    content = json.dumps({'code': code, 'limits': dataclasses.asdict(limits)}).encode()
    seconds = limits.wall_seconds + GRACE_SECONDS
    process = self._process
    answer = self._ask(content, seconds)
    if answer is None:  # the server ended, by the kernel or by hand, or never answers
      self._start_again(process)
      answer = self._ask(content, seconds)
    if answer is None:
      raise RuntimeError('the Python sandbox gives no answer')
    if 'missing' in answer:
      raise _missing(answer['missing'])
    return Result(answer['output'], answer['error'])

  def close(self) -> None:
    """Ends the process and all programs; the sandbox can no longer be used."""
    with self._lock:
      self._closed = True
      self._stop()
    atexit.unregister(self.close)

  def __enter__(self) -> 'Sandbox':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _start(self) -> None:
    self._control, theirs = socket.socketpair()
    with theirs:
      # -P and -S: nothing but the standard library. A fixed seed of hashes gives the same program
      # the same output in every process.
      python = getattr(sys, '_base_executable', None) or sys.executable
      options = ['-P', '-S', '-s', '-B', '-X', 'utf8', '-c', _SERVE]
      try:
        self._process = subprocess.Popen(
          [python, *options, str(theirs.fileno()), str(_ROOT)],
          env={'PYTHONHASHSEED': '0'},
          cwd='/',
          stdin=subprocess.DEVNULL,
          stdout=subprocess.DEVNULL,
          stderr=subprocess.PIPE,
          pass_fds=[theirs.fileno()],
          start_new_session=True,
        )
      except OSError as error:
        self._control.close()
        raise _missing(f'a process in a session of its own: {error.strerror}') from error
    self._owner = os.getpid()
    self._control.settimeout(START_SECONDS)
    try:
      ready = self._control.recv(1 << 16)
    except TimeoutError:
      ready = b''
    if not ready:
      self._process.kill()
      cause = self._process.stderr.read().decode('utf-8', 'replace')
      self._stop()
      raise RuntimeError(f'the process of the Python sandbox did not start: {cause}')
    missing = json.loads(ready)['missing']
    if missing is not None:
      self._stop()
      raise _missing(missing)

  def _start_again(self, process: subprocess.Popen) -> None:
    """Replaces the server, unless another thread has replaced it already."""
    with self._lock:
      if self._closed:
        raise RuntimeError('the Python sandbox is closed')
      if self._process is process:
        self._stop()
        self._start()

  def _stop(self) -> None:
    self._control.close()
    if self._owner != os.getpid():
      return
    self._process.kill()
    self._process.wait()
    self._process.stderr.close()

  def _ask(self, content: bytes, seconds: float) -> dict[str, str] | None:
    """Returns the answer to a request; None if there is none within `seconds`."""
    if self._owner != os.getpid():
      raise RuntimeError('the Python sandbox belongs to the process that made it')
    ours, theirs = socket.socketpair()
    with ours, contextlib.suppress(OSError, ValueError):
      with theirs, self._lock:
        socket.send_fds(self._control, [b'.'], [theirs.fileno()])
      ours.settimeout(seconds)
      ours.sendall(content)
      ours.shutdown(socket.SHUT_WR)
      return json.loads(b''.join(iter(lambda: ours.recv(1 << 16), b'')))
    return None


def _missing(what: str) -> UserError:
  return UserError(
    field='tool',
    value='python',
    allowed='a machine that permits Linux namespaces and seccomp',
    message=f'The Python sandbox is refused here: it lacks {what}.',
  )
