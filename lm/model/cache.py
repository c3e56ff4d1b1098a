"""Key/value caches: the keys and values of the tokens that each row has read.

Axes are named in lm/model/transformer.py. `Cache` is the interface that the model and the sampler
use; `ContiguousCache` is the implementation that both use today. Attention knows neither slots nor
pages: another layout is another class with these methods, and nothing else changes.
"""

from typing import Protocol, Self

import jax
import jax.numpy as jnp
from flax import struct
from ml_collections import FrozenConfigDict

from lm.model.attention import reference


class Cache(Protocol):
  """The keys and values of all layers for the tokens that each row has read.

  One forward pass of T tokens a row calls `positions` once, then `append` and `attend` once in each
  layer, and `advance` once at the end. Until `advance` is called, the T tokens count as the ones
  behind `length_B`: a row that has fewer than T real tokens is padded at its end, and `advance` is
  told how many are real, so that the next pass writes over the padding.

  An implementation is a pytree (`flax.struct.dataclass`) whose structure, shapes and dtypes no
  method but `repeat` changes: the layers carry it through `jax.lax.scan`, generation through
  `jax.lax.while_loop`.

  Attributes:
    length_B: int32, tokens held, per row.
    capacity: tokens that a row can hold. What is appended beyond it is dropped; the sampler ends
      such rows.
  """

  length_B: jax.Array

  @property
  def capacity(self) -> int: ...

  def positions(self, num_tokens: int) -> jax.Array:
    """Returns the positions [B, T] of the next `num_tokens` tokens of each row."""

  def append(self, layer: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> Self:
    """Writes a layer's keys and values of the next T tokens of each row behind those it holds."""

  def attend(
    self,
    layer: jax.Array,
    q_BTNH: jax.Array,
    scale: float,
    softcap: float,
    window: int | jax.Array,
  ) -> jax.Array:
    """Returns a layer's attention output for the T tokens appended last, [B, T, N, H].

    A query sees the keys of its own row at its own position and before.

    Args:
      layer: number of the layer, a scalar.
      scale, softcap: as for `lm.model.attention.reference.attend`.
      window: tokens that a query sees, its own included; 0 is all. A scalar: layers that share one
        program may differ in it.
    """

  def advance(self, num_B: jax.Array) -> Self:
    """Counts the first `num_B` tokens of each row, appended in all layers, as held."""

  def repeat(self, count: int) -> Self:
    """Returns a cache of B * count rows: `count` consecutive copies of each row."""


@struct.dataclass
class ContiguousCache:
  """A `Cache` whose row is one stretch of slots: slot s holds the token at position s."""

  k_LBSKH: jax.Array
  v_LBSKH: jax.Array
  length_B: jax.Array

  @property
  def capacity(self) -> int:
    """Returns the number of slots of a row."""
    return self.k_LBSKH.shape[2]

  def positions(self, num_tokens: int) -> jax.Array:
    """Returns the positions of the next tokens; see `Cache`."""
    return self.length_B[:, None] + jnp.arange(num_tokens)[None, :]

  def append(self, layer: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> Self:
    """Writes the keys and values of a layer; see `Cache`."""
    slots_BT = self.positions(k_BTKH.shape[1])
    rows_B1 = jnp.arange(k_BTKH.shape[0])[:, None]

    def write(held_LBSKH: jax.Array, new_BTKH: jax.Array) -> jax.Array:
      new_BTKH = new_BTKH.astype(held_LBSKH.dtype)
      return held_LBSKH.at[layer, rows_B1, slots_BT].set(new_BTKH, mode='drop')

    return self.replace(k_LBSKH=write(self.k_LBSKH, k_BTKH), v_LBSKH=write(self.v_LBSKH, v_BTKH))

  def attend(
    self,
    layer: jax.Array,
    q_BTNH: jax.Array,
    scale: float,
    softcap: float,
    window: int | jax.Array,
  ) -> jax.Array:
    """Returns the attention of the tokens appended last; see `Cache`."""
    mask_BTS = visible(self.positions(q_BTNH.shape[1]), self.capacity, window)
    return reference.attend(
      q_BTNH, self.k_LBSKH[layer], self.v_LBSKH[layer], mask_BTS, scale, softcap
    )

  def advance(self, num_B: jax.Array) -> Self:
    """Counts the tokens appended last as held; see `Cache`."""
    return self.replace(length_B=jnp.minimum(self.length_B + num_B, self.capacity))

  def repeat(self, count: int) -> Self:
    """Returns a cache with `count` copies of each row; see `Cache`."""
    return ContiguousCache(
      jnp.repeat(self.k_LBSKH, count, axis=1),
      jnp.repeat(self.v_LBSKH, count, axis=1),
      jnp.repeat(self.length_B, count),
    )


def visible(positions_BT: jax.Array, capacity: int, window: int | jax.Array) -> jax.Array:
  """Returns the mask [B, T, S] of keys at positions 0 to `capacity` - 1 that queries may see.

  Args:
    positions_BT: of the queries.
    window: tokens that a query sees, its own included; 0 means all tokens up to its own.
  """
  distance_BTS = positions_BT[:, :, None] - jnp.arange(capacity)[None, None, :]
  if isinstance(window, int) and window == 0:
    return distance_BTS >= 0
  reach = jnp.where(jnp.asarray(window) == 0, capacity, window)
  return (distance_BTS >= 0) & (distance_BTS < reach)


def init_cache(config: FrozenConfigDict, batch_size: int, capacity: int) -> ContiguousCache:
  """Returns an empty cache of `capacity` tokens for each of `batch_size` rows.

  Args:
    config: the model's.
  """
  shape = (config.num_layers, batch_size, capacity, config.num_kv_heads, config.head_dim)
  dtype = jnp.dtype(config.dtype)
  return ContiguousCache(
    jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(batch_size, jnp.int32)
  )
