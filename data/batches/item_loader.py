"""Batches of items that are held in memory, such as pairs of answers."""

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data.shards.loader import host_examples, permute, read_ahead
from lm.base import files

Tokens = tuple[list[int], list[int]]  # ids, and a mask that is 1 on what is learned


class ItemLoader(abc.ABC):
  """Batches of items as a pure function of the step.

  An item is a dataclass with a field `prompt`, and fills `rows_of_item` rows in turn.

  Attributes:
    rows: number of rows that all items fill.
    fingerprint: SHA-256 (hex) of the items, the seed and the length of a row.
    steps_per_epoch: number of batches with every item once, the last filled up with empty rows.
  """

  def __init__(
    self,
    items: Sequence[Any],
    *,
    seq_len: int,
    batch_size: int,
    seed: int,
    train: bool,
    rows_of_item: int = 1,
  ):
    """Arranges items in rows.

    Args:
      items: one item or more.
      seq_len: tokens in a row.
      batch_size: number of rows in the batch of all hosts together.
      seed: seed of the order in training.
      train: whether items are shuffled without end; else each comes once, in order.
      rows_of_item: number of rows of an item.
    """
    self._items, self._seq_len, self._batch_size = items, seq_len, batch_size
    self._seed, self._train, self._rows_of_item = seed, train, rows_of_item
    self.rows = len(items) * rows_of_item
    self.steps_per_epoch = -(-self.rows // batch_size)
    self.fingerprint = files.digest([[dataclasses.astuple(x) for x in items], seq_len, seed])

  def batch(self, step: int, index: int = 0, count: int = 1, parts: int = 1) -> dict[str, Any]:
    """Returns host `index`'s rows of a step, of `count` hosts (see `data.shards.loader.Loader`)."""
    examples = host_examples(step, self._batch_size, index, count, parts)
    return self._arrays(examples.tolist())

  def iterate(
    self, start: int, stop: int, index: int = 0, count: int = 1, parts: int = 1
  ) -> Iterator[dict[str, Any]]:
    """Returns an iterator over the batches of steps `start` to `stop` - 1, which reads ahead."""
    return read_ahead(lambda step: self.batch(step, index, count, parts), start, stop)

  def epoch(self, steps: int) -> float:
    """Returns how many times this many steps read the items."""
    return steps * self._batch_size / self.rows

  def prompt_of(self, row: int) -> str:
    """Returns what identifies the prompt of a held-out row, counted over all batches."""
    return self._items[row // self._rows_of_item].prompt

  @abc.abstractmethod
  def _arrays(self, examples: list[int]) -> dict[str, np.ndarray]:
    """Returns the fields of rows, which are numbered from the first row of step 0."""

  def _item(self, number: int) -> Any:
    """Returns item `number` of the run, or None past the end of held-out items."""
    if not self._train:
      return self._items[number] if number < len(self._items) else None
    epoch, index = divmod(number, len(self._items))
    (place,) = permute(np.array([index]), len(self._items), f'{self._seed}/pairs/{epoch}')
    return self._items[int(place)]


@dataclasses.dataclass(frozen=True)
class ItemSource:
  """Training batches, and held-out ones (None if nothing is held out)."""

  train: ItemLoader
  val: ItemLoader | None

  @property
  def fingerprint(self) -> str:
    """A digest of the training data."""
    return self.train.fingerprint


def fill(rows: Sequence[Tokens | None], length: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns ids, int32 [rows, length], and masks, float32, of tokens that are padded or cut off.

  Args:
    rows: the tokens of each row; None for an empty row.
    length: tokens in a row.
  """
  ids, mask = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), np.float32)
  for row, tokens in enumerate(rows):
    if tokens is not None:
      of_row, learned = (part[:length] for part in tokens)
      ids[row, : len(of_row)], mask[row, : len(of_row)] = of_row, learned
  return ids, mask
