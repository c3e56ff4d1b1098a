"""Accuracy on tasks with graders, each with its 95 % interval and n."""

from collections.abc import Callable, Sequence
from typing import Any

from lm.evals.intervals import wilson
from lm.sample import Completion


def score(problems: Sequence[Any], prompts: Sequence[list[int]], generate: Callable[[list[list[int]]], list[Completion]],
          grade: Callable[[Any, Completion], float], batch_size: int) -> list[float]:
  """Grades one completion of each prompt; the last batch is filled up with repeats that do not count."""
  grades = []
  for first in range(0, len(prompts), batch_size):
    rows = [prompts[min(first + i, len(prompts) - 1)] for i in range(batch_size)]
    real = problems[first:first + batch_size]
    grades += [grade(p, c) for p, c in zip(real, generate(rows), strict=False)]
  return grades


def summary(grades: Sequence[float]) -> dict[str, float]:
  """{"accuracy", "low", "high", "n"} of grades between 0 and 1; a grade counts as a success when it is at least 0.5."""
  n, successes = len(grades), sum(g >= 0.5 for g in grades)
  low, high = wilson(successes, n)
  return {'accuracy': successes / n, 'low': low, 'high': high, 'n': n}
