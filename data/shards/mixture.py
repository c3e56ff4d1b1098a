"""Mixes token streams, by share (`Mixture`) or by number of epochs (`Epochs`).

`batch(step)` of both is a pure function of the step, as in `Loader`.
"""

import bisect
import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from data.shards.loader import Loader, host_examples, permute, read_ahead
from lm.base import files
from lm.base.errors import UserError


class Mixture:
  """Rows of several loaders in given shares, which may change at given steps.

  A mixture is read like a `Loader`. Of each BLOCK consecutive examples every source has its exact
  share, in an order that the seed determines. Each source's own examples follow one another
  whatever the shares, and none is skipped or repeated when the shares change.

  Attributes:
    fingerprint: SHA-256 (hex) of the sources' fingerprints and of the shares.
  """

  BLOCK = 1 << 14  # examples in which every source has its exact share

  def __init__(self, sources: Sequence[Loader], weights: str, *, batch_size: int, seed: int):
    """Mixes `sources`, which are training loaders of one seq_len.

    Args:
      sources: the loaders.
      weights: the sources' weights in order, 'W,W,...', or weights that change at given steps,
        '0:W,W,...;STEP:W,W,...'.
      batch_size: number of rows in the batch of all hosts together.
      seed: seed of the order of the sources.

    Raises:
      UserError: the weights do not have this form, do not match the sources in number, or are too
        small beside the others.
    """
    self._sources, self._batch_size, self._seed = list(sources), batch_size, seed
    self._steps, shares = zip(*_phases(weights, len(self._sources)), strict=True)
    self._quotas = [self._quota(share, weights) for share in shares]
    self._patterns = functools.lru_cache(8)(self._pattern)
    # The number of examples that each source has given when a phase begins.
    self._given = [np.zeros(len(self._sources), np.int64)]
    for phase in range(1, len(self._steps)):
      steps = self._steps[phase] - self._steps[phase - 1]
      self._given.append(self._count(phase - 1, steps * batch_size))
    fingerprints = [source.fingerprint for source in self._sources]
    self.fingerprint = files.digest([fingerprints, self._steps, shares])

  def batch(
    self, step: int, host: int = 0, hosts: int = 1, parts: int = 1
  ) -> dict[str, np.ndarray]:
    """Returns one host's rows of a step, as `Loader.batch` does."""
    if step < 0:
      raise IndexError(f'step {step} is below 0')
    phase = bisect.bisect_right(self._steps, step) - 1
    examples = host_examples(step, self._batch_size, host, hosts, parts)
    places = examples - self._steps[phase] * self._batch_size
    source, example = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
    for block in np.unique(places // self.BLOCK).tolist():
      mine = places // self.BLOCK == block
      sources, ranks = self._patterns(phase, block)
      source[mine] = sources[places[mine] % self.BLOCK]
      before = self._given[phase] + block * self._quotas[phase]
      example[mine] = before[source[mine]] + ranks[places[mine] % self.BLOCK]
    return _rows_of(self._sources, source, example)

  def iterate(
    self, start: int, stop: int, host: int = 0, hosts: int = 1, parts: int = 1
  ) -> Iterator[dict[str, np.ndarray]]:
    """Returns an iterator over batches that reads ahead, as `Loader.iterate` does."""
    return read_ahead(lambda step: self.batch(step, host, hosts, parts), start, stop)

  def epoch(self, steps: int) -> float:
    """Returns how many times this many steps read the source that is read most often."""
    phase = bisect.bisect_right(self._steps, steps) - 1
    given = self._count(phase, (steps - self._steps[phase]) * self._batch_size)
    return max(float(n) / source.rows for n, source in zip(given, self._sources, strict=True))

  def _count(self, phase: int, examples: int) -> np.ndarray:
    """Returns how many examples each source has given after so many examples of a phase.

    The result is int64 [sources].
    """
    block, rest = divmod(examples, self.BLOCK)
    sources, _ = self._patterns(phase, block)
    in_block = np.bincount(sources[:rest], minlength=len(self._sources))
    return self._given[phase] + block * self._quotas[phase] + in_block

  def _quota(self, weights: Sequence[float], given: str) -> np.ndarray:
    """Returns the number of examples of each source in a block, by largest remainders."""
    exact = np.array(weights) / sum(weights) * self.BLOCK
    quota = exact.astype(np.int64)
    quota[np.argsort(quota - exact, kind='stable')[: self.BLOCK - quota.sum()]] += 1
    if ((quota == 0) & (exact > 0)).any():
      raise UserError(
        field='config.data.weights',
        value=given,
        allowed=f'shares that are 0 or at least 1 / {self.BLOCK}',
      )
    return quota

  def _pattern(self, phase: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the source of each example of a block, and its rank among that source's examples."""
    return _shuffled(self._quotas[phase], f'{self._seed}/mixture/{phase}/{block}')


class Epochs:
  """All rows of several loaders, those of each a given number of times, in a random order.

  An epoch of a source ends before its next one begins. After `steps_per_epoch` steps the whole
  starts over; the last of them is filled up with empty rows.

  Attributes:
    steps_per_epoch: number of batches in which every row has come as often as it should.
    bytes: size of the text of all sources, in UTF-8 bytes.
    fingerprint: SHA-256 (hex) of the sources' fingerprints and of the numbers of epochs.
  """

  def __init__(
    self, sources: Sequence[Loader], epochs: Sequence[float], *, batch_size: int, seed: int
  ):
    """Mixes `sources`, which are loaders of one seq_len.

    Args:
      sources: the loaders.
      epochs: how often the rows of each source come, above 0. With 1.5 half of them come twice.
      batch_size: number of rows in the batch of all hosts together.
      seed: seed of the order of the sources.
    """
    self._sources, self._epochs, self._batch_size = list(sources), list(epochs), batch_size
    pairs = zip(self._sources, self._epochs, strict=True)
    self._rows = np.array([max(1, round(source.rows * times)) for source, times in pairs])
    total = int(self._rows.sum())
    self.steps_per_epoch = math.ceil(total / batch_size)
    self.bytes = sum(source.bytes for source in self._sources)
    # The source of each example, -1 for an empty row, and its rank among that source's examples.
    self._source = np.full(self.steps_per_epoch * batch_size, -1)
    self._source[:total], self._rank = _shuffled(self._rows, f'{seed}/epochs')
    self._rank = np.pad(self._rank, (0, len(self._source) - total))
    fingerprints = [source.fingerprint for source in self._sources]
    self.fingerprint = files.digest([fingerprints, self._epochs])

  def batch(
    self, step: int, host: int = 0, hosts: int = 1, parts: int = 1
  ) -> dict[str, np.ndarray]:
    """Returns one host's rows of a step, as `Loader.batch` does."""
    if step < 0:
      raise IndexError(f'step {step} is below 0')
    examples = host_examples(step, self._batch_size, host, hosts, parts)
    turn, place = np.divmod(examples, len(self._source))
    source = self._source[place]
    return _rows_of(self._sources, source, self._rank[place] + turn * self._rows[source])

  def iterate(
    self, start: int, stop: int, host: int = 0, hosts: int = 1, parts: int = 1
  ) -> Iterator[dict[str, np.ndarray]]:
    """Returns an iterator over batches that reads ahead, as `Loader.iterate` does."""
    return read_ahead(lambda step: self.batch(step, host, hosts, parts), start, stop)

  def epoch(self, steps: int) -> float:
    """Returns how many times this many steps read the source that is read most often."""
    return steps / self.steps_per_epoch * max(self._epochs)


def _shuffled(counts: np.ndarray, key: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns the sources 0, 1, ... as often as `counts` says, in the order of a permutation.

  Args:
    counts: int [sources].
    key: names the permutation.

  Returns:
    The source of each place, and the rank of the place among those of the same source.
  """
  total = int(counts.sum())
  order = permute(np.arange(total), total, key)
  sources = np.searchsorted(np.cumsum(counts), order, side='right')
  ranks = np.empty(total, np.int64)
  for i, count in enumerate(counts.tolist()):
    ranks[sources == i] = np.arange(count)
  return sources, ranks


def _rows_of(
  sources: Sequence[Loader], source: np.ndarray, example: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns the fields of `Loader.batch` of examples of several loaders.

  Args:
    sources: the loaders.
    source: int [rows], the loader of each row; -1 makes an empty row.
    example: int [rows], the number of the row among the examples of its loader.
  """
  fields: dict[str, np.ndarray] = {}
  for i, loader in enumerate(sources):
    mine = source == i
    for name, rows in loader.rows_of(example[mine]).items():
      if name not in fields:
        fields[name] = np.zeros((len(source), *rows.shape[1:]), rows.dtype)
      fields[name][mine] = rows
  return fields


def _phases(weights: str, count: int) -> list[tuple[int, list[float]]]:
  """Returns (first step, weights) of each part of 'W,W;STEP:W,W'."""
  phases = []
  for part in weights.split(';'):
    step, colon, values = part.rpartition(':')
    try:
      phases.append((int(step) if colon else 0, [float(value) for value in values.split(',')]))
    except ValueError as error:
      raise UserError(
        field='config.data.weights',
        value=weights,
        allowed="'W,W,...' or '0:W,W,...;STEP:W,W,...'",
      ) from error
  steps = [step for step, _ in phases]
  if steps[0] != 0 or steps != sorted(set(steps)):
    raise UserError(
      field='config.data.weights',
      value=weights,
      allowed='steps that begin with 0 and increase',
    )
  for _, values in phases:
    finite = all(0 <= value < math.inf for value in values)
    if len(values) != count or not finite or not sum(values):
      raise UserError(
        field='config.data.weights',
        value=weights,
        allowed=f'{count} weights of 0 or more, one for each manifest of config.data.train, and '
        'not all 0',
      )
  return phases
