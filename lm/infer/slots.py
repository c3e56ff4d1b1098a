"""One row of the engine: the request in it, the tokens that it has read, and what comes next."""

from collections.abc import Sequence
from concurrent.futures import Future

from lm.infer.requests import Handle, Piece, Top
from lm.infer.stop_strings import StopStrings


class Slot:
  """A row of the cache and its request.

  A row that has no request keeps what it has read, because the next request may begin with it.

  Attributes:
    handle: the request that the row serves; None if it is free.
    held: the tokens in the cache.
    pending: the tokens that the row reads next; what it draws follows the last of them.
    call: the tool that is running; None if there is none.
    order: the number of the request among all that had a row; small ones are read first.
    last_used: when the row was last freed, by the engine's count of requests.
  """

  def __init__(self, index: int):
    self.index = index
    self.handle: Handle | None = None
    self.held: list[int] = []
    self.pending: list[int] = []
    self.call: Future | None = None
    self.order = self.last_used = 0

  @property
  def is_free(self) -> bool:
    """Returns whether the row serves no request."""
    return self.handle is None

  def reads(self, most: int) -> bool:
    """Returns whether the row has more than `most` tokens to read before it draws."""
    return not self.is_free and self.call is None and len(self.pending) > most

  def draws(self, most: int) -> bool:
    """Returns whether the row draws next, with at most `most` tokens to read before."""
    return not self.is_free and self.call is None and 0 < len(self.pending) <= most

  def begin(self, handle: Handle, shared: int, order: int) -> None:
    """Takes a request, number `order`, whose first `shared` tokens the row holds already."""
    request = handle.request
    self.handle, self.order, handle.completion.reused = handle, order, shared
    tokens = [*request.prompt, *request.forced]
    self.held, self.pending, self.call = tokens[:shared], tokens[shared:], None
    self._left, self._calls = request.max_new_tokens, 0
    self._stops, self._pauses = frozenset(request.stop_ids), frozenset(request.pause_ids)
    self._text = None
    if request.token_bytes is not None:
      self._text = StopStrings(request.stop_strings, request.token_bytes, request.call_tags)
    if request.forced:
      self._add(request.forced, [0.0] * len(request.forced), False, [])

  def room(self, capacity: int) -> int:
    """Returns how many more tokens the context holds."""
    return capacity - len(self.held) - len(self.pending)

  def budget(self, capacity: int) -> int:
    """Returns how many more tokens the row may draw."""
    return min(self._left, self.room(capacity))

  def read(self, count: int) -> None:
    """Moves tokens from `pending` to `held`."""
    self.held += self.pending[:count]
    del self.pending[:count]

  def draw(self, tokens: list[int], log_probs: list[float], tops: list[Top], fed: int) -> bool:
    """Adds tokens that the row drew; returns whether a stop string ended the answer.

    Tokens that were drawn behind the stop string are dropped.

    Args:
      fed: how many tokens, of those pending and of those drawn, are in the cache now.
    """
    self.pending += tokens
    self.read(fed)
    self._left -= len(tokens)
    kept, text, ended = self._read_text(tokens)
    if tokens:
      self._add(tokens[:kept], log_probs[:kept], True, tops[:kept], text)
    if kept < len(tokens):
      beyond = len(tokens) - kept
      self.held = (self.held + self.pending)[: -beyond or None][: len(self.held)]
    return ended

  def force(self, tokens: list[int]) -> None:
    """Adds the result of a call."""
    self.pending += tokens
    self._add(tokens, [0.0] * len(tokens), False, [])

  def end_after(self, token: int | None, capacity: int) -> str:
    """Returns why the answer ends after the token drawn last, or '' if it goes on."""
    if token in self._stops:
      return 'stop'
    if not self._left:
      return 'length'
    return '' if self.room(capacity) > 0 else 'full'

  def wants_call(self, token: int | None) -> bool:
    """Returns whether the token drawn last asks for the tool."""
    return token in self._pauses

  def may_call(self) -> bool:
    """Counts a call, and returns whether the request allows it."""
    request = self.handle.request
    if request.tool is None or self._calls == request.max_calls:
      return False
    self._calls += 1
    return True

  def finish(self, end: str, now: int, error: BaseException | None = None) -> None:
    """Ends the answer and frees the row."""
    handle = self.handle
    rest = self._text.rest() if self._text and end != 'string' else b''
    if rest:
      handle.add(Piece([], [], True, [], rest))
    if self.call is not None:
      self.call.cancel()  # It may not have begun.
    self.handle, self.pending, self.call, self.last_used = None, [], None, now
    handle.finish(end, error)

  def _read_text(self, tokens: Sequence[int]) -> tuple[int, bytes, bool]:
    """Returns (tokens up to a stop string, bytes that may be shown, whether there is one)."""
    text = b''
    if self._text is None:
      return len(tokens), text, False
    for i, token in enumerate(tokens):
      if token in self._stops:
        break
      shown, ended = self._text.read(token)
      text += shown
      if ended:
        return i + 1, text, True
    return len(tokens), text, False

  def _add(
    self,
    tokens: Sequence[int],
    log_probs: list[float],
    sampled: bool,
    tops: list[Top],
    text: bytes | None = None,
  ) -> None:
    if text is None:  # Nobody stops at tokens that are forced in.
      text = b''.join(map(self._text.skip, tokens)) if self._text else b''
    self.handle.add(Piece(list(tokens), log_probs, sampled, tops, text))
