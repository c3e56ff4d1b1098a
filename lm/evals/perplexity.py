"""Loss on held-out tokens."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax

from lm.steps.common import LossFn


def make_evaluate(loss_fn: LossFn) -> Callable[[Any, Iterable[dict]], tuple[float, float]]:
  """Builds `evaluate(params, batches) -> (nats, weight)`: summed loss and summed weight of all batches [B, T]."""
  sums = jax.jit(lambda params, batch: loss_fn(params, batch)[:2])

  def evaluate(params, batches):
    parts = jax.device_get([sums(params, batch) for batch in batches])  # dispatched ahead, fetched once
    return math.fsum(float(nats) for nats, _ in parts), math.fsum(float(weight) for _, weight in parts)

  return evaluate


def bits_per_byte(nats: float, num_bytes: int) -> float:
  """Comparable across tokenizers, unlike loss per token.

  Args:
    nats: over all tokens that cover a text once, separators included.
    num_bytes: length of the text alone in UTF-8.
  """
  return nats / math.log(2) / num_bytes
