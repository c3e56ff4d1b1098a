"""Parameters laid out for inference on CPUs: layers apart, and matrices as products read them.

XLA for CPUs copies a layer's part of a stack before it multiplies by it, starts its threads anew
for every product, and copies the right-hand factor of a product into a layout of its own. So each
layer has arrays of its own, matrices of one input are side by side, and a matrix is the left-hand
factor, with its outputs first. Int8 matrices are cut into tiles (lm/model/tiles.py).
`lm.model.transformer.Transformer` takes these parameters in place of the stacked ones, and computes
the same.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from lm.model import tiles

LAYER = 'layer_{}'  # The name of a layer's parameters.
QKV, GATE_UP = 'qkv', 'gate_up'  # Matrices side by side.
FUSED = {'attention': (QKV, ('q', 'k', 'v')), 'mlp': (GATE_UP, ('gate', 'up'))}
TRANSPOSED = 'kernel_transposed'  # [outputs, inputs], in place of 'kernel'.
TILED = 'kernel_tiled'  # An int8 matrix of `lm.model.tiles`, in place of 'kernel'.
HEAD_SCALE = 'head_scale'  # Of an int8 head (lm/model/quantize.py), float32 [V].
HEAD_TILED = 'head_tiled'  # An int8 head of `lm.model.tiles`, in place of 'head'.
OUTPUT = 'o'  # The matrix of two input axes, heads and their width; all others have one.


def apart(params: Any) -> Any:
  """Returns the parameters with an entry for each layer in place of the stack of all."""
  stacked, others = params['layers'], {k: x for k, x in params.items() if k != 'layers'}
  count = len(jax.tree.leaves(stacked)[0])

  def layer(number: int) -> Any:
    one = jax.tree.map(lambda x: x[number], stacked)
    return {name: _laid_out(part, *FUSED.get(name, ('', ()))) for name, part in one.items()}

  if HEAD_SCALE in params:
    others[HEAD_TILED] = tiles.cut(others.pop('head').T)
  return others | {LAYER.format(number): layer(number) for number in range(count)}


_jitted = jax.jit(apart)


def for_inference(params: Any) -> Any:
  """Returns the parameters as inference runs fastest here: apart on CPUs, else as they are.

  Parameters that are apart already are returned as they are, and not copied.
  """
  stacked = 'layers' in params
  return _jitted(params) if stacked and jax.default_backend() == 'cpu' else params


def _laid_out(part: Any, fused: str, names: tuple[str, ...]) -> Any:
  """Returns a part of a layer with some of its matrices side by side, and all transposed.

  Matrices of experts and matrices with adapters stay as they are.
  """
  if 'router' in part:
    return part
  matrices = [part[name] for name in names if name in part]
  if len(matrices) > 1 and all(map(_is_plain, matrices)):
    part = {name: x for name, x in part.items() if name not in names}
    part[fused] = {
      name: jnp.concatenate([m[name] for m in matrices], axis=1 if name == 'kernel' else 0)
      for name in matrices[0]
    }
  return {name: _as_read(name, x) for name, x in part.items()}


def _is_plain(matrix: Any) -> bool:
  """Returns whether a matrix has no adapter."""
  return matrix.keys() <= {'kernel', 'bias', 'kernel_scale'}


def _as_read(name: str, matrix: Any) -> Any:
  """Returns the parameters of a matrix as products read it; those of a norm as they are."""
  if not isinstance(matrix, dict) or 'kernel' not in matrix or not _is_plain(matrix):
    return matrix
  others = {name: x for name, x in matrix.items() if name != 'kernel'}
  kernel = matrix['kernel']
  inputs = kernel.shape[: 2 if name == OUTPUT else 1]
  kernel = kernel.reshape(math.prod(inputs), -1)
  is_int8 = kernel.dtype == jnp.int8
  return others | ({TILED: tiles.cut(kernel)} if is_int8 else {TRANSPOSED: kernel.T})
