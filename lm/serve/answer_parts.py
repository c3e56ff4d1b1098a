"""The tokens of an answer as text: what is said, thought, called and returned, kept apart.

Tokens are read one after the other. No part ends inside a character, text that may begin a stop
string is held back, and each text comes with the reports of the tokens that it is made of.
"""

import codecs
import collections
import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from lm.infer.requests import Piece, Top
from lm.infer.stop_strings import StopStrings

KINDS = ('text', 'think', 'python', 'output')


@dataclasses.dataclass(frozen=True)
class Report:
  """A drawn token and the log-probabilities at its place, if they were asked for."""

  token: int
  top: Top | None


@dataclasses.dataclass
class Part:
  """The next text of an answer.

  Attributes:
    kind: one of KINDS: said, thought, the text of a tool's call, the result of a tool.
    text: the text; it may be empty.
    reports: of the drawn tokens whose last byte is in the text.
    opens: whether a tag begins this part, so that it does not continue the last one of its kind.
    closes: whether a tag ends it.
    tokens: how many tokens it is made of, tags included.
  """

  kind: str
  text: str
  reports: list[Report]
  opens: bool = False
  closes: bool = False
  tokens: int = 0


class AnswerParts:
  """Reads the pieces of one answer.

  Only its closing tag ends a thought.
  """

  def __init__(
    self,
    chat_format: Any,
    stop_strings: Sequence[str] = (),
    in_thought: bool = False,
    *,
    stops_in: Collection[str] = KINDS,
  ):
    """Creates the reader.

    Args:
      chat_format: of the model (`data.chat.chat_formats.Format`).
      stop_strings: those of the request.
      in_thought: whether the prompt has opened a thought that the answer continues.
      stops_in: the KINDS in which stop strings are looked for.
    """
    self._stops_in = stops_in
    self._token_bytes = chat_format.tokenizer.token_bytes
    self._tags: dict[int, tuple[str, bool, bytes]] = {}
    for kind in KINDS[1:]:
      texts = chat_format.tags.get(kind, ('', ''))
      for tag, is_opening, text in zip(
        tag_ids(chat_format, kind), (True, False), texts, strict=False
      ):
        self._tags[tag] = kind, is_opening, text.encode()
    self._stops = StopStrings(stop_strings, self._token_bytes)
    self._kind = self._shown_kind = 'think' if in_thought else 'text'
    self._in_thought = in_thought
    self._ended = False
    self._unshown: collections.deque[_Unshown] = collections.deque()
    self._utf8 = codecs.getincrementaldecoder('utf-8')('replace')

  @property
  def stopped(self) -> bool:
    """Returns whether a stop string has ended the answer."""
    return self._ended

  def read(self, piece: Piece) -> list[Part]:
    """Returns the texts that the next piece adds, without empty ones."""
    parts: list[Part] = []
    for i, token in enumerate(piece.tokens):
      if not self._ended:
        top = piece.tops[i] if i < len(piece.tops) else None
        parts += self._read_token(token, Report(token, top) if piece.sampled else None)
    return _joined(parts)

  def end(self) -> list[Part]:
    """Returns what was held back, at the end of an answer."""
    if self._ended:
      return []
    return _joined([*self._show(len(self._stops.rest())), self._flush()])

  def _read_token(self, token: int, report: Report | None) -> Iterator[Part]:
    data = self._token_bytes(token)
    kind, is_opening, tag = self._tags.get(token) or (None, False, data)
    shown = b'' if kind else data
    if self._in_thought and kind != 'think':
      kind, shown = None, tag  # A call in a thought and its result are part of it, tags and all.
    if kind == 'think':
      self._in_thought = is_opening
    # A closing tag closes what is open, whatever that is.
    self._kind = kind if is_opening and kind else self._kind
    closes = bool(kind) and not is_opening
    opens = bool(kind) and is_opening
    entry = _Unshown(len(data), shown, report, self._kind, opens, closes)
    self._unshown.append(entry)
    self._kind = 'text' if closes else self._kind
    # Stop strings are not looked for in what a tool returned.
    if report is None or entry.kind not in self._stops_in:
      yield from self._show(len(self._stops.rest()) + len(data))
      return
    readable, self._ended = self._stops.read(token)
    yield from self._show(len(readable))
    if self._ended:
      yield self._flush()

  def _show(self, count: int) -> Iterator[Part]:
    """Yields what the next `count` bytes that were read are to show, token by token."""
    while self._unshown and self._unshown[0].left <= count:
      token = self._unshown.popleft()
      count -= token.left
      if token.opens or token.closes:
        yield self._flush()
        self._shown_kind = token.kind
      text = self._utf8.decode(token.data)
      reports = [token.report] if token.report else []
      yield Part(token.kind, text, reports, token.opens, token.closes, tokens=1)
      self._shown_kind = 'text' if token.closes else token.kind
    if count:
      token = self._unshown[0]
      yield Part(token.kind, self._utf8.decode(token.data[:count]), [])
      token.data, token.left = token.data[count:], token.left - count

  def _flush(self) -> Part:
    """Returns what is left of a character that was never completed."""
    return Part(self._shown_kind, self._utf8.decode(b'', final=True), [])


@dataclasses.dataclass
class _Unshown:
  """A token that was read and is not shown yet.

  Attributes:
    left: how many of its bytes stop strings are still looked for in.
    data: the bytes to show; none for a tag.
    report: of a drawn token.
    kind, opens, closes: of its part.
  """

  left: int
  data: bytes
  report: Report | None
  kind: str
  opens: bool
  closes: bool


def tag_ids(chat_format: Any, kind: str) -> tuple[int, ...]:
  """Returns the opening and the closing tag of a kind of part, or () if the tokenizer has none.

  The tags of thoughts are ordinary tokens in some vocabularies.
  """
  ids = chat_format.tag_ids(kind)
  if len(ids) < 2 and kind == 'think':
    encoded = [chat_format.tokenizer.encode_inside(tag) for tag in chat_format.tags[kind]]
    ids = tuple(tokens[0] for tokens in encoded if len(tokens) == 1)
  return ids if len(ids) == 2 else ()


def opens_thought(chat_format: Any) -> bool:
  """Returns whether the chat template begins answers inside a thought."""
  opening, closing = chat_format.tags['think']
  reply = chat_format.layout.reply
  return reply.rfind(opening) > reply.rfind(closing)


def ends_in_thought(chat_format: Any, prompt: Sequence[int]) -> bool:
  """Returns whether token ids open a thought that they do not close."""
  tags = tag_ids(chat_format, 'think')
  last = next((token for token in reversed(prompt) if token in tags), None)
  return last is not None and last == tags[0]


def _joined(parts: Sequence[Part]) -> list[Part]:
  """Returns the parts with neighbours of a kind as one, without those that say nothing."""
  joined: list[Part] = []
  for part in parts:
    last = joined[-1] if joined else None
    if last and last.kind == part.kind and not part.opens and not last.closes:
      last.text += part.text
      last.reports += part.reports
      last.tokens += part.tokens
      last.closes = part.closes
    else:
      joined.append(part)
  return [p for p in joined if p.text or p.reports or p.opens or p.closes]
