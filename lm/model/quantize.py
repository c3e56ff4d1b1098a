"""Int8 weights for inference: a byte for each weight of the layers' matrices, a scale for each of
their output channels.

Products are computed in the activations' type (weight-only quantisation); XLA turns the bytes into
it as it reads them. Embeddings, the head, the router and the norms stay as they are.
"""

from typing import Any

import jax
import jax.numpy as jnp

from lm.model.layers import matrix_sides

QUANTIZATIONS = ('none', 'int8')


def int8(params: Any, axes: Any) -> Any:
  """Parameters that the model takes in place of `params`: each kernel as int8, and beside it a
  float32 `kernel_scale`.

  A weight is kernel * kernel_scale, rounded to nearest, with the scale such that each output
  channel's largest weight is 127 (symmetric, per channel: LLM.int8(), arXiv 2208.07339, section
  3.1, without its outliers).

  Args:
    axes: the axis names of every parameter (`lm.parallel.sharding.axis_names`).
  """
  if 'kernel' not in params:
    return {name: int8(x, axes[name]) if isinstance(x, dict) else x for name, x in params.items()}
  names, kernel = axes['kernel'], params['kernel']
  if 'router' in names:
    return params
  summed, _ = matrix_sides(names)
  scale = jnp.maximum(
    jnp.abs(kernel).max(summed, keepdims=True).astype(jnp.float32) / 127,
    jnp.finfo(jnp.float32).tiny,
  )
  values = jnp.round(kernel.astype(jnp.float32) / scale).astype(jnp.int8)
  return params | {'kernel': values, 'kernel_scale': jnp.squeeze(scale, summed)}


def quantize(name: str, params: Any, axes: Any) -> Any:
  """`params` in the form `name`, one of QUANTIZATIONS, on the devices where they are."""
  return params if name == 'none' else jax.jit(lambda params: int8(params, axes))(params)
