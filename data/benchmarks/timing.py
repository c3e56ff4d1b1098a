"""Comparing speeds: what is compared runs by turns, so that a load which comes and goes meets all;
ratios are of a round.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence


def by_turns(systems: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
  """The seconds that each system, which measures itself, took in each round."""
  seconds: dict[str, list[float]] = {name: [] for name in systems}
  for _ in range(rounds):
    for name, system in systems.items():
      seconds[name].append(system())
  return seconds


def speedup(ours: Sequence[float], theirs: Sequence[float]) -> float:
  """How many times as fast ours is: the median over the rounds."""
  return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
