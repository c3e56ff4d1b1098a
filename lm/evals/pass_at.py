"""pass@k: how often one of k sampled answers is right (Chen et al. 2021, arXiv 2107.03374)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.base import intervals
from lm.base.errors import UserError
from lm.evals import scoring
from lm.evals.context import Context
from lm.evals.repeated_answers import RepeatedAnswers
from lm.train.evaluators import Result


class PassAt:
  """Samples answers to the test problems of `config.eval.tasks`, once, after the last update."""

  name = 'pass_at'
  at_start = False
  every = 0

  def __init__(self, context: Context):
    self._context, self._answers = context, RepeatedAnswers(context, self.name)

  @classmethod
  def open(cls, context: Context) -> 'PassAt | None':
    """Returns the evaluator, or None if the config asks for no pass@k.

    Raises:
      UserError: a field is wrong, or a task has fewer test problems than `config.eval.examples`.
    """
    ks, samples = context.config.eval.pass_at, context.config.eval.pass_samples
    if not all(1 <= k <= samples for k in ks):
      raise UserError(
        field='config.eval.pass_at',
        value=ks,
        allowed=f'numbers from 1 to config.eval.pass_samples, {samples}',
      )
    if ks and not context.tasks:
      raise UserError(
        field='config.eval.tasks', value='', allowed='names of tasks, with config.eval.pass_at'
      )
    if not ks:
      return None
    scoring.require_problems(context.tasks, context.config.eval.examples)
    return cls(context)

  def run(self, params: Any) -> Result:
    """Returns `pass_at`: {task: {k: {pass_at, low, high, n}}}, with n problems."""
    context, config = self._context, self._context.config
    count, found = config.eval.pass_samples, {}
    for number, task in enumerate(context.tasks):
      problems = [task.problem(i, 'test') for i in range(config.eval.examples)]
      asked = [(problem, problem['messages']) for problem in problems]

      def grade(problem, completion, task=task):
        return task.grade(problem, context.chat_format.parse(completion.tokens))

      grades = self._answers.grades(params, number, asked, count, grade)
      right = (np.array(grades).reshape(-1, count) >= 0.5).sum(axis=1).tolist()
      found[task.name] = {k: summary(right, count, k) for k in config.eval.pass_at}
    return Result(report={'pass_at': found})


def estimate(right: int, samples: int, k: int) -> float:
  """Returns the unbiased estimate of pass@k from samples of which so many are right.

  It is 1 minus the share of the sets of k samples in which none is right.
  """
  return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def summary(right: Sequence[int], samples: int, k: int) -> dict[str, float]:
  """Returns the mean of the estimates of problems, with its 95 % interval by the bootstrap.

  Where all estimates are equal, so that the bootstrap sees no spread, the interval is Wilson's for
  as many problems.

  Args:
    right: the number of right answers to each problem.
    samples: the number of all.
    k: of pass@k.
  """
  estimates = np.array([estimate(each, samples, k) for each in right])
  n, value = len(estimates), float(estimates.mean())
  if estimates.min() == estimates.max():
    low, high = intervals.wilson(estimates[0] * n, n)
  else:
    low, high = intervals.bootstrap(lambda sums: sums / n, estimates)
  return {'pass_at': value, 'low': max(0.0, low), 'high': min(1.0, high), 'n': n}
