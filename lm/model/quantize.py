"""Int8 weights for inference: one byte for each weight, one scale for each output channel.

The matrices of the layers are quantized. Products are computed in the dtype of the activations
(weight-only quantization), to which XLA converts the bytes as it reads them. Embeddings, the head,
the router and the norms stay as they are.
"""

from typing import Any

import jax
import jax.numpy as jnp

from lm.model.layers import matrix_sides


def int8(params: Any, axes: Any) -> Any:
  """Returns the parameters with each kernel as int8 and a float32 `kernel_scale` beside it.

  The model takes them in place of `params`.

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
  """Returns `params` in the form `name` on the devices that hold them.

  Args:
    name: one of lm.base.choices.QUANTIZATIONS.
    axes: as for `int8`.
  """
  return params if name == 'none' else jax.jit(lambda params: int8(params, axes))(params)
