"""Mixtures of token streams: `Mixture.batch(step)` is a pure function of its arguments, as
`data.shards.loader.Loader.batch` is.
"""

import bisect
import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from data.shards.loader import Loader, permute, read_ahead, share
from lm.base import files
from lm.base.errors import UserError


class Mixture:
  """Rows of several loaders in given shares, which may change at given steps. It is read as one
  `Loader` is.

  Of each BLOCK examples in a row every source has its exact share, in an order of the seed's; each
  source's own examples come one after the other, whatever the shares, and none is skipped or
  repeated when these change.

  Attributes:
    fingerprint: SHA-256 (hex) of the sources' and of the shares.
  """

  BLOCK = 1 << 14

  def __init__(self, sources: Sequence[Loader], weights: str, *, batch_size: int, seed: int):
    """Mixes `sources`, training loaders of one seq_len.

    Args:
      weights: the sources' weights, in their order: 'W,W,...', or from given steps on
        '0:W,W,...;STEP:W,W,...'.
      batch_size: rows in the batch of all hosts together.
      seed: of the order of the sources.

    Raises:
      UserError: weights that are not of this form, not one for each source, or too small beside the
        others.
    """
    self._sources, self._batch_size, self._seed = list(sources), batch_size, seed
    self._steps, shares = zip(*_phases(weights, len(self._sources)), strict=True)
    self._quotas = [self._quota(share, weights) for share in shares]
    self._patterns = functools.lru_cache(8)(self._pattern)
    # What each source has given when a phase begins.
    self._given = [np.zeros(len(self._sources), np.int64)]
    for phase in range(1, len(self._steps)):
      self._given.append(
        self._count(phase - 1, (self._steps[phase] - self._steps[phase - 1]) * batch_size)
      )
    self.fingerprint = files.digest(
      [[source.fingerprint for source in self._sources], self._steps, shares]
    )

  def batch(
    self, step: int, host: int = 0, hosts: int = 1, parts: int = 1
  ) -> dict[str, np.ndarray]:
    """As `Loader.batch`."""
    if step < 0:
      raise IndexError(f'step {step} is below 0')
    phase = bisect.bisect_right(self._steps, step) - 1
    places = (
      share(step, self._batch_size, host, hosts, parts) - self._steps[phase] * self._batch_size
    )
    source, example = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
    for block in np.unique(places // self.BLOCK).tolist():
      mine = places // self.BLOCK == block
      sources, ranks = self._patterns(phase, block)
      source[mine] = sources[places[mine] % self.BLOCK]
      before = self._given[phase] + block * self._quotas[phase]
      example[mine] = before[source[mine]] + ranks[places[mine] % self.BLOCK]
    used = np.unique(source).tolist()
    parts = [self._sources[i].rows_of(example[source == i]) for i in used]
    back = np.argsort(np.concatenate([np.flatnonzero(source == i) for i in used]))
    return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}

  def iterate(
    self, start: int, stop: int, host: int = 0, hosts: int = 1, parts: int = 1
  ) -> Iterator[dict[str, np.ndarray]]:
    """As `Loader.iterate`."""
    return read_ahead(lambda step: self.batch(step, host, hosts, parts), start, stop)

  def epoch(self, steps: int) -> float:
    """How often this many steps go through the source that is gone through most."""
    phase = bisect.bisect_right(self._steps, steps) - 1
    given = self._count(phase, (steps - self._steps[phase]) * self._batch_size)
    return max(float(n) / source.rows for n, source in zip(given, self._sources, strict=True))

  def _count(self, phase: int, examples: int) -> np.ndarray:
    """What each source has given, int64 [sources], after so many examples of a phase."""
    block, rest = divmod(examples, self.BLOCK)
    sources, _ = self._patterns(phase, block)
    return (
      self._given[phase]
      + block * self._quotas[phase]
      + np.bincount(sources[:rest], minlength=len(self._sources))
    )

  def _quota(self, weights: Sequence[float], given: str) -> np.ndarray:
    """Examples of each source in a block, by largest remainders."""
    exact = np.array(weights) / sum(weights) * self.BLOCK
    quota = exact.astype(np.int64)
    quota[np.argsort(quota - exact, kind='stable')[: self.BLOCK - quota.sum()]] += 1
    if ((quota == 0) & (exact > 0)).any():
      raise UserError(
        f'config.data.weights is {given!r}; a share must be 0 or at least 1 in {self.BLOCK}'
      )
    return quota

  def _pattern(self, phase: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The source of each example of a block, and how many of that source stand before it in the
    block.
    """
    place = permute(np.arange(self.BLOCK), self.BLOCK, f'{self._seed}/mixture/{phase}/{block}')
    sources = np.searchsorted(np.cumsum(self._quotas[phase]), place, side='right')
    ranks = np.empty(self.BLOCK, np.int64)
    for i, quota in enumerate(self._quotas[phase]):
      ranks[sources == i] = np.arange(quota)
    return sources, ranks


def _phases(weights: str, count: int) -> list[tuple[int, list[float]]]:
  """(first step, weights) of each part of 'W,W;STEP:W,W'."""
  phases = []
  for part in weights.split(';'):
    step, colon, values = part.rpartition(':')
    try:
      phases.append((int(step) if colon else 0, [float(value) for value in values.split(',')]))
    except ValueError as error:
      raise UserError(
        f"config.data.weights is {weights!r}; allowed: 'W,W,...' or '0:W,W,...;STEP:W,W,...'"
      ) from error
  steps = [step for step, _ in phases]
  if steps[0] != 0 or steps != sorted(set(steps)):
    raise UserError(f'config.data.weights is {weights!r}; its steps must begin with 0 and rise')
  for _, values in phases:
    if (
      len(values) != count or not all(0 <= value < math.inf for value in values) or not sum(values)
    ):
      raise UserError(
        f'config.data.weights is {weights!r}; it must give {count} weights that are 0 or more, one '
        'for each '
        f'manifest of config.data.train'
      )
  return phases
