"""Intervals of measured proportions."""

import math


def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
  """The score interval of a proportion (Wilson 1927, JASA 22; eq. 4 of Brown, Cai, DasGupta 2001, Stat. Sci. 16).

  Unlike mean ± z standard errors it stays inside [0, 1] and keeps its coverage near 0 and 1 and at small n.

  Args:
    successes: how many of the trials succeeded, 0 to n (graders may give parts of a point).
    n: number of trials; with none the interval is (0, 1).
    z: normal quantile: 1.96 for 95 %.
  """
  assert 0 <= successes <= n, (successes, n)
  if n == 0:
    return 0.0, 1.0
  p, z2 = successes / n, z * z / n
  centre = (p + z2 / 2) / (1 + z2)
  half = math.sqrt(p * (1 - p) * z2 + z2 * z2 / 4) / (1 + z2)
  return max(0.0, centre - half), min(1.0, centre + half)
