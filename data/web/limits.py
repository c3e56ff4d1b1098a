"""Bounds what one page may use: processor time, and a separate process for parsers in C.

A signal interrupts Python code, but not a parser in C, which may also crash on a page made to crash
it. `Sandbox` is for those parsers.
"""

import contextlib
import multiprocessing
import resource
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

_MEMORY = 4 << 30  # bytes of address space of a sandbox; an allocation beyond this fails


class TimeLimit(BaseException):
  """The processor time is used up. It is not an Exception, because extractors catch those."""


class PageError(Exception):
  """A page could not be handled; the message says why."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
  """Raises TimeLimit when the block has used this many seconds of processor time; 0: never.

  Processor time is independent of what else the machine does. The limit works by a signal, so it
  works in the main thread only, and it does not interrupt a call into C other than `re`.
  """
  if not seconds:
    yield
    return

  def stop(*_) -> None:
    raise TimeLimit

  before = signal.signal(signal.SIGVTALRM, stop)
  signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


class Sandbox:
  """Calls a function in a separate process, which is replaced if a call hangs, crashes or fills it.

  datatrove's ExtractorSandbox bounds the time by the clock, so that a busy machine drops more
  pages, and it forks a process that may have threads.

  Args:
    function: a function of a module, so that the other process can import it.
    warm_up: arguments of a first call without limits, which loads what later calls need.
    seconds: processor time of a call; 0: no limit.
  """

  def __init__(self, function: Callable, warm_up: tuple, seconds: float):
    self._target = function, warm_up, seconds
    self._process = None

  def __enter__(self) -> 'Sandbox':
    return self

  def __exit__(self, *_) -> None:
    if self._process:
      self._pipe.close()  # the process exits when its input ends
      self._process.join()
      self._process.close()
      self._process = None

  def __call__(self, *args: Any) -> Any:
    """Returns what the function returns.

    Raises TimeLimit, or PageError if the function raised or its process died.
    """
    if not self._process:
      self._start()
    try:
      self._pipe.send(args)
      value, error = self._pipe.recv()
    except (EOFError, OSError):
      self._process.join()
      code = self._process.exitcode
      self.__exit__()
      if code == -signal.SIGPROF:
        raise TimeLimit from None
      cause = signal.Signals(-code).name if code < 0 else f'exit status {code}'
      raise PageError(f'the process that read the page was ended by {cause}') from None
    if error:
      raise PageError(error)
    return value

  def _start(self) -> None:
    # The fork server has no threads and little memory, so that forking it is safe and fast.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([self._target[0].__module__])
    self._pipe, other = context.Pipe()
    self._process = context.Process(target=_serve, args=(other, *self._target), daemon=True)
    self._process.start()
    other.close()


def _serve(pipe: Connection, function: Callable, warm_up: tuple, seconds: float) -> None:
  """Answers calls until the other end of the pipe is closed. SIGPROF ends the process at once."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent process
  resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
  resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
  function(*warm_up)
  while True:
    try:
      args = pipe.recv()
    except EOFError:
      return
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
      answer = function(*args), ''
    except Exception as error:  # noqa: BLE001  any error is due to the page, and is reported
      answer = None, f'{type(error).__name__}: {error}'[:500]
    signal.setitimer(signal.ITIMER_PROF, 0)
    pipe.send(answer)
