"""Stop strings: the text of an answer as it grows, and where a stop string ends it."""

from collections.abc import Callable, Sequence


class StopStrings:
  """Reads the tokens of an answer as bytes and finds the first stop string that is completed.

  Bytes that may be the beginning of a stop string are held back until that is decided.
  """

  def __init__(
    self,
    strings: Sequence[str],
    token_bytes: Callable[[int], bytes],
    call_tags: Sequence[int] = (),
  ):
    """Creates the reader.

    Args:
      strings: the stop strings.
      token_bytes: the UTF-8 bytes of a token, by id.
      call_tags: an opening and a closing token, between which nothing is looked for.
    """
    self._stops = [text.encode() for text in strings]
    self._token_bytes = token_bytes
    self._opening, self._closing = call_tags or (None, None)
    self._in_call = False
    self._held = b''

  def read(self, token: int) -> tuple[bytes, bool]:
    """Returns (bytes that may be shown, whether a stop string is complete).

    If it is, the bytes end before the stop string, and nothing more may be read. Of several that
    one token completes, the one that begins first counts.
    """
    if self._in_call or token == self._opening:
      return self.skip(token), False
    text = self._held + self._token_bytes(token)
    places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
    if places:
      self._held = b''
      return text[: min(places)], True
    held = max((_overlap(text, stop) for stop in self._stops), default=0)
    self._held = text[len(text) - held :]
    return text[: len(text) - held], False

  def skip(self, token: int) -> bytes:
    """Returns the bytes that may be shown after a token in which nothing is looked for.

    No stop string begins before it and ends behind it.
    """
    self._in_call = token == self._opening or (self._in_call and token != self._closing)
    return self.rest() + self._token_bytes(token)

  def rest(self) -> bytes:
    """Returns what is still held back, at the end of an answer."""
    held, self._held = self._held, b''
    return held


def _overlap(text: bytes, stop: bytes) -> int:
  """Returns the length of the longest end of `text` that a longer `stop` begins with."""
  longest = min(len(text), len(stop) - 1)
  return next((n for n in range(longest, 0, -1) if stop.startswith(text[len(text) - n :])), 0)
