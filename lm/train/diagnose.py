"""Diagnosis of a bad step: which layer first produced a number that is not finite."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from lm.model.transformer import Transformer
from lm.parallel import distributed, sharding
from lm.train.train_step import LossFn, objective


def _bad_places(tree: Any) -> Iterator[tuple[float, str]]:
  """Yields (order in the forward pass, name) of each layer's parameters that are not finite."""
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    name = sharding.leaf_name(path)
    bad = distributed.fetch(~jnp.isfinite(x))
    if name.startswith('layers/'):
      yield from (
        (float(i), f'{name}, layer {i}')
        for i in np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
      )
    elif bad.any():
      yield (-1.0 if name in ('embedding', 'position_table') else math.inf), name


def first_non_finite(
  config: FrozenConfigDict, loss_fn: LossFn, params: Any, batch: dict, count: int
) -> str:
  """Returns the name of the first place that is not finite.

  It is a parameter, or the first place in a microbatch in the order of computation: a layer's
  output, the loss, or a gradient (of the last layers first, which is the order of the backward
  pass).

  Args:
    batch: leaves [M, rows, ...], of which the first `count` microbatches were used, as by
      `lm.train.train_step.accumulate`.
  """
  if places := sorted(_bad_places(params)):
    return f'parameter {places[0][1]}'

  @jax.jit
  def layers(params, microbatch):
    """Returns whether the output of each layer is finite, [L]."""
    packing = {
      f'{name}_BT': microbatch[name] for name in ('positions', 'segment_ids') if name in microbatch
    }
    finite = []
    for name, inputs_BT in microbatch.items():
      if name.endswith('inputs'):
        _, seen = Transformer(config).apply(
          {'params': params}, inputs_BT, **packing, mutable=['finite']
        )
        finite.append(jax.tree.leaves(seen)[0].reshape(-1))
    return jnp.stack(finite).all(axis=0)

  gradients = jax.jit(
    jax.value_and_grad(
      lambda params, batch: objective(loss_fn(params, batch, jax.random.key(0)))[0]
    )
  )
  for i in range(count):
    microbatch = {name: x[i] for name, x in batch.items()}
    finite_L = distributed.fetch(layers(params, microbatch))
    if not finite_L.all():
      return f'output of layer {int(np.argmin(finite_L))}, in microbatch {i}'
    loss, grads = gradients(params, microbatch)
    if not np.isfinite(distributed.fetch(loss)):
      return f'the loss, after finite layers, in microbatch {i}'
    if places := sorted(_bad_places(grads)):
      return f'gradient of {places[-1][1]}, in microbatch {i}'
  return 'nothing in any microbatch taken alone'
