"""Rotary position embeddings (Su et al., arXiv 2104.09864) and their scaling to longer contexts.

The axes are named in lm/model/transformer.py.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

SCALINGS = ('none', 'linear', 'llama3')

Tables = tuple[jax.Array, jax.Array]  # Cosines and sines, float32 [B, T, 1, H/2].


def frequencies(config: FrozenConfigDict, windowed: bool = False) -> np.ndarray:
  """Returns the radians per position of each pair of a head, float32 [H/2].

  `linear` divides all of them by rope_factor (Chen et al., arXiv 2306.15595). `llama3` divides
  those whose wavelength is over rope_original_len / rope_low_freq_factor, keeps those under
  rope_original_len / rope_high_freq_factor, and blends in between (Llama 3.1's release).

  Args:
    windowed: for window layers, which may have a theta of their own and are then not scaled.
  """
  c = config
  local = windowed and c.rope_theta_window
  theta = c.rope_theta_window if local else c.rope_theta
  frequency_H = 1.0 / theta ** (np.arange(0, c.head_dim, 2, dtype=np.float32) / c.head_dim)
  if c.rope_scaling == 'none' or local:
    return frequency_H
  if c.rope_scaling == 'linear':
    return frequency_H / c.rope_factor
  turns_H = c.rope_original_len * frequency_H / (2 * math.pi)  # Turns in the original context.
  kept_H = np.clip(
    (turns_H - c.rope_low_freq_factor) / (c.rope_high_freq_factor - c.rope_low_freq_factor), 0, 1
  )
  return (frequency_H * (kept_H + (1 - kept_H) / c.rope_factor)).astype(np.float32)


def tables(config: FrozenConfigDict, kind: str, positions_BT: jax.Array) -> Tables:
  """Returns the cosines and sines by which `rotate` turns the heads of a layer.

  Args:
    kind: the type of the layer: 'full', 'window', or 'nope', which turns nothing.
  """
  frequency_H = (
    np.zeros(config.head_dim // 2, np.float32)
    if kind == 'nope'
    else frequencies(config, kind == 'window')
  )
  angle = positions_BT[:, :, None, None].astype(jnp.float32) * frequency_H[None, None, None]
  return jnp.cos(angle), jnp.sin(angle)


def rotate(x_BTNH: jax.Array, tables: Tables) -> jax.Array:
  """Rotates the pairs (i, i + H/2) of each head, the layout of Llama weights on Hugging Face."""
  cos, sin = tables
  a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)
