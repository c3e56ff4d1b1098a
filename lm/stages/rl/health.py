"""Bounds on the health of a policy: collapse stops a run, a wide sampler gap is an alarm."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from lm.train.faults import Symptom

N = 4  # The tokens of the stretches whose repetition is counted.

# Field of config.rl.health: (metric, 1 for an upper and -1 for a lower bound, what it means to be
# beyond it, whether that stops the run).
BOUNDS: dict[str, tuple[str, int, str, bool]] = {
  'min_entropy': ('rl/entropy', -1, 'The policy hardly varies.', True),
  'max_repeats': ('rl/repeats', 1, 'Answers repeat themselves.', True),
  'min_length': ('rl/length', -1, 'Answers have become too short.', True),
  'max_truncated': ('rl/truncated', 1, 'Answers do not end.', True),
  'max_sampler_gap': ('rl/sampler_gap', 1, 'Sampler and trainer disagree.', False),
}


def symptoms(bounds: ConfigDict, metrics: Mapping[str, float]) -> list[Symptom]:
  """Returns the metrics of a step that are outside their bounds.

  Args:
    bounds: config.rl.health.
    metrics: those of the step; a metric that it lacks is not looked at.
  """
  found = []
  for field, (metric, sign, meaning, stops) in BOUNDS.items():
    bound, value = getattr(bounds, field), metrics.get(metric)
    if value is not None and sign * value > sign * bound:
      side = 'at most' if sign > 0 else 'at least'
      allowed = f'{side} {bound:g}, config.rl.health.{field}'
      found.append(Symptom(metric, value, allowed, meaning, stops))
  return found


def repeats(answers: Sequence[Sequence[Any]]) -> float:
  """Returns how much of the answers repeats an earlier part of the same answer, from 0 to 1.

  It is the share of stretches of N tokens that stand earlier in their answer, a mean over answers.
  """
  return sum(_repeats(answer) for answer in answers) / len(answers)


def _repeats(tokens: Sequence[Any]) -> float:
  stretches = [tuple(tokens[i : i + N]) for i in range(len(tokens) - N + 1)]
  return 1 - len(set(stretches)) / len(stretches) if stretches else 0.0
