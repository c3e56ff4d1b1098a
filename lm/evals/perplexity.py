"""Loss on held-out tokens."""

import collections
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax

from lm.train.train_step import LossFn

AHEAD = 2  # batches that wait on the devices while the next one is read


def make_evaluate(loss_fn: LossFn) -> Callable[[Any, Iterable[dict]], tuple[float, float]]:
  """Builds `evaluate(params, batches) -> (nats, weight)`: sums over all batches [B, T] of the loss,
  no regulariser inside.
  """
  sums = jax.jit(lambda params, batch: loss_fn(params, batch)[2]['train/loss'])

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


def bits_per_byte(nats: float, num_bytes: int) -> float:
  """Comparable across tokenizers, unlike loss per token.

  Args:
    nats: over all tokens that cover a text once, separators included.
    num_bytes: length of the text alone in UTF-8.
  """
  return nats / math.log(2) / num_bytes
