"""Bounds on what one page may take: processor time here, and a process of its own for parsers in C.

Python code heeds a signal; a parser in C does not, and may crash on a page made for it. `Sandbox`
is for those.
"""

import contextlib
import multiprocessing
import resource
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

_MEMORY = 4 << 30  # bytes of address space of a sandbox; an allocation beyond it fails


class TimeLimit(BaseException):
  """The processor time is used up. Not an Exception: extractors catch those."""


class PageError(Exception):
  """A page could not be handled; the message says why."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
  """Raises TimeLimit when the block has used so many seconds of processor time, whatever else the
  machine does; 0: never.

  It works by a signal, so in the main thread only. Python code and its `re` heed it at once; a call
  into C is not cut.
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
  """Calls a function in a process of its own, which a call may hang, crash or fill: the next call
  gets a new one.

  datatrove's ExtractorSandbox is not used: it bounds the time by the clock, so that a busy machine
  drops more pages, and forks a process that may have threads.

  Args:
    function: of a module, so that the other process can import it.
    warm_up: arguments of a first call that loads what the others need and is not bounded.
    seconds: of processor time for a call; 0: no limit.
  """

  def __init__(self, function: Callable, warm_up: tuple, seconds: float):
    self._target = function, warm_up, seconds
    self._process = None

  def __enter__(self) -> 'Sandbox':
    return self

  def __exit__(self, *_) -> None:
    if self._process:
      self._pipe.close()  # the process ends at the end of its input
      self._process.join()
      self._process.close()
      self._process = None

  def __call__(self, *args: Any) -> Any:
    """Returns what the function returns. Raises TimeLimit, or PageError if it raised or its process
    died.
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
      raise PageError(f'the process that read it ended by {cause}') from None
    if error:
      raise PageError(error)
    return value

  def _start(self) -> None:
    # forks from a process that has no threads and little memory
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([self._target[0].__module__])
    self._pipe, other = context.Pipe()
    self._process = context.Process(target=_serve, args=(other, *self._target), daemon=True)
    self._process.start()
    other.close()


def _serve(pipe: Connection, function: Callable, warm_up: tuple, seconds: float) -> None:
  """Answers calls until the other end of the pipe is closed. SIGPROF ends the process, wherever it
  is.
  """
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
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
    except Exception as error:  # noqa: BLE001  whatever a page provokes is that page's fault, and is told
      answer = None, f'{type(error).__name__}: {error}'[:500]
    signal.setitimer(signal.ITIMER_PROF, 0)
    pipe.send(answer)
