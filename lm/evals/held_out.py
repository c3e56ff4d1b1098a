"""The loss on held-out rows with the stage's own metrics, and bits per byte."""

import collections
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax

from lm.evals.context import Context
from lm.parallel import sharding
from lm.train.evaluators import Result
from lm.train.train_step import LOSS, LossFn

AHEAD = 2  # The number of batches that wait on the devices while the next one is read.


class HeldOutLoss:
  """Measures the mean loss over all that is held out, and the stage's own metrics.

  The accuracy of preference pairs, for example, is eval/val/accuracy. Where plain text is held out,
  it also measures bits per byte.
  """

  name = 'held_out'
  at_start = True

  def __init__(self, context: Context):
    self._context, self.every = context, context.config.eval.every
    self._evaluate = make_evaluate(context.loss_fn)

  @classmethod
  def open(cls, context: Context) -> 'HeldOutLoss | None':
    """Returns the evaluator, or None if nothing is held out."""
    if context.held_out is None:
      return None
    sharding.check_rows(context.mesh, {'eval.batch_size': context.config.eval.batch_size})
    return cls(context)

  def run(self, params: Any) -> Result:
    """Returns the metrics over all held-out rows, each read once."""
    loader, mesh = self._context.held_out, self._context.mesh
    rows = loader.iterate(0, loader.steps_per_epoch, *sharding.batch_share(mesh))
    axes, complete = self._context.batch_axes, self._context.complete
    batches = (complete(sharding.put_batch(batch, axes, mesh)) for batch in rows)
    measured = self._evaluate(params, batches)
    sums = {f'eval/val/{name.rpartition("/")[2]}': value for name, value in measured.items()}
    if self._context.counts_bytes:
      nats, _ = measured[LOSS]
      sums['eval/val/bpb'] = bits(nats), loader.bytes
    return Result(sums)


Sums = dict[str, tuple[float, float]]


def make_evaluate(loss_fn: LossFn) -> Callable[[Any, Iterable[dict]], Sums]:
  """Returns `evaluate(params, batches) -> {metric: (sum, weight)}`, with sums over all batches.

  The batches are [B, T]. The metrics are train/loss, which contains no regularizer, and those of
  the stage, such as preference/accuracy; the others of training, train/..., are left out.
  """

  @jax.jit
  def sums(params, batch):
    measured = loss_fn(params, batch, None)
    return {
      name: value
      for name, value in measured.items()
      if name == LOSS or not name.startswith('train/')
    }

  def evaluate(params, batches):
    dispatched, parts = collections.deque(), []
    for batch in batches:
      dispatched.append(sums(params, batch))
      if len(dispatched) > AHEAD:
        parts.append(jax.device_get(dispatched.popleft()))
    parts += jax.device_get(list(dispatched))
    return {
      name: (
        math.fsum(float(part[name][0]) for part in parts),
        math.fsum(float(part[name][1]) for part in parts),
      )
      for name in parts[0]
    }

  return evaluate


def bits(nats: float) -> float:
  """Returns nats as bits; divided by a text's bytes they are comparable across tokenizers.

  Args:
    nats: summed over all tokens that cover a text once, separators included.
  """
  return nats / math.log(2)
