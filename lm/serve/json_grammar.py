"""The grammar of one JSON object, read byte by byte, so that a model can be held to it.

A state is a value: `read` returns the next one, or None where the bytes break the grammar, and
`closing` returns the shortest text that completes the object.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

MAX_DEPTH = 32  # of objects and lists inside each other
MAX_SPACES = 16  # white space in a row outside texts, so that an answer gets on
MASKS = 256  # of tokens that are kept, one for each state
MAX_DIGITS = 32  # of a number; readers of JSON refuse very long ones
SPACES = b' \t\n\r'
LITERALS = {b't'[0]: b'rue', b'f'[0]: b'alse', b'n'[0]: b'ull'}
ESCAPES = b'"\\/bfnrt'
HEX = b'0123456789abcdefABCDEF'
DIGITS = b'0123456789'
# What completes a state, before what is open around it is closed.
_COMPLETIONS = {
  'start': b'{}',
  'first key': b'',
  'key': b'"":0',
  'colon': b':0',
  'value': b'0',
  'first value': b'',
  'after': b'',
  'minus': b'0',
  'zero': b'',
  'integer': b'',
  'point': b'0',
  'fraction': b'',
  'e': b'0',
  'sign': b'0',
  'exponent': b'',
  'done': b'',
}
# What a digit leads to, and whether other text may end the number.
_NUMBERS = {
  'minus': ('integer', False),
  'zero': (None, True),
  'integer': ('integer', True),
  'point': ('fraction', False),
  'fraction': ('fraction', True),
  'e': ('exponent', False),
  'sign': ('exponent', False),
  'exponent': ('exponent', True),
}


@dataclasses.dataclass(frozen=True)
class State:
  """Where a reader of one JSON object stands.

  Attributes:
    mode: what may follow.
    around: the brackets that are open, as b'{' and b'['.
    rest: bytes that must follow: of a literal, or b'0' for each digit of an escape.
    is_key: whether the text that is being read is the name of a field.
    count: white space in a row, or digits of a number.
  """

  mode: str = 'start'
  around: bytes = b''
  rest: bytes = b''
  is_key: bool = False
  count: int = 0

  @property
  def is_done(self) -> bool:
    """Returns whether the object is complete."""
    return self.mode == 'done'

  def read(self, data: bytes) -> 'State | None':
    """Returns the state behind these bytes, or None if they cannot follow."""
    state: State | None = self
    for byte in data:
      state = state._next(byte)
      if state is None:
        return None
    return state

  def closing(self) -> bytes:
    """Returns the shortest text that completes the object."""
    if self.mode in ('text', 'escape', 'hex', 'literal'):
      middle = {'text': b'', 'escape': b'n', 'hex': self.rest, 'literal': self.rest}[self.mode]
      if self.mode != 'literal':
        middle += b'":0' if self.is_key else b'"'
    else:
      middle = _COMPLETIONS[self.mode]
    return middle + bytes(b'}]'[b'{['.index(bracket)] for bracket in reversed(self.around))

  def _to(self, mode: str, **fields: Any) -> 'State':
    return State(mode, fields.pop('around', self.around), **fields)

  def _next(self, byte: int) -> 'State | None':
    if self.mode == 'text':
      return self._in_text(byte)
    if self.mode == 'escape':
      if byte == b'u'[0]:
        return self._to('hex', rest=b'0000', is_key=self.is_key)
      return self._to('text', is_key=self.is_key) if byte in ESCAPES else None
    if self.mode == 'hex':
      if byte not in HEX:
        return None
      mode = 'hex' if len(self.rest) > 1 else 'text'
      return self._to(mode, rest=self.rest[1:], is_key=self.is_key)
    if self.mode == 'literal':
      if byte != self.rest[0]:
        return None
      return self._to('literal', rest=self.rest[1:]) if self.rest[1:] else self._to('after')
    if self.mode in _NUMBERS:
      return self._in_number(byte)
    if byte in SPACES:
      return dataclasses.replace(self, count=self.count + 1) if self.count < MAX_SPACES else None
    return self._between(byte)

  def _in_text(self, byte: int) -> 'State | None':
    if byte == b'"'[0]:
      return self._to('colon' if self.is_key else 'after')
    if byte == b'\\'[0]:
      return self._to('escape', is_key=self.is_key)
    return self if byte >= 32 else None

  def _in_number(self, byte: int) -> 'State | None':
    following, may_end = _NUMBERS[self.mode]
    if byte in DIGITS:
      if self.mode == 'minus' and byte == b'0'[0]:
        return self._to('zero')
      if following is None or self.count >= MAX_DIGITS:
        return None
      return self._to(following, count=self.count + 1)
    if self.mode in ('zero', 'integer') and byte == b'.'[0]:
      if self.count >= MAX_DIGITS:
        return None
      return self._to('point', count=self.count)
    if self.mode in ('zero', 'integer', 'fraction') and byte in b'eE':
      return self._to('e', count=MAX_DIGITS - 2)  # An exponent has two digits.
    if self.mode == 'e' and byte in b'+-':
      return self._to('sign', count=self.count)
    return self._to('after')._next(byte) if may_end else None

  def _between(self, byte: int) -> 'State | None':
    """Returns the state behind a byte that is no white space, outside texts and numbers."""
    mode, inside = self.mode, self.around[-1:]
    if mode == 'start':
      return self._to('first key', around=b'{') if byte == b'{'[0] else None
    if mode in ('first key', 'key') and byte == b'"'[0]:
      return self._to('text', is_key=True)
    if mode == 'colon':
      return self._to('value') if byte == b':'[0] else None
    if mode in ('value', 'first value') and (state := self._begin_value(byte)):
      return state
    if mode == 'after' and byte == b','[0]:
      return self._to('key' if inside == b'{' else 'value')
    closes = {'first key': b'}', 'first value': b']', 'after': b'}' if inside == b'{' else b']'}
    if closes.get(mode) == bytes([byte]):
      around = self.around[:-1]
      return self._to('after' if around else 'done', around=around)
    return None

  def _begin_value(self, byte: int) -> 'State | None':
    if byte in b'{[':
      mode = 'first key' if byte == b'{'[0] else 'first value'
      deeper = self.around + bytes([byte])
      return self._to(mode, around=deeper) if len(deeper) <= MAX_DEPTH else None
    if byte == b'"'[0]:
      return self._to('text')
    if byte in LITERALS:
      return self._to('literal', rest=LITERALS[byte])
    if byte == b'-'[0]:
      return self._to('minus')
    if byte in DIGITS:
      return self._to('zero') if byte == b'0'[0] else self._to('integer', count=1)
    return None


class TokenMasks:
  """Which tokens of a vocabulary may follow a state.

  Attributes:
    without_bytes: the tokens that are no text, such as special ones; they never follow.
  """

  def __init__(self, tokens: list[bytes]):
    """Reads the vocabulary.

    Args:
      tokens: the bytes of each token, by id.
    """
    self.without_bytes = frozenset(i for i, token in enumerate(tokens) if not token)
    # Tokens by their length, so that those that go on at a byte are the last ones.
    lengths = np.array([len(token) for token in tokens])
    self._order = np.argsort(lengths, kind='stable')
    self._lengths = lengths[self._order]
    width = int(lengths.max(initial=0))
    padded = b''.join(tokens[i].ljust(width, b'\0') for i in self._order)
    # Byte by byte, the byte of every token; the types are those of indices.
    self._bytes = np.frombuffer(padded, np.uint8).reshape(-1, width).T.astype(np.int64)
    plain = [bool(t) and min(t) >= 32 and b'"' not in t and b'\\' not in t for t in tokens]
    self._plain = np.array(plain, bool)
    self._allowed = functools.lru_cache(maxsize=MASKS)(self._find)

  def allowed(self, state: State) -> np.ndarray:
    """Returns a bool [V], True for tokens that may follow."""
    return self._allowed(state)

  def _find(self, state: State) -> np.ndarray:
    """Reads all tokens at once, a byte of each at a time."""
    allowed = self._plain.copy() if state.mode == 'text' else np.zeros(len(self._plain), bool)
    # Places in `order` of the tokens that are still read, and the number of the state of each.
    places = np.flatnonzero((self._lengths > 0) & ~allowed[self._order])
    states, numbers = [state], {state: 0}
    current = np.zeros(len(places), np.int64)
    for position, column in enumerate(self._bytes):
      pairs = current * 256 + column[places]
      following = np.full(len(states) * 256, -1)
      for pair in np.flatnonzero(np.bincount(pairs, minlength=len(following))).tolist():
        after = states[pair >> 8].read(bytes([pair & 255]))
        if after is not None:
          if after not in numbers:
            numbers[after] = len(states)
            states.append(after)
          following[pair] = numbers[after]
      current = following[pairs]
      kept = current >= 0
      places, current = places[kept], current[kept]
      ended = np.searchsorted(self._lengths[places], position + 1, side='right')
      allowed[self._order[places[:ended]]] = True
      places, current = places[ended:], current[ended:]
      if not len(places):
        break
    return allowed
