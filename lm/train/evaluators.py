"""What is measured beside training: an evaluator has a name, a frequency, and `run(params)`."""

import dataclasses
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Result:
  """What one evaluation found.

  Attributes:
    sums: metrics as {name: (sum, weight)}, which are logged divided.
    texts: texts for the eye, each {'prompt', 'text'}, which are kept in samples.jsonl.
    report: what goes into report.json.
  """

  sums: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
  texts: list[dict[str, str]] = dataclasses.field(default_factory=list)
  report: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def metrics(self) -> dict[str, float]:
    """The mean of each metric."""
    return {name: total / weight for name, (total, weight) in self.sums.items()}


class Evaluator(Protocol):
  """Something that is measured of parameters, in training and by eval.py alike.

  Attributes:
    name: what it is called in the registry of lm/evals.
    every: updates between two runs in training, which are logged, the last update always among
      them; 0: it is run once, after the last update, for the report.
    at_start: whether it is run before the first update too.
  """

  name: str
  every: int
  at_start: bool

  def run(self, params: Any) -> Result:
    """Evaluates parameters, which lie as the program of the run has them."""


def is_due(evaluator: Evaluator, step: int, steps: int) -> bool:
  """Returns whether an evaluator is to be run after update `step` of `steps`."""
  return evaluator.every > 0 and (step % evaluator.every == 0 or step == steps)
