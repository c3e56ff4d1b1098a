"""Key/value caches: the keys and values of the tokens that each row has read.

Axes are named in lm/model/transformer.py. `Cache` is the interface that the model and the engine
(lm/infer/programs.py) use; `ContiguousCache` is the implementation that both use today, made by
`init_cache`. Attention knows neither slots nor pages: another layout is another class with these
methods, and nothing else changes.
"""

from typing import Protocol, Self

import jax
import jax.numpy as jnp
from flax import struct
from ml_collections import FrozenConfigDict

from lm.base.errors import unknown
from lm.model.attention import reference
from lm.parallel.sharding import batch_ways, constrain

QUANTIZATIONS = ('none', 'int8')


class Cache(Protocol):
  """The keys and values of all layers for the tokens that each row has read.

  One forward pass of T tokens a row calls `positions` once, then `append` and `attend` once in each
  layer, and `advance` once at the end. Until `advance` is called, the T tokens count as the ones
  behind `length_B`: a row that has fewer than T real tokens is padded at its end, and `advance` is
  told how many are real, so that the next pass writes over the padding.

  An implementation is a pytree (`flax.struct.dataclass`) whose structure, shapes and dtypes these
  four methods do not change: the layers carry it through `jax.lax.scan`, generation through
  `jax.lax.while_loop`. The engine moves rows with the other methods: it takes those of a few
  requests, reads their prompts and puts them back, and gives all rows more or fewer slots.

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

  def append(self, layer: int | jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> Self:
    """Writes a layer's keys and values of the next T tokens of each row behind those it holds."""

  def attend(
    self,
    layer: int | jax.Array,
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

  def keep(self, row: jax.Array, length: jax.Array) -> Self:
    """Returns the cache with only the first `length` tokens of one row held."""

  def take(self, rows_R: jax.Array, capacity: int) -> Self:
    """Returns a cache of some rows, in any order and number, that can hold `capacity` tokens.

    A number beyond the rows stands for any row.
    """

  def put(self, rows_R: jax.Array, taken: Self) -> Self:
    """Returns the cache with what `take` returned, now longer, back in its rows.

    What is put into a number beyond the rows is dropped.
    """

  def resize(self, capacity: int) -> Self:
    """Returns the cache with another capacity; tokens that do not fit are dropped."""


@struct.dataclass
class ContiguousCache:
  """A `Cache` whose row is one stretch of slots: slot s holds the token at position s.

  The arrays of a layer are {'k', 'v'}, [B, K, S, H]. As int8 each token and head has a scale, the
  largest of its H numbers over 127: {'k_scale', 'v_scale'}, [B, K, S, 1].

  Attributes:
    layers: the arrays of all layers stacked along a leading axis L, or a tuple with those of each
      layer. CPUs need the tuple: XLA copies a layer's part of a stack before it computes with it.
  """

  layers: dict[str, jax.Array] | tuple[dict[str, jax.Array], ...]
  length_B: jax.Array

  @property
  def capacity(self) -> int:
    """Returns the number of slots of a row."""
    return jax.tree.leaves(self.layers)[0].shape[SLOTS]

  def positions(self, num_tokens: int) -> jax.Array:
    """Returns the positions of the next tokens; see `Cache`."""
    return self.length_B[:, None] + jnp.arange(num_tokens)[None, :]

  def append(self, layer: int | jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> Self:
    """Writes the keys and values of a layer; see `Cache`."""
    B, T = k_BTKH.shape[:2]
    slots_BT, rows_B1 = self.positions(T), jnp.arange(B)[:, None]
    if isinstance(self.layers, tuple):
      if B * T == 1:
        # XLA replaces a scatter of one token by an update of a slice, which it computes twice, each
        # time from a copy of the array. So the token is written once more, to no slot.
        slots_BT = jnp.concatenate([slots_BT, jnp.full_like(slots_BT, self.capacity)], axis=1)
        k_BTKH, v_BTKH = (jnp.concatenate([x, x], axis=1) for x in (k_BTKH, v_BTKH))
      old = self.layers[layer]
      new = _stored(old, k_BTKH, v_BTKH)
      written = {
        name: x.at[rows_B1, :, slots_BT].set(new[name], mode='drop') for name, x in old.items()
      }
      return self.replace(layers=(*self.layers[:layer], written, *self.layers[layer + 1 :]))
    new = _stored(self.layers, k_BTKH, v_BTKH)
    return self.replace(
      layers={
        name: x.at[layer, rows_B1, :, slots_BT].set(new[name], mode='drop')
        for name, x in self.layers.items()
      }
    )

  def attend(
    self,
    layer: int | jax.Array,
    q_BTNH: jax.Array,
    scale: float,
    softcap: float,
    window: int | jax.Array,
  ) -> jax.Array:
    """Returns the attention of the tokens appended last; see `Cache`."""
    if isinstance(self.layers, tuple):
      held = self.layers[layer]
    else:
      held = {name: x[layer] for name, x in self.layers.items()}
    mask_BTS = visible(self.positions(q_BTNH.shape[1]), self.capacity, window)
    k_BKSH, v_BKSH = _restored(held, 'k', q_BTNH.dtype), _restored(held, 'v', q_BTNH.dtype)
    queries = q_BTNH.shape[1] * q_BTNH.shape[2] // k_BKSH.shape[1]
    is_few = isinstance(self.layers, tuple) and queries <= reference.FEW
    attend = reference.attend_few if is_few else reference.attend_heads_first
    return attend(q_BTNH, k_BKSH, v_BKSH, mask_BTS, scale, softcap)

  def advance(self, num_B: jax.Array) -> Self:
    """Counts the tokens appended last as held; see `Cache`."""
    return self.replace(length_B=jnp.minimum(self.length_B + num_B, self.capacity))

  def keep(self, row: jax.Array, length: jax.Array) -> Self:
    """Keeps the first tokens of a row; see `Cache`."""
    return self.replace(length_B=self.length_B.at[row].set(length))

  def take(self, rows_R: jax.Array, capacity: int) -> Self:
    """Returns some rows with their first `capacity` slots; see `Cache`."""

    def rows_of(x: jax.Array) -> jax.Array:
      x = jax.lax.slice_in_dim(x, 0, capacity, axis=x.ndim + SLOTS)
      return jnp.take(x, rows_R, axis=x.ndim + ROWS, mode='clip')

    length_R = jnp.take(self.length_B, rows_R, mode='clip')
    return self.replace(
      layers=jax.tree.map(rows_of, self.layers), length_B=jnp.minimum(length_R, capacity)
    )

  def put(self, rows_R: jax.Array, taken: Self) -> Self:
    """Writes what `take` returned back into its rows; see `Cache`."""

    def write(x: jax.Array, new: jax.Array) -> jax.Array:
      where = (slice(None),) * (x.ndim + ROWS) + (rows_R, slice(None), slice(new.shape[SLOTS]))
      return x.at[where].set(new, mode='drop')

    return self.replace(
      layers=jax.tree.map(write, self.layers, taken.layers),
      length_B=self.length_B.at[rows_R].set(taken.length_B, mode='drop'),
    )

  def resize(self, capacity: int) -> Self:
    """Returns the cache with another number of slots; see `Cache`."""

    def resized(x: jax.Array) -> jax.Array:
      kept = jax.lax.slice_in_dim(x, 0, min(capacity, self.capacity), axis=x.ndim + SLOTS)
      widths = [(0, 0)] * x.ndim
      widths[SLOTS] = (0, max(0, capacity - self.capacity))
      return _over_mesh(jnp.pad(kept, widths))

    return self.replace(
      layers=jax.tree.map(resized, self.layers), length_B=jnp.minimum(self.length_B, capacity)
    )


ROWS, SLOTS = -4, -2  # The axes of the arrays of a `ContiguousCache`, from the end.


def _stored(
  old: dict[str, jax.Array], k_BTKH: jax.Array, v_BTKH: jax.Array
) -> dict[str, jax.Array]:
  """Returns keys and values in the form of a cache's arrays, with T before K."""
  new = {'k': k_BTKH, 'v': v_BTKH}
  if 'k_scale' not in old:
    return {name: x.astype(old[name].dtype) for name, x in new.items()}
  stored = {}
  for name, x in new.items():
    x = x.astype(jnp.float32)
    scale = jnp.maximum(
      jnp.abs(x).max(-1, keepdims=True) / 127, jnp.finfo(jnp.float32).tiny
    ).astype(old[f'{name}_scale'].dtype)
    stored[name] = jnp.round(x / scale.astype(jnp.float32)).astype(jnp.int8)
    stored[f'{name}_scale'] = scale
  return stored


def _restored(held: dict[str, jax.Array], name: str, dtype: jnp.dtype) -> jax.Array:
  """Returns the keys or the values of a layer as numbers to compute with."""
  if f'{name}_scale' not in held:
    return held[name]
  return held[name].astype(dtype) * held[f'{name}_scale'].astype(dtype)


def _over_mesh(x: jax.Array) -> jax.Array:
  """Constrains an array of a cache to the mesh: rows over its batch axes, heads over tensor.

  An axis that the mesh does not divide is left to the compiler.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return x
  rows, heads = x.shape[ROWS : ROWS + 2]
  axes = [None] * (x.ndim + ROWS) + [
    'batch' if rows % batch_ways(mesh) == 0 else None,
    'kv_heads' if heads % mesh.shape['tensor'] == 0 else None,
    None,
    None,
  ]
  return constrain(x, *axes)


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


def init_cache(
  config: FrozenConfigDict,
  batch_size: int,
  capacity: int,
  quantization: str = 'none',
  stacked: bool = True,
) -> ContiguousCache:
  """Returns an empty cache of `capacity` tokens for each of `batch_size` rows.

  Args:
    config: the model's.
    quantization: 'none' for the dtype of activations, or 'int8'.
    stacked: whether the layers are stacked (see `ContiguousCache`).

  Raises:
    UserError: there is no such quantization.
  """
  if quantization not in QUANTIZATIONS:
    raise unknown('quantization of the cache', quantization, QUANTIZATIONS)
  lead = (config.num_layers,) if stacked else ()
  shape = (*lead, batch_size, config.num_kv_heads, capacity)

  def layer() -> dict[str, jax.Array]:
    dtype = jnp.dtype(config.dtype)
    if quantization == 'int8':
      numbers = {name: jnp.zeros((*shape, config.head_dim), jnp.int8) for name in 'kv'}
      scales = {f'{name}_scale': jnp.zeros((*shape, 1), jnp.float32) for name in 'kv'}
      arrays = numbers | scales
    else:
      arrays = {name: jnp.zeros((*shape, config.head_dim), dtype) for name in 'kv'}
    return {name: _over_mesh(x) for name, x in arrays.items()}

  layers = layer() if stacked else tuple(layer() for _ in range(config.num_layers))
  return ContiguousCache(layers, jnp.zeros(batch_size, jnp.int32))
