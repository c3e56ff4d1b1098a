"""A thread that steps an engine, and its answers as asynchronous iterations of one event loop."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator

import jax
from jax.sharding import Mesh

from lm.infer.engine import Engine
from lm.infer.requests import Completion, Handle, Piece, Request

IDLE_SECONDS = 0.2  # how often a thread without work looks whether it should end


class EngineFailed(Exception):
  """The engine raised an exception; it serves nothing more."""


class Answer:
  """The answer to one request, read by a task of the event loop that it was submitted from."""

  def __init__(self, handle: Handle, loop: asyncio.AbstractEventLoop):
    self._handle, self._loop = handle, loop
    self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
    self._error: BaseException | None = None

  @property
  def completion(self) -> Completion:
    """Returns the answer as far as it has come."""
    return self._handle.completion

  @property
  def done(self) -> bool:
    """Returns whether the answer has ended; pieces of it may still have to be read."""
    return self._handle.done

  def cancel(self) -> None:
    """Ends the answer at the engine's next step."""
    self._handle.cancel()

  async def __aiter__(self) -> AsyncIterator[Piece]:
    """Yields the pieces as they come, until the end.

    Raises:
      EngineFailed: the engine cannot go on.
      Exception: what a tool raised.
    """
    while (piece := await self._pieces.get()) is not None:
      yield piece
    if self._error is not None:
      raise self._error

  def deliver(self, error: BaseException | None = None) -> bool:
    """Hands over what has come, from the thread of the engine; returns whether it has ended."""
    pieces: list[Piece | None] = list(self._handle.ready())
    ended = self._handle.done or error is not None
    if ended:
      self._error = error or self._handle.error
      pieces.append(None)
    if pieces:
      with contextlib.suppress(RuntimeError):  # The loop is closed, and nobody reads.
        self._loop.call_soon_threadsafe(self._put, pieces)
    return ended

  def _put(self, pieces: list[Piece | None]) -> None:
    for piece in pieces:
      self._pieces.put_nowait(piece)


class EngineThread:
  """Steps an engine in a thread of its own.

  `submit` may be called from any thread that can name the event loop that reads the answer.
  """

  def __init__(self, engine: Engine, mesh: Mesh, name: str = 'engine'):
    self.engine = engine
    self.failure: BaseException | None = None  # What ended the thread, other than `stop`.
    self._mesh = mesh
    self._answers: list[Answer] = []
    self._lock = threading.Lock()
    self._stopping = threading.Event()
    self._thread = threading.Thread(target=self._run, name=name, daemon=True)

  def start(self) -> None:
    """Starts the thread."""
    self._thread.start()

  def stop(self) -> None:
    """Ends the thread after its current step, and every answer with an error."""
    self._stopping.set()
    if self._thread.ident is not None:
      self._thread.join()

  def submit(self, request: Request, loop: asyncio.AbstractEventLoop) -> Answer:
    """Adds a request to those that wait; tasks of `loop` may read the answer.

    Raises:
      QueueFull: too many wait already.
      UserError: the request cannot be served.
      EngineFailed: the engine has ended.
    """
    with self._lock:
      if self.failure is not None or self._stopping.is_set():
        raise EngineFailed('the engine has ended')
      answer = Answer(self.engine.submit(request), loop)
      self._answers.append(answer)
    return answer

  @property
  def num_answers(self) -> int:
    """Returns how many answers wait or are being written."""
    return len(self._answers)

  def _run(self) -> None:
    error: BaseException | None = None
    with jax.set_mesh(self._mesh):
      try:
        while not self._stopping.is_set():
          if self.engine.wait_for_work(IDLE_SECONDS):
            self.engine.step()
          self._deliver()
      except Exception as raised:  # Requests must end, whatever has happened.
        logging.getLogger(__name__).exception('the engine failed')
        error = self.failure = raised
    with self._lock:
      answers, self._answers = self._answers, []
      self._stopping.set()
    for answer in answers:
      failure = EngineFailed('the engine has ended')
      failure.__cause__ = error
      answer.deliver(failure)

  def _deliver(self) -> None:
    with self._lock:
      answers = list(self._answers)
    ended = [answer for answer in answers if answer.deliver()]
    if ended:
      with self._lock:
        self._answers = [answer for answer in self._answers if answer not in ended]
