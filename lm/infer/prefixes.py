"""Finds rows that hold the beginning of a prompt already, so that it is not read again.

Of sequences in lexical order, those that have most of their beginning in common with another are
its neighbours. So a prompt is looked up in the time of a binary search, however many rows there
are.
"""

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np

from lm.infer.slots import Slot

# A row is copied for this many tokens or more, or for all but the last of a shorter prompt.
WORTH_COPYING = 16
_WIDTH = 4  # Bytes of a token in a key.


@dataclasses.dataclass(frozen=True)
class Found:
  """The number of tokens of a prompt that a row holds, and the row; None if they are too few."""

  length: int
  slot: Slot | None


def key_of(tokens: Sequence[int]) -> bytes:
  """Returns tokens as bytes that are in the lexical order of the tokens."""
  return np.asarray(tokens, f'>u{_WIDTH}').tobytes()


def can_go_on(found: Found) -> bool:
  """Returns whether the row is free and holds nothing else, so that it need not be copied."""
  slot = found.slot
  return slot is not None and slot.is_free and len(slot.held) <= found.length + 1


class Prefixes:
  """What rows hold, and what those that read will hold.

  It is made from all rows, and is told of each row that changes before it is asked again.
  """

  def __init__(self, slots: Sequence[Slot]):
    self._held, self._coming = _Sorted(), _Sorted()
    for slot in slots:
      self.update(slot)

  def update(self, slot: Slot) -> None:
    """Takes note of what a row holds and reads now."""
    self._held.put(slot, slot.held)
    self._coming.put(slot, [*slot.held, *slot.pending[:-1]] if slot.reads(1) else [])

  def find(self, key: bytes) -> Found:
    """Returns the row that holds most of the beginning of a prompt.

    The last token of the prompt does not count: what follows it is not in the cache.

    Args:
      key: `key_of` the prompt.
    """
    best, most = self._held.nearest(key), len(key) // _WIDTH - 1
    best = Found(min(best.length, most), best.slot)
    return best if can_go_on(best) or best.length >= min(WORTH_COPYING, most) else Found(0, None)

  def is_coming(self, key: bytes, length: int) -> bool:
    """Returns whether a row is about to read more of a prompt than the `length` that is held."""
    most = len(key) // _WIDTH - 1
    return min(self._coming.nearest(key).length, most) >= max(length + 1, min(WORTH_COPYING, most))


class _Sorted:
  """Rows in the lexical order of sequences of tokens; rows with empty ones are left out."""

  def __init__(self):
    self._entries: list[tuple[bytes, int, Slot]] = []
    self._keys: dict[int, bytes] = {}  # by the number of a row

  def put(self, slot: Slot, tokens: Sequence[int]) -> None:
    """Gives a row this sequence in place of the one that it has."""
    if old := self._keys.pop(slot.index, None):
      del self._entries[bisect.bisect_left(self._entries, (old, slot.index))]
    if tokens:
      self._keys[slot.index] = key = key_of(tokens)
      bisect.insort(self._entries, (key, slot.index, slot), key=lambda entry: entry[:2])

  def nearest(self, key: bytes) -> Found:
    """Returns the row that has the longest beginning in common with a key, and its length."""
    place = bisect.bisect_left(self._entries, (key,))
    neighbours = self._entries[max(0, place - 1) : place + 1]
    found = [Found(_common(entry[0], key), entry[2]) for entry in neighbours]
    return max(found, key=lambda each: (each.length, can_go_on(each)), default=Found(0, None))


def _common(a: bytes, b: bytes) -> int:
  """Returns how many tokens two keys have in common at their beginning."""
  n = min(len(a), len(b)) // _WIDTH
  tokens_a, tokens_b = (np.frombuffer(key, np.uint32, n) for key in (a, b))
  different = np.flatnonzero(tokens_a != tokens_b)
  return int(different[0]) if len(different) else n
