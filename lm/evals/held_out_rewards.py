"""The rewards of answers to test problems: the model's that RL trains against, and the true one."""

from typing import Any

from lm.base.intervals import of_mean
from lm.evals.context import Context
from lm.train.evaluators import Result


class HeldOutRewards:
  """Measures the proxy reward and the gold reward of answers to `config.data.tasks`' test problems.

  The answers are sampled as in training. `config.eval.tasks_every` says how often, and
  `config.eval.examples` how many. The log has eval/rewards/proxy and eval/rewards/gold; the report
  has `held_out_rewards`, their means with 95 % intervals of the normal approximation.
  """

  name = 'held_out_rewards'
  at_start = True

  def __init__(self, context: Context):
    self._context, self.every = context, context.config.eval.tasks_every

  @classmethod
  def open(cls, context: Context) -> 'HeldOutRewards | None':
    """Returns the evaluator, or None where no reward model is trained against."""
    return cls(context) if context.judge else None

  def run(self, params: Any) -> Result:
    """Returns both rewards over all problems."""
    settings = self._context.config.eval
    found = self._context.judge(params, settings.examples, settings.batch_size)
    sums = {f'eval/rewards/{name}': (float(x.sum()), len(x)) for name, x in found.items()}
    report = {
      name: dict(zip(('mean', 'low', 'high', 'n'), (*of_mean(x), len(x)), strict=True))
      for name, x in found.items()
    }
    return Result(sums, report={'held_out_rewards': report})
