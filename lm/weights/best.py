"""The best checkpoint of a run, by a metric that was measured when it was saved.

The `provenance.json` of a checkpoint has what was measured at its step, in `measured`, and the rule
in `config.checkpoint.best`.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from lm.base import files
from lm.base.errors import UserError

SIGNS = {'min': 1.0, 'max': -1.0}


@dataclasses.dataclass(frozen=True)
class Rule:
  """A metric, and whether it should be small or large.

  Attributes:
    metric: the name of the metric in metrics.jsonl, such as eval/val/loss.
    sign: 1.0 if the smallest value is best, -1.0 if the largest is.
  """

  metric: str
  sign: float

  def cost(self, measured: Mapping[str, float]) -> float:
    """Returns a number that is smaller for better values; infinity if there is none."""
    value = self.sign * measured.get(self.metric, math.inf * self.sign)
    return math.inf if math.isnan(value) else value


def parse(text: str) -> Rule | None:
  """Returns the rule of config.checkpoint.best, min:METRIC or max:METRIC, or None for ''."""
  if not text:
    return None
  way, _, metric = text.partition(':')
  if way not in SIGNS or not metric:
    raise UserError(
      field='config.checkpoint.best', value=text, allowed="'', min:METRIC or max:METRIC"
    )
  return Rule(metric, SIGNS[way])


def check(rule: Rule | None, measured: Collection[str]) -> None:
  """Raises UserError if the metric of a rule is not among those that were measured."""
  if rule and rule.metric not in measured:
    raise UserError(
      field='metric of config.checkpoint.best', value=rule.metric, allowed=sorted(measured)
    )


def find(directory: files.AnyPath, steps: Collection[int], rule: Rule) -> tuple[int | None, float]:
  """Returns the best of some steps in a `checkpoints` folder, and its cost.

  The earliest of equal ones is taken. It is None if the metric was measured at none of them.
  """
  found: tuple[int | None, float] = None, math.inf
  for step in sorted(steps):
    cost = rule.cost(_record(directory / str(step)).get('measured') or {})
    if cost < found[1]:
      found = step, cost
  return found


def chosen(directory: files.AnyPath, steps: Collection[int]) -> int:
  """Returns the step to use of a run: the best by its own rule, else the last.

  Args:
    directory: a `checkpoints` folder.
    steps: its complete steps, at least one.
  """
  last = max(steps)
  settings = _record(directory / str(last)).get('config', {}).get('checkpoint') or {}
  # Checkpoints of earlier versions have no such field.
  rule = parse(settings.get('best') or '')
  step = find(directory, steps, rule)[0] if rule else None
  return last if step is None else step


def _record(folder: files.AnyPath) -> dict[str, Any]:
  """Returns a checkpoint's provenance, or {} where it is damaged, which its reader reports."""
  try:
    record = files.read_json(folder / 'provenance.json')
  except (FileNotFoundError, UserError):
    return {}
  return record if isinstance(record, dict) else {}
