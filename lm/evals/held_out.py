"""The loss on held-out tokens, and bits per byte."""

import collections
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax

from lm.evals.context import Context
from lm.parallel import sharding
from lm.train.evaluators import Result
from lm.train.train_step import LossFn

AHEAD = 2  # The number of batches that wait on the devices while the next one is read.


class HeldOutLoss:
  """Measures the mean loss over all held-out tokens.

  Where they are plain text, it also measures bits per byte.
  """

  name = 'held_out'
  at_start = True

  def __init__(self, context: Context):
    self._context, self.every = context, context.config.eval.every
    self._sum_losses = make_evaluate(context.loss_fn)

  @classmethod
  def open(cls, context: Context) -> 'HeldOutLoss | None':
    """Returns the evaluator, or None if nothing is held out."""
    if context.held_out is None:
      return None
    sharding.check_rows(context.mesh, {'eval.batch_size': context.config.eval.batch_size})
    return cls(context)

  def run(self, params: Any) -> Result:
    """Returns the loss over every held-out token, each read once."""
    loader, mesh = self._context.held_out, self._context.mesh
    rows = loader.iterate(0, loader.steps_per_epoch, *sharding.batch_share(mesh))
    axes, complete = self._context.batch_axes, self._context.complete
    batches = (complete(sharding.put_batch(batch, axes, mesh)) for batch in rows)
    nats, weight = self._sum_losses(params, batches)
    sums = {'eval/val/loss': (nats, weight)}
    if self._context.counts_bytes:
      sums['eval/val/bpb'] = bits(nats), loader.bytes
    return Result(sums)


def make_evaluate(loss_fn: LossFn) -> Callable[[Any, Iterable[dict]], tuple[float, float]]:
  """Returns `evaluate(params, batches) -> (nats, weight)`: sums of the loss over all batches.

  The batches are [B, T], and the loss contains no regularizer.
  """
  key = jax.random.key(0)  # A loss that draws at random draws the same numbers each time.
  sums = jax.jit(lambda params, batch: loss_fn(params, batch, key)['train/loss'])

  def evaluate(params, batches):
    dispatched, parts = collections.deque(), []
    for batch in batches:
      dispatched.append(sums(params, batch))
      if len(dispatched) > AHEAD:
        parts.append(jax.device_get(dispatched.popleft()))
    parts += jax.device_get(list(dispatched))
    return math.fsum(float(nats) for nats, _ in parts), math.fsum(
      float(weight) for _, weight in parts
    )

  return evaluate


def bits(nats: float) -> float:
  """Returns nats as bits; divided by a text's bytes they are comparable across tokenizers.

  Args:
    nats: summed over all tokens that cover a text once, separators included.
  """
  return nats / math.log(2)
