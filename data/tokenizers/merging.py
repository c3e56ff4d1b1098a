"""Byte-pair merges in the order in which they happen, for showing how a text becomes tokens."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

# The place of a pair in the order of merges, the first one lowest; None for pairs that never merge.
Rank = Callable[[bytes, bytes], int | None]


@dataclasses.dataclass(frozen=True)
class Merge:
  """Two neighbouring parts that become one, wherever they meet.

  Attributes:
    left, right: the two parts.
    places: (piece, part) of each left part. Places of a piece are in the order in which they are
      merged, and count the parts that are there at that time.
  """

  left: bytes
  right: bytes
  places: list[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Trace:
  """How a text becomes tokens.

  Attributes:
    pieces: the text, split where no token may cross. Their bytes are the first parts.
    merges: what happens to them, in order.
  """

  pieces: list[bytes]
  merges: list[Merge]

  def tokens(self) -> list[bytes]:
    """Returns the parts that are left after all merges."""
    parts = [_bytes_of(piece) for piece in self.pieces]
    for merge in self.merges:
      for piece, at in merge.places:
        parts[piece][at : at + 2] = [merge.left + merge.right]
    return list(itertools.chain(*parts))


def trace(pieces: Sequence[bytes], rank: Rank, is_token: Callable[[bytes], bool]) -> Trace:
  """Returns the merges of all pieces, those of the lowest rank first.

  Args:
    pieces: the text, split where no token may cross.
    rank: the order of merges.
    is_token: whether a piece is taken as a whole, even where no order of merges makes it. Then its
      last merges join whatever is left.
  """
  merges: list[Merge] = []
  state = [_bytes_of(piece) for piece in pieces]

  def apply(pair: tuple[bytes, bytes], piece: int, at: int) -> None:
    state[piece][at : at + 2] = [pair[0] + pair[1]]
    merges[-1].places.append((piece, at))

  def first(parts: list[bytes]) -> tuple[int, int, tuple[bytes, bytes]] | None:
    """Returns (rank, place, pair) of the next merge of a piece, or None."""
    pairs = enumerate(itertools.pairwise(parts))
    ranked = ((rank(*pair), at, pair) for at, pair in pairs)
    return min((item for item in ranked if item[0] is not None), default=None)

  following = [first(parts) for parts in state]
  while any(following):
    lowest, _, pair = min(item for item in following if item is not None)
    merges.append(Merge(*pair, []))
    for i, item in enumerate(following):
      while item is not None and item[0] == lowest:  # `BPE.merges` says why it is this pair.
        apply(pair, i, item[1])
        item = following[i] = first(state[i])
  for i, parts in enumerate(state):
    while len(parts) > 1 and is_token(pieces[i]):
      merges.append(Merge(parts[0], parts[1], []))
      apply((parts[0], parts[1]), i, 0)
  return Trace(list(pieces), merges)


def _bytes_of(piece: bytes) -> list[bytes]:
  return [piece[i : i + 1] for i in range(len(piece))]
