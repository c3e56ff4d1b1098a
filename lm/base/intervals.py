"""Confidence intervals of measured proportions, and of what is computed from many of them."""

import collections
import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np


def wilson(successes: float, n: float, z: float = 1.96) -> tuple[float, float]:
  """Returns Wilson's score interval (low, high) of a proportion.

  It is that of Wilson 1927 (JASA 22), equation 4 of Brown, Cai and DasGupta 2001 (Stat. Sci. 16).
  Unlike mean ± z standard errors it stays inside [0, 1] and keeps its coverage near 0 and 1 and at
  small n.

  Args:
    successes: the number of trials that succeeded, 0 to n. Graders may give fractions of a point.
    n: the number of trials, or their effective number. With none the interval is (0, 1).
    z: the normal quantile: 1.96 for 95 %.
  """
  assert 0 <= successes <= n, (successes, n)
  if n == 0:
    return 0.0, 1.0
  p, z2 = successes / n, z * z / n
  centre = (p + z2 / 2) / (1 + z2)
  half = math.sqrt(p * (1 - p) * z2 + z2 * z2 / 4) / (1 + z2)
  return max(0.0, centre - half), min(1.0, centre + half)


def effective_size(successes: Sequence[bool], clusters: Sequence[Hashable]) -> float:
  """Returns the number of independent trials that have as much information as these.

  Trials of one cluster, such as repeats of one question, may agree. The effective size is n divided
  by the design effect: the ratio of the variance of the proportion between clusters to that of n
  independent trials (Kish, Survey Sampling, 1965; with Wilson's interval: Dean and Pagano 2015,
  J. Surv. Stat. Methodol. 3). It is never more than n. It is the number of clusters where every
  trial has the same outcome, and where there is only one cluster.

  Args:
    successes: the outcome of each trial.
    clusters: the cluster of each trial.
  """
  n, p = len(successes), sum(successes) / len(successes)
  residual = collections.defaultdict(float)
  for success, cluster in zip(successes, clusters, strict=True):
    residual[cluster] += success - p
  count = len(residual)
  if p in (0, 1) or count in (1, n):
    return count
  variance = count / (count - 1) * math.fsum(r * r for r in residual.values()) / n**2
  return n / max(1.0, variance / (p * (1 - p) / n))


def of_mean(values: Sequence[float]) -> tuple[float, float | None, float | None]:
  """Returns (mean, low, high) of independent values, by the normal approximation.

  A single value has no interval: low and high are None.
  """
  mean, n = float(np.mean(values)), len(values)
  if n < 2:
    return mean, None, None
  half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(n)
  return mean, mean - half, mean + half


def of_clusters(
  successes: Sequence[bool], clusters: Sequence[Hashable]
) -> tuple[float, float, float]:
  """Returns (proportion, low, high) of successes, with Wilson's interval at their effective size.

  The arguments are those of `effective_size`.
  """
  share, size = sum(successes) / len(successes), effective_size(successes, clusters)
  return share, *wilson(share * size, size)


def bootstrap(
  statistic: Callable[[np.ndarray], np.ndarray], sums: np.ndarray, rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
  """Returns the 95 % interval of a statistic by the basic bootstrap over clusters.

  It is 2 s - (97.5 % and 2.5 % quantile of s over resampled clusters): where resampling shifts a
  statistic, as it raises a sum of absolute errors, the interval is shifted back (Davison and
  Hinkley, Bootstrap Methods and their Application, 1997, section 5.2.1).

  Args:
    statistic: [rounds, ...] -> [rounds], of sums over clusters.
    sums: [clusters, ...], what each cluster adds to the sums.
    rounds: number of resamplings.
    seed: of the resamplings.
  """
  clusters, rng = len(sums), np.random.default_rng(seed)
  even = np.full(clusters, 1 / clusters)
  drawn = (rng.multinomial(clusters, even) for _ in range(rounds))
  resampled = statistic(np.stack([np.tensordot(times, sums, axes=1) for times in drawn]))
  (value,) = statistic(sums.sum(axis=0)[None])
  low, high = np.quantile(resampled, [0.025, 0.975])
  return float(2 * value - high), float(2 * value - low)
