"""Parameters laid out for inference on CPUs: layers apart, and matrices of one input side by side.

XLA for CPUs copies a layer's part of a stack before it multiplies by it, and starts its threads
anew for every product. `lm.model.transformer.Transformer` takes these parameters in place of the
stacked ones, and computes the same.
"""

from typing import Any

import jax
import jax.numpy as jnp

LAYER = 'layer_{}'  # The name of a layer's parameters.
QKV, GATE_UP = 'qkv', 'gate_up'  # Matrices side by side.
FUSED = {'attention': (QKV, ('q', 'k', 'v')), 'mlp': (GATE_UP, ('gate', 'up'))}


def apart(params: Any) -> Any:
  """Returns the parameters with an entry for each layer in place of the stack of all."""
  stacked, others = params['layers'], {k: x for k, x in params.items() if k != 'layers'}
  count = len(jax.tree.leaves(stacked)[0])

  def layer(number: int) -> Any:
    one = jax.tree.map(lambda x: x[number], stacked)
    return {name: _side_by_side(part, *FUSED.get(name, ('', ()))) for name, part in one.items()}

  return others | {LAYER.format(number): layer(number) for number in range(count)}


_jitted = jax.jit(apart)


def for_inference(params: Any) -> Any:
  """Returns the parameters as inference runs fastest here: apart on CPUs, else as they are.

  Parameters that are apart already are returned as they are, and not copied.
  """
  stacked = 'layers' in params
  return _jitted(params) if stacked and jax.default_backend() == 'cpu' else params


def _side_by_side(part: Any, fused: str, names: tuple[str, ...]) -> Any:
  """Returns a part of a layer with some of its matrices joined along their first output axis.

  Matrices of experts and matrices with adapters stay as they are.
  """
  matrices = [part[name] for name in names if name in part]
  is_plain = all(m.keys() <= {'kernel', 'bias', 'kernel_scale'} for m in matrices)
  if len(matrices) < 2 or not is_plain or 'router' in part:
    return part

  def join(name: str) -> jax.Array:
    return jnp.concatenate([m[name] for m in matrices], axis=1 if name == 'kernel' else 0)

  joined = {name: join(name) for name in matrices[0]}
  return {name: x for name, x in part.items() if name not in names} | {fused: joined}
