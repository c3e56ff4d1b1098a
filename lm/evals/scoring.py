"""Scores on tasks with graders: accuracy with its 95 % interval and n."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from lm.base import intervals
from lm.infer.requests import Completion


def score(
  problems: Sequence[Any],
  prompts: Sequence[list[int]],
  generate: Callable[[list[list[int]], int], list[Completion]],
  grade: Callable[[Any, Completion | None], float],
  batch_size: int,
  max_len: int,
) -> list[float]:
  """Returns the grade of one completion of each prompt.

  Args:
    generate: continues `batch_size` prompts; its second argument is the index of the batch. The
      last batch is filled up with repeats that do not count.
    grade: (problem, completion) -> grade. The completion is None where the prompt leaves no room
      for one.
    max_len: tokens of prompt and completion together.
  """
  completions: list[Completion | None] = [None] * len(prompts)
  fitting = [i for i, prompt in enumerate(prompts) if len(prompt) < max_len]
  for batch, first in enumerate(range(0, len(fitting), batch_size)):
    places = fitting[first : first + batch_size]
    rows = [prompts[i] for i in places]
    rows += rows[-1:] * (batch_size - len(rows))
    for i, completion in zip(places, generate(rows, batch), strict=False):
      completions[i] = completion
  return [
    grade(problem, completion) for problem, completion in zip(problems, completions, strict=True)
  ]


def require_problems(tasks: Sequence[Any], count: int) -> None:
  """Raises UserError, before anything is asked, if a task has fewer test problems than `count`."""
  for task in tasks if count else ():
    task.problem(count - 1, 'test')


def summary(grades: Sequence[float], keys: Sequence[Hashable]) -> dict[str, float]:
  """Returns {"accuracy", "low", "high", "n"} of grades between 0 and 1.

  A grade counts as a success when it is at least 0.5.

  Args:
    keys: the problem that each grade belongs to. Repeats of one problem do not narrow the interval
      as new problems do.
  """
  accuracy, low, high = intervals.of_clusters([g >= 0.5 for g in grades], keys)
  return {'accuracy': accuracy, 'low': low, 'high': high, 'n': len(grades)}
