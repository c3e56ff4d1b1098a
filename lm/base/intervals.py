"""Intervals of measured proportions."""

import collections
import math
from collections.abc import Hashable, Sequence


def wilson(successes: float, n: float, z: float = 1.96) -> tuple[float, float]:
  """The score interval of a proportion (Wilson 1927, JASA 22; eq. 4 of Brown, Cai, DasGupta 2001,
  Stat. Sci. 16).

  Unlike mean ± z standard errors it stays inside [0, 1] and keeps its coverage near 0 and 1 and at
  small n.

  Args:
    successes: how many of the trials succeeded, 0 to n (graders may give parts of a point).
    n: number of trials, or what they are worth; with none the interval is (0, 1).
    z: normal quantile: 1.96 for 95 %.
  """
  assert 0 <= successes <= n, (successes, n)
  if n == 0:
    return 0.0, 1.0
  p, z2 = successes / n, z * z / n
  centre = (p + z2 / 2) / (1 + z2)
  half = math.sqrt(p * (1 - p) * z2 + z2 * z2 / 4) / (1 + z2)
  return max(0.0, centre - half), min(1.0, centre + half)


def effective_size(successes: Sequence[bool], clusters: Sequence[Hashable]) -> float:
  """How many independent trials these are worth, where those of one cluster (repeats of one
  question) may agree.

  n divided by the design effect, the ratio of the variance of the proportion between clusters to
  that of n independent trials (Kish, Survey Sampling, 1965; with Wilson's interval: Dean and Pagano
  2015, J. Surv. Stat. Methodol. 3). It is never more than n, and the number of clusters where every
  trial has the same outcome, or there is one cluster.

  Args:
    successes: the outcome of each trial.
    clusters: what each trial belongs to.
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
