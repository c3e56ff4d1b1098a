"""Finds rows that hold the beginning of a prompt already, so that it is not read again."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lm.infer.slots import Slot

# A row is copied for this many tokens or more, or for all but the last of a shorter prompt.
WORTH_COPYING = 16


@dataclasses.dataclass(frozen=True)
class Found:
  """The number of tokens of a prompt that a row holds, and the row; None if they are too few."""

  length: int
  slot: Slot | None


def find(slots: Sequence[Slot], prompt: np.ndarray) -> Found:
  """Returns the row that holds most of the beginning of a prompt.

  The last token of the prompt does not count: what follows it is not in the cache.
  """
  best, most = Found(0, None), len(prompt) - 1
  for slot in slots:
    if len(slot.held) > best.length:
      length = min(_common(slot.held, prompt), most)
      if length > best.length:
        best = Found(length, slot)
        if length == most:
          break
  return best if can_go_on(best) or best.length >= min(WORTH_COPYING, most) else Found(0, None)


def can_go_on(found: Found) -> bool:
  """Returns whether the row is free and holds nothing else, so that it need not be copied."""
  slot = found.slot
  return slot is not None and slot.is_free and len(slot.held) <= found.length + 1


def is_coming(slots: Sequence[Slot], prompt: np.ndarray, length: int) -> bool:
  """Returns whether a row is about to read more of a prompt than the `length` that is held."""
  most = len(prompt) - 1
  enough = max(length + 1, min(WORTH_COPYING, most))
  return any(
    min(_common([*slot.held, *slot.pending[:-1]], prompt), most) >= enough
    for slot in slots
    if slot.reads(1)
  )


def _common(held: Sequence[int], prompt: np.ndarray) -> int:
  """Returns how many tokens two sequences have in common at their beginning."""
  n = min(len(held), len(prompt))
  different = np.flatnonzero(np.asarray(held[:n], np.int32) != prompt[:n])
  return int(different[0]) if len(different) else n
