"""The interface of evaluators: a name, a frequency, and `run(params)`."""

import dataclasses
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Result:
  """The result of one evaluation.

  Attributes:
    sums: metrics as {name: (sum, weight)}; the log has the sum over the weight.
    texts: texts for people to read, each {'prompt', 'text'}, which are kept in samples.jsonl.
    report: what is added to report.json.
  """

  sums: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
  texts: list[dict[str, str]] = dataclasses.field(default_factory=list)
  report: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def metrics(self) -> dict[str, float]:
    """Returns the mean of each metric."""
    return {name: total / weight for name, (total, weight) in self.sums.items()}


class Evaluator(Protocol):
  """A measurement of parameters, the same in training and in eval.py.

  Attributes:
    name: its name in the registry of lm/evals.
    every: updates between two runs in training, which are logged; it always runs after the last
      update. With 0 it runs once, after the last update, for the report.
    at_start: whether it is run before the first update too.
  """

  name: str
  every: int
  at_start: bool

  def run(self, params: Any) -> Result:
    """Returns the evaluation of parameters, which have the shardings of the run's program."""


def is_due(evaluator: Evaluator, step: int, steps: int) -> bool:
  """Returns whether an evaluator is to be run after update `step` of `steps`."""
  return evaluator.every > 0 and (step % evaluator.every == 0 or step == steps)
