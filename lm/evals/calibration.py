"""Accuracy and calibration of the predictions of held-out comparisons, as by a reward model."""

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np

from lm.base import intervals
from lm.evals import scoring
from lm.evals.context import Context
from lm.parallel import distributed, sharding
from lm.train.evaluators import Result

BINS = 10  # of the predicted probability, from 0.5 to 1


class Calibration:
  """Measures accuracy and calibration on held-out comparisons, with 95 % intervals.

  The report has them as `comparisons` (see `reliability`). The log has the expected calibration
  error, as eval/val/calibration_error; it has the accuracy from `HeldOutLoss`.
  """

  name = 'calibration'
  at_start = True

  def __init__(self, context: Context):
    self._context, self.every = context, context.config.eval.every
    self._compare = jax.jit(context.compare)

  @classmethod
  def open(cls, context: Context) -> 'Calibration | None':
    """Returns the evaluator, or None if nothing is held out, or the stage compares nothing."""
    if context.compare is None or context.held_out is None:
      return None
    sharding.check_rows(context.mesh, {'eval.batch_size': context.config.eval.batch_size})
    return cls(context)

  def run(self, params: Any) -> Result:
    """Returns the measurements over all held-out comparisons."""
    loader, mesh, axes = self._context.held_out, self._context.mesh, self._context.batch_axes
    log_odds, prompts = [], []
    batches = loader.iterate(0, loader.steps_per_epoch, *sharding.batch_share(mesh))
    for step, batch in enumerate(batches):
      predicted, wins = distributed.fetch(
        self._compare(params, sharding.put_batch(batch, axes, mesh))
      )
      compared = np.argwhere(wins)
      times = wins[tuple(compared.T)].astype(int)  # A comparison may have been judged repeatedly.
      log_odds.append(np.repeat(predicted[tuple(compared.T)], times))
      rows = np.repeat(step * len(wins) + compared[:, 0], times).tolist()
      prompts += [loader.prompt_of(row) for row in rows]
    measured = reliability(np.concatenate(log_odds), prompts)
    error, n = measured['calibration_error']['value'], measured['accuracy']['n']
    return Result({'eval/val/calibration_error': (error * n, n)}, report={'comparisons': measured})


def reliability(log_odds: np.ndarray, prompts: Sequence[Hashable]) -> dict[str, Any]:
  """Returns how predictions of comparisons turned out.

  The prediction is the answer with the higher reward, and its probability at least 0.5. Repeats of
  a prompt do not narrow the intervals as new prompts do.

  Args:
    log_odds: [n], the predicted log-odds of the answer that was preferred.
    prompts: the prompt of each comparison.

  Returns:
    accuracy: {accuracy, low, high, n}, the share of right predictions.
    calibration_error: {value, low, high}, the mean over BINS bins of the absolute difference
      between predicted probability and share of right predictions, each bin by its size (Guo et
      al., arXiv 1706.04599, equation 3). With few comparisons noise alone makes it positive, which
      its interval allows for.
    reliability: {predicted, observed, low, high, n} of each bin that has comparisons, by rising
      probability: the mean of the predictions, and the share of them that were right.
  """
  right = log_odds > 0
  probability = 1 / (1 + np.exp(-np.abs(log_odds.astype(np.float64))))
  bins = np.minimum(((probability - 0.5) * 2 * BINS).astype(int), BINS - 1)
  places = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
  clusters = np.array([places[prompt] for prompt in prompts])
  # [prompts, bins, (number, right, sum of probabilities)]
  sums = np.zeros((len(places), BINS, 3))
  np.add.at(sums, (clusters, bins), np.stack([np.ones(len(right)), right, probability], axis=1))
  low, high = intervals.bootstrap(calibration_error, sums)
  (value,) = calibration_error(sums.sum(axis=0)[None])
  table = []
  for place in range(BINS):
    inside = bins == place
    if inside.any():
      of_bin = scoring.summary(right[inside].tolist(), clusters[inside].tolist())
      observed = of_bin.pop('accuracy')
      table.append({'predicted': float(probability[inside].mean()), 'observed': observed} | of_bin)
  return {
    'accuracy': scoring.summary(right.tolist(), list(prompts)),
    'calibration_error': {'value': float(value), 'low': max(0.0, low), 'high': high},
    'reliability': table,
  }


def calibration_error(sums: np.ndarray) -> np.ndarray:
  """Returns the expected calibration error [...] of sums [..., bins, 3].

  The three are the number of predictions, that of right ones, and the sum of their probabilities.
  """
  number, right, probability = np.moveaxis(sums, -1, 0)
  return np.abs(right - probability).sum(axis=-1) / number.sum(axis=-1)
