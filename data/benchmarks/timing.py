"""Compares speeds of systems that take turns, so that a load on the machine affects all of them."""

import statistics
from collections.abc import Callable, Mapping, Sequence


def by_turns(systems: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
  """Returns the seconds that each system, which measures itself, took in each round."""
  seconds: dict[str, list[float]] = {name: [] for name in systems}
  for _ in range(rounds):
    for name, system in systems.items():
      seconds[name].append(system())
  return seconds


def speedup(ours: Sequence[float], theirs: Sequence[float]) -> float:
  """Returns how many times as fast `ours` is as `theirs`: the median of the rounds' ratios."""
  return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
