"""Requests to the engine, the handles that it returns, and the completions that they end with.

A `Request` is submitted to an `lm.infer.engine.Engine`, which returns a `Handle`. The thread that
steps the engine adds pieces to it; any thread may read them, wait for the end, or cancel.
"""

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from lm.base.errors import UserError
from lm.infer.sampling import Sampling

MAX_TOP = 20  # The most alternatives that are reported with a token.


class QueueFull(UserError):
  """The engine has as many waiting requests as it accepts."""


@dataclasses.dataclass(frozen=True)
class Request:
  """A prompt to continue, and how.

  Attributes:
    prompt: token ids, at least one.
    max_new_tokens: the most tokens to draw; tokens that a tool forces in do not count. 0 reads the
      prompt only.
    sampling: how tokens are drawn.
    seed: of the random numbers: a number, or the data of a key (`jax.random.key_data`).
    stop_ids: tokens that end the answer; they are part of it.
    stop_strings: texts that end the answer where they are completed, wherever tokens begin and end.
      They need `token_bytes`. They are not looked for in tokens that are forced in.
    call_tags: the opening and the closing tag of calls, in which they are not looked for either.
    token_bytes: the UTF-8 bytes of a token, by id, for `stop_strings` and the text of pieces.
    forced: tokens that begin the answer as if a tool had forced them in.
    pause_ids: tokens after which `tool` is called.
    tool: called with the answer so far, whose last token is one of `pause_ids`; returns the tokens
      to force in behind it, none if there is no result.
    max_calls: the most calls; after as many, the next pause token ends the answer. None: no limit.
    num_top: how many of the most probable tokens are reported beside each token, with
      log-probabilities; 0 reports none.
    prompt_log_probs: whether to report those of the prompt's tokens, too.
  """

  prompt: Sequence[int]
  max_new_tokens: int
  sampling: Sampling = dataclasses.field(default_factory=Sampling)
  seed: int | np.ndarray = 0
  stop_ids: Sequence[int] = ()
  stop_strings: Sequence[str] = ()
  call_tags: Sequence[int] = ()
  token_bytes: Callable[[int], bytes] | None = None
  forced: Sequence[int] = ()
  pause_ids: Sequence[int] = ()
  tool: Callable[[list[int]], list[int]] | None = None
  max_calls: int | None = None
  num_top: int = 0
  prompt_log_probs: bool = False

  def check(self, vocab_size: int, capacity: int) -> None:
    """Raises UserError where a model and a context of this size cannot serve the request."""

    def require(holds: bool, field: str, value: object, allowed: str) -> None:
      if not holds:
        raise UserError(field=field, value=value, allowed=allowed)

    longest = capacity - 1 - len(self.forced)
    fits = 0 < len(self.prompt) <= longest
    require(
      fits, 'prompt', f'{len(self.prompt)} tokens', f'1 to {longest} (the context is {capacity})'
    )
    ids = f'ids from 0 to {vocab_size - 1}'
    for field in ('prompt', 'forced', 'stop_ids', 'pause_ids'):
      outside = [i for i in getattr(self, field) if not 0 <= i < vocab_size]
      require(not outside, field, outside[:1], ids)
    require(self.max_new_tokens >= 0, 'max_new_tokens', self.max_new_tokens, 'at least 0')
    require(0 <= self.num_top <= MAX_TOP, 'num_top', self.num_top, f'0 to {MAX_TOP}')
    require('' not in self.stop_strings, 'stop_strings', list(self.stop_strings), 'no empty text')
    needs_bytes = self.stop_strings and self.token_bytes is None
    require(not needs_bytes, 'stop_strings', list(self.stop_strings), 'only with token_bytes')

  def key_data(self) -> np.ndarray:
    """Returns the data of the random key, uint32 [2]."""
    if isinstance(self.seed, np.ndarray):
      return self.seed
    return np.asarray(jax.random.key_data(jax.random.key(self.seed)))


@dataclasses.dataclass
class Top:
  """The model's own log-probability of a token, and of the most probable tokens at its place.

  Nothing that shapes the draws, such as a temperature, is in them.
  """

  log_prob: float
  ids: list[int]
  log_probs: list[float]


@dataclasses.dataclass
class Piece:
  """The next tokens of an answer: all of them drawn, or all of them forced in."""

  tokens: list[int]
  log_probs: list[float]  # As in `Completion`.
  sampled: bool
  tops: list[Top]  # One for each token if the request asked for alternatives, else none.
  # UTF-8 that may be shown, if the request has `token_bytes`. Text that may be the beginning of a
  # stop string is held back.
  text: bytes = b''


@dataclasses.dataclass
class Completion:
  """The continuation of a prompt: drawn tokens, and the tokens forced in between them.

  Attributes:
    tokens: token ids.
    log_probs: under the distribution that was drawn from; 0 for forced tokens.
    sampled: False for tokens that were forced in.
    finished: whether a stop token or a stop string ended it, rather than a limit.
    end: why it ended. 'stop' means a stop token; 'string' means a stop string; 'call' means a call
      without a result, or more calls than are allowed; 'length' means `max_new_tokens`; 'full'
      means that the context holds no more, or not the result of a call; 'cancelled' and 'error'
      (a tool raised an exception) mean what they say.
    tops: as in `Piece`.
    prompt_tops: of the prompt's tokens from the second on, if they were asked for.
    text: UTF-8 up to the stop token or the stop string, if the request has `token_bytes`.
    reused: how many tokens of the prompt were in the cache already.
  """

  tokens: list[int]
  log_probs: list[float]
  sampled: list[bool]
  finished: bool
  end: str = ''
  tops: list[Top] = dataclasses.field(default_factory=list)
  prompt_tops: list[Top] = dataclasses.field(default_factory=list)
  text: bytes = b''
  reused: int = 0


class Handle:
  """A request in the engine: the pieces of its answer as they come, and its end."""

  def __init__(self, request: Request):
    self.request = request
    self.completion = Completion([], [], [], False)
    self.cancelled = False
    self.error: BaseException | None = None  # What a tool raised.
    self._pieces: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
    self._done = threading.Event()

  def cancel(self) -> None:
    """Ends the answer at the engine's next step; tokens drawn until then are kept."""
    self.cancelled = True

  @property
  def done(self) -> bool:
    """Returns whether the answer has ended."""
    return self._done.is_set()

  def ready(self) -> Iterator[Piece]:
    """Yields the pieces that have come since the last call, without waiting."""
    while not self._pieces.empty():
      if (piece := self._pieces.get()) is not None:
        yield piece

  def __iter__(self) -> Iterator[Piece]:
    """Yields the pieces as they come, until the end; another thread must step the engine."""
    while (piece := self._pieces.get()) is not None:
      yield piece

  def result(self, timeout: float | None = None) -> Completion:
    """Waits for the end and returns the whole answer.

    Raises:
      TimeoutError: it has not ended after `timeout` seconds.
      Exception: what a tool raised.
    """
    if not self._done.wait(timeout):
      raise TimeoutError(f'the answer has not ended after {timeout} s')
    if self.error is not None:
      raise self.error
    return self.completion

  def add(self, piece: Piece) -> None:
    """Adds a piece to the answer; called by the engine."""
    c = self.completion
    c.tokens += piece.tokens
    c.log_probs += piece.log_probs
    c.sampled += [piece.sampled] * len(piece.tokens)
    c.tops += piece.tops
    c.text += piece.text
    self._pieces.put(piece)

  def finish(self, end: str, error: BaseException | None = None) -> None:
    """Ends the answer; called by the engine."""
    self.completion.end, self.error = end, error
    self.completion.finished = end in ('stop', 'string')
    self._pieces.put(None)
    self._done.set()
