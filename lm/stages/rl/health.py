"""Bounds on the health of a policy: collapse stops a run, a wide sampler gap is an alarm."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from lm.train.faults import Symptom

N = 4  # The tokens of the stretches whose repetition is counted.


@dataclasses.dataclass(frozen=True)
class Bound:
  """What a metric beyond a bound means.

  Attributes:
    metric: the metric of a step.
    is_upper: whether the metric may not be above the bound; otherwise it may not be below.
    meaning: what is wrong then, as a sentence.
    stops: whether that stops the run; otherwise it is only reported.
  """

  metric: str
  is_upper: bool
  meaning: str
  stops: bool = True


BOUNDS = {  # By their fields in config.rl.health, which hold the numbers.
  'min_entropy': Bound('rl/entropy', False, 'The policy hardly varies.'),
  'max_repeats': Bound('rl/repeats', True, 'Answers repeat themselves.'),
  'min_length': Bound('rl/length', False, 'Answers have become too short.'),
  'max_truncated': Bound('rl/truncated', True, 'Answers do not end.'),
  'max_sampler_gap': Bound('rl/sampler_gap', True, 'Sampler and trainer disagree.', stops=False),
}


def symptoms(bounds: ConfigDict, metrics: Mapping[str, float]) -> list[Symptom]:
  """Returns the metrics of a step that are outside their bounds.

  Args:
    bounds: config.rl.health.
    metrics: those of the step; a metric that it lacks is not looked at.
  """
  found = []
  for field, bound in BOUNDS.items():
    if bound.metric not in metrics:
      continue
    value, limit = metrics[bound.metric], bounds[field]
    if value > limit if bound.is_upper else value < limit:
      side = 'at most' if bound.is_upper else 'at least'
      allowed = f'{side} {limit:g}, config.rl.health.{field}'
      found.append(Symptom(bound.metric, value, allowed, bound.meaning, bound.stops))
  return found


def repeats(answers: Sequence[Sequence[Any]]) -> float:
  """Returns how much of the answers repeats an earlier part of the same answer, from 0 to 1.

  It is the share of stretches of N tokens that stand earlier in their answer, a mean over answers.
  """
  return sum(_repeats(answer) for answer in answers) / len(answers)


def _repeats(tokens: Sequence[Any]) -> float:
  stretches = [tuple(tokens[i : i + N]) for i in range(len(tokens) - N + 1)]
  return 1 - len(set(stretches)) / len(stretches) if stretches else 0.0
