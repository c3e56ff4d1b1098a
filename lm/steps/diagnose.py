"""Which layer first produced a number that is not finite."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from lm import distributed, sharding
from lm.model import Transformer
from lm.steps.common import LossFn


def _bad_places(tree: Any) -> Iterator[tuple[float, str]]:
  """(order in the forward pass, name) of every parameter of every layer that is not finite."""
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    name = sharding.leaf_name(path)
    bad = distributed.fetch(~jnp.isfinite(x))
    if name.startswith('layers/'):
      yield from ((float(i), f'{name}, layer {i}') for i in np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1)))
    elif bad.any():
      yield (-1.0 if name in ('embedding', 'position_table') else math.inf), name


def first_non_finite(config: FrozenConfigDict, loss_fn: LossFn, params: Any, microbatch: dict) -> str:
  """Names the first place, in the order of computation, that is not finite: a parameter, a layer's output, the loss, a
  gradient (of the last layers first, as the backward pass meets them)."""
  if places := sorted(_bad_places(params)):
    return f'parameter {places[0][1]}'
  _, seen = Transformer(config).apply({'params': params}, microbatch['inputs'], mutable=['finite'])
  finite_L = distributed.fetch(jax.tree.leaves(seen)[0]).reshape(-1)
  if not finite_L.all():
    return f'output of layer {int(np.argmin(finite_L))}'
  loss, grads = jax.value_and_grad(lambda p: loss_fn(p, microbatch)[0])(params)
  if not np.isfinite(distributed.fetch(loss)):
    return 'the loss, after finite layers'
  if places := sorted(_bad_places(grads)):
    return f'gradient of {places[-1][1]}'
  return 'nothing in this microbatch taken alone'
