"""Accuracy on tasks with graders, each with its 95 % interval and n."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from lm.evals.intervals import effective_size, wilson
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


def summary(grades: Sequence[float], keys: Sequence[Hashable]) -> dict[str, float]:
  """{"accuracy", "low", "high", "n"} of grades between 0 and 1; a grade counts as a success when it is at least 0.5.

  Args:
    keys: of the problem that each grade is of: repeats of one problem do not narrow the interval as new ones do.
  """
  successes = [g >= 0.5 for g in grades]
  accuracy = sum(successes) / len(successes)
  size = effective_size(successes, keys)
  low, high = wilson(accuracy * size, size)
  return {'accuracy': accuracy, 'low': low, 'high': high, 'n': len(grades)}
