"""Low-rank adapters of matrices (LoRA, Hu et al., arXiv 2106.09685).

Beside the kernel W of a matrix that config.model.lora_params names, the parameters hold two thin
matrices, `lora_a` [inputs, R] and `lora_b` [R, outputs]; the layer computes
x @ W + (x @ A) @ B * (alpha / rank). B begins at 0, so the model begins as the one without.

The products are taken one after the other, in lm/model/layers.py, and the sum W + A @ B is not
formed: its gradient would be as large as W's, and merging all layers before the scan over them
would hold a second copy of the model. Where a product is done elsewhere, as of routed experts and
of feed-forward blocks in parts, one layer's matrix is merged at a time.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from lm.base.errors import UserError
from lm.model import heads
from lm.model.param_rules import covered, leaf_names, matrix_sides

A, B = 'lora_a', 'lora_b'
# The fields of config.model that define the adapters.
FIELDS = ('lora_rank', 'lora_alpha', 'lora_params')


def check(config: FrozenConfigDict) -> None:
  """Raises UserError when a field of config.model holds a value that no adapter can have."""
  if config.lora_rank < 0:
    raise UserError(field='config.model.lora_rank', value=config.lora_rank, allowed='at least 0')
  if config.lora_rank and config.lora_alpha <= 0:
    raise UserError(field='config.model.lora_alpha', value=config.lora_alpha, allowed='above 0')


def scale(config: FrozenConfigDict) -> float:
  """Returns the factor by which the product with an adapter is multiplied, alpha / rank."""
  return config.lora_alpha / config.lora_rank


def is_adapter(name: str) -> bool:
  """Returns whether a parameter of this name belongs to an adapter."""
  return name.rpartition('/')[2] in (A, B)


def pair_of(kernel: str) -> tuple[str, str]:
  """Returns the names of the two parameters of the adapter that this kernel may have."""
  folder = kernel.rpartition('/')[0]
  return f'{folder}/{A}', f'{folder}/{B}'


def trained(rule: str, axes: Any) -> frozenset[str]:
  """Returns the names of the parameters that `config.train.params` selects for training.

  Args:
    axes: the axis names of every parameter (`lm.parallel.sharding.axis_names`).

  Raises:
    UserError: the rule has an expression that matches no parameter.
  """
  names = leaf_names(axes)
  if not rule and any(map(is_adapter, names)):
    return frozenset(name for name in names if is_adapter(name) or name == heads.SCALAR)
  if rule in ('', 'all'):
    return frozenset(names)
  return covered('config.train.params', rule, names)


def add(boxed: Any, config: FrozenConfigDict, key: jax.Array) -> Any:
  """Returns `boxed` with an adapter beside each kernel that config.model.lora_params covers.

  A is drawn from a normal distribution of variance 1 / inputs, so that it preserves the scale of
  its input. B is 0.

  Raises:
    UserError: the rule has an expression that matches no kernel.
  """
  kernels = [name for name in leaf_names(boxed) if name.rpartition('/')[2] == 'kernel']
  chosen = sorted(covered('config.model.lora_params', config.lora_params, kernels))
  keys = dict(zip(chosen, jax.random.split(key, len(chosen)), strict=True))
  dtype, rank = jnp.dtype(config.param_dtype), config.lora_rank

  def pair(box, key):
    inputs, outputs = matrix_sides(box.names)
    lead = range(inputs[0])

    def part(places):
      return tuple(box.value.shape[i] for i in places), tuple(box.names[i] for i in places)

    (count, lead_axes), (ins, in_axes), (outs, out_axes) = part(lead), part(inputs), part(outputs)
    std = float(np.prod(ins)) ** -0.5
    a = std * jax.random.normal(key, (*count, *ins, rank), dtype)
    b = jnp.zeros((*count, rank, *outs), dtype)
    return {
      A: nn.LogicallyPartitioned(a, (*lead_axes, *in_axes, 'lora')),
      B: nn.LogicallyPartitioned(b, (*lead_axes, 'lora', *out_axes)),
    }

  def walk(tree, prefix):
    found = {k: walk(x, f'{prefix}{k}/') if isinstance(x, dict) else x for k, x in tree.items()}
    name = f'{prefix}kernel'
    return found | (pair(tree['kernel'], keys[name]) if name in keys else {})

  return walk(boxed, '')


def added(a: Any, b: Any, kernel_ndim: int, matmul: Callable[..., Any]) -> Any:
  """Returns A @ B in the shape of the kernel, which may begin with axes of layers and experts.

  Args:
    a, b: arrays of jax or NumPy in float32.
    matmul: the product of stacked matrices to use.
  """
  lead = a.ndim + b.ndim - 2 - kernel_ndim
  count, rank = a.shape[:lead], a.shape[-1]
  product = matmul(a.reshape(*count, -1, rank), b.reshape(*count, rank, -1))
  return product.reshape(*a.shape[:-1], *b.shape[lead + 1 :])


def merged(kernel: Any, a: Any, b: Any, factor: float) -> Any:
  """Returns the kernel plus its adapter's product, in the dtype of the kernel.

  The sum is computed in float32. NumPy arrays give a NumPy array, and JAX arrays give a JAX array.
  """
  if isinstance(kernel, np.ndarray):
    wide, matmul = np.float32, np.matmul
  else:
    wide = jnp.float32

    def matmul(x, y):  # By default TPUs would round the factors to bfloat16.
      return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)

  change = added(a.astype(wide), b.astype(wide), kernel.ndim, matmul)
  return (kernel.astype(wide) + factor * change).astype(kernel.dtype)


def merge(params: dict[str, Any], factor: float) -> dict[str, Any]:
  """Returns the parameters of a model without adapters that computes what `params` computes."""
  plain = {
    key: merge(x, factor) if isinstance(x, dict) else x
    for key, x in params.items()
    if key not in (A, B)
  }
  if A in params:
    plain['kernel'] = merged(params['kernel'], params[A], params[B], factor)
  return plain
