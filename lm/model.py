"""The one Transformer: training, scoring, prefill and decode are the same function, with or without a key/value cache.

Names of arrays end in their axes:
  B batch   T query position   S key position   D model width   N query heads   K key/value heads   G = N / K
  H head width   F feed-forward   V vocabulary   L layers
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from ml_collections import ConfigDict, FrozenConfigDict

from lm.attention import attend
from lm.errors import UserError, unknown
from lm.sharding import constrain

ACTIVATIONS = {
  'swiglu': nn.silu,
  'geglu': lambda x: nn.gelu(x, approximate=True),
  'gelu': lambda x: nn.gelu(x, approximate=True),
  'relu2': lambda x: jnp.square(nn.relu(x)),
}
GATED = ('swiglu', 'geglu')
NORMS = ('rmsnorm', 'layernorm')
POSITIONS = ('rope', 'learned')
REMAT = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@struct.dataclass
class Cache:
  """Keys and values of what each row has read so far. Slot s of a row holds its token at position s."""

  k_LBSKH: jax.Array
  v_LBSKH: jax.Array
  length_B: jax.Array  # tokens held, per row

  @property
  def capacity(self) -> int:
    """Slots per row, in tokens."""
    return self.k_LBSKH.shape[2]


def init_cache(config: FrozenConfigDict, batch_size: int, capacity: int) -> Cache:
  """An empty cache of `capacity` tokens for each of `batch_size` rows."""
  shape = (config.num_layers, batch_size, capacity, config.num_kv_heads, config.head_dim)
  dtype = jnp.dtype(config.dtype)
  return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(batch_size, jnp.int32))


def rope_tables(positions_BT: jax.Array, head_dim: int, theta: float) -> tuple[jax.Array, jax.Array]:
  """Cosines and sines, float32 [B, T, 1, H/2], of rotary embeddings (Su et al., arXiv 2104.09864)."""
  frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
  angle = positions_BT[:, :, None, None].astype(jnp.float32) * frequency[None, None, None, :]
  return jnp.cos(angle), jnp.sin(angle)


def rotate(x_BTNH: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Rotates the pairs (i, i + H/2) of each head, the layout of Llama weights on Hugging Face."""
  cos, sin = tables
  a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)


class Norm(nn.Module):
  """RMSNorm (arXiv 1910.07467) or LayerNorm over the last axis, computed in float32."""

  config: FrozenConfigDict
  kind: str
  axis: str = 'embed'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    def vector(name, init):
      boxed_init = nn.with_logical_partitioning(init, (self.axis,))
      return self.param(name, boxed_init, x.shape[-1:], jnp.dtype(self.config.param_dtype))

    scale = vector('scale', nn.initializers.ones)
    bias = vector('bias', nn.initializers.zeros) if self.kind == 'layernorm' else None

    @jax.checkpoint  # the backward pass keeps x alone
    def norm(x, scale, bias):
      y = x.astype(jnp.float32)
      if bias is not None:
        y = y - y.mean(-1, keepdims=True)
      y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.config.norm_eps)
      y = y * jnp.expand_dims(scale.astype(jnp.float32), range(y.ndim - 1))
      if bias is not None:
        y = y + jnp.expand_dims(bias.astype(jnp.float32), range(y.ndim - 1))
      return y.astype(x.dtype)

    return norm(x, scale, bias)


class Linear(nn.Module):
  """A matrix product over the leading axes of a weight whose axes are named, with an optional bias on the others."""

  config: FrozenConfigDict
  shape: tuple[int, ...]
  axes: tuple[str, ...]
  contract: int = 1  # how many trailing axes of x and leading axes of the weight are summed over
  bias: bool = False
  std: float = 0.02

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, n = self.config, self.contract
    init = nn.with_logical_partitioning(nn.initializers.normal(self.std), self.axes)
    w = self.param('kernel', init, self.shape, jnp.dtype(c.param_dtype))
    y = jnp.tensordot(x, w.astype(x.dtype), axes=n)
    if self.bias:
      init = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[n:])
      b = self.param('bias', init, self.shape[n:], jnp.dtype(c.param_dtype))
      y = y + jnp.expand_dims(b.astype(x.dtype), range(y.ndim - b.ndim))
    return y


class Attention(nn.Module):
  """Causal grouped-query attention (arXiv 2305.13245) with rotary positions and optional query/key norms."""

  config: FrozenConfigDict

  @nn.compact
  def __call__(self, x_BTD, tables, mask_BTS, positions_BT, cache: Cache | None, layer):
    c = self.config
    D, N, K, H = c.embed_dim, c.num_heads, c.num_kv_heads, c.head_dim

    def heads(name: str, count: int, axis: str) -> jax.Array:
      linear = Linear(c, (D, count, H), ('embed', axis, 'head_dim'), bias=c.attention_bias, std=c.init_std, name=name)
      return linear(x_BTD)

    q_BTNH, k_BTKH, v_BTKH = heads('q', N, 'heads'), heads('k', K, 'kv_heads'), heads('v', K, 'kv_heads')
    if c.qk_norm:
      q_BTNH = Norm(c, 'rmsnorm', 'head_dim', name='q_norm')(q_BTNH)
      k_BTKH = Norm(c, 'rmsnorm', 'head_dim', name='k_norm')(k_BTKH)
    if c.position == 'rope':
      q_BTNH, k_BTKH = rotate(q_BTNH, tables), rotate(k_BTKH, tables)
    if cache is not None:
      rows_B1 = jnp.arange(x_BTD.shape[0])[:, None]

      def write(slots_LBSKH, new_BTKH):  # slots past the capacity are dropped: the sampler stops such rows
        return slots_LBSKH.at[layer, rows_B1, positions_BT].set(new_BTKH.astype(slots_LBSKH.dtype), mode='drop')

      cache = cache.replace(k_LBSKH=write(cache.k_LBSKH, k_BTKH), v_LBSKH=write(cache.v_LBSKH, v_BTKH))
      k_BTKH, v_BTKH = cache.k_LBSKH[layer], cache.v_LBSKH[layer]
    out_BTNH = attend(q_BTNH, k_BTKH, v_BTKH, mask_BTS, causal=cache is None)
    std = c.init_std / (2 * c.num_layers) ** 0.5
    axes = ('heads', 'head_dim', 'embed')
    return Linear(c, (N, H, D), axes, contract=2, bias=c.attention_bias, std=std, name='o')(out_BTNH), cache


class Mlp(nn.Module):
  """Feed-forward block: gated (SwiGLU, GeGLU, arXiv 2002.05202) or plain (GELU, ReLU^2)."""

  config: FrozenConfigDict

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    c = self.config
    D, F = c.embed_dim, c.mlp_dim
    act = jax.checkpoint(ACTIVATIONS[c.activation])  # the backward pass keeps what it reads alone

    def up(name):
      return Linear(c, (D, F), ('embed', 'mlp'), bias=c.mlp_bias, std=c.init_std, name=name)(x_BTD)

    h_BTF = act(up('gate')) * up('up') if c.activation in GATED else act(up('up'))
    std = c.init_std / (2 * c.num_layers) ** 0.5
    return Linear(c, (F, D), ('mlp', 'embed'), bias=c.mlp_bias, std=std, name='down')(h_BTF)


class Block(nn.Module):
  """One pre-norm layer, in the form that nn.scan loops over: carry is (x_BTD, cache)."""

  config: FrozenConfigDict

  @nn.compact
  def __call__(self, carry, layer, tables, mask_BTS, positions_BT):
    c = self.config
    x_BTD, cache = carry
    x_BTD = constrain(x_BTD, 'batch', 'length', None)
    normed_BTD = Norm(c, c.norm, name='attention_norm')(x_BTD)
    out_BTD, cache = Attention(c, name='attention')(normed_BTD, tables, mask_BTS, positions_BT, cache, layer)
    x_BTD = x_BTD + out_BTD
    x_BTD = x_BTD + Mlp(c, name='mlp')(Norm(c, c.norm, name='mlp_norm')(x_BTD))
    self.sow('finite', 'layers', jnp.isfinite(x_BTD).all())  # read by lm/steps/diagnose only
    return (x_BTD, cache), None


class Transformer(nn.Module):
  """Decoder-only Transformer. Parameters of the layers are stacked along a leading axis L, scanned or not."""

  config: FrozenConfigDict  # the `model` part of a config, checked by `check`

  def setup(self):
    c = self.config
    init, dtype = nn.initializers.normal(c.init_std), jnp.dtype(c.param_dtype)
    table = nn.with_logical_partitioning(init, ('vocab', 'embed'))
    self.embedding = self.param('embedding', table, (c.vocab_size, c.embed_dim), dtype)
    if c.position == 'learned':
      positions = nn.with_logical_partitioning(init, ('positions', 'embed'))
      self.position_table = self.param('position_table', positions, (c.max_len, c.embed_dim), dtype)
    if not c.tie_embeddings:
      self.head = self.param('head', table, (c.vocab_size, c.embed_dim), dtype)

  @nn.compact
  def __call__(self, tokens_BT: jax.Array, positions_BT: jax.Array | None = None,
               segment_ids_BT: jax.Array | None = None, cache: Cache | None = None,
               num_tokens_B: jax.Array | None = None) -> tuple[jax.Array, Cache | None]:
    """Reads tokens, returns the final hidden states; `unembed` turns those that are needed into logits.

    Args:
      tokens_BT: int32 ids.
      positions_BT: place of each token in its document; by default 0, 1, 2, ... Not with a cache, which knows it.
      segment_ids_BT: document of each token in its row; tokens see their own document only. Not with a cache.
      cache: what each row has read before; the tokens are appended behind it.
      num_tokens_B: with a cache, how many of each row's tokens are real (the rest, at its end, is padding); default T.

    Returns:
      (hidden_BTD, cache): the hidden states after the final norm, and the cache with the tokens appended (or None).
    """
    c = self.config
    B, T = tokens_BT.shape
    index_1T = jnp.arange(T)[None, :]
    if cache is not None:
      assert positions_BT is None and segment_ids_BT is None, 'a cache knows its own positions'
      positions_BT = cache.length_B[:, None] + index_1T
      mask_BTS = jnp.arange(cache.capacity)[None, None, :] <= positions_BT[:, :, None]
    else:
      mask_BTS = (index_1T[:, :, None] >= index_1T[:, None, :]) & jnp.ones((B, 1, 1), bool)
      if segment_ids_BT is not None:
        mask_BTS &= segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
      if positions_BT is None:
        positions_BT = jnp.broadcast_to(index_1T, (B, T))

    x_BTD = self.embedding[tokens_BT].astype(jnp.dtype(c.dtype))
    tables = None
    if c.position == 'learned':
      x_BTD = x_BTD + self.position_table[positions_BT].astype(x_BTD.dtype)
    else:
      tables = rope_tables(positions_BT, c.head_dim, c.rope_theta)

    block = Block
    if c.remat != 'none':
      block = nn.remat(Block, policy=REMAT[c.remat], prevent_cse=not c.scan_layers)
    layers = nn.scan(
      block, variable_axes={'params': 0, 'finite': 0}, split_rngs={'params': True},
      in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast), length=c.num_layers,
      unroll=1 if c.scan_layers else c.num_layers, metadata_params={nn.PARTITION_NAME: 'layers'},
    )(c, name='layers')
    (x_BTD, cache), _ = layers((x_BTD, cache), jnp.arange(c.num_layers), tables, mask_BTS, positions_BT)
    if cache is not None:
      added_B = jnp.full(B, T, jnp.int32) if num_tokens_B is None else num_tokens_B
      cache = cache.replace(length_B=jnp.minimum(cache.length_B + added_B, cache.capacity))
    return Norm(c, c.norm, name='final_norm')(x_BTD), cache


def head(params: Any, config: FrozenConfigDict) -> jax.Array:
  """The output matrix, [V, D], of `params`: the embedding table when tied."""
  return params['embedding'] if config.tie_embeddings else params['head']


def unembed(params: Any, config: FrozenConfigDict, hidden: jax.Array) -> jax.Array:
  """Float32 logits [..., V] of final hidden states [..., D]."""
  weight_VD = head(params, config).astype(hidden.dtype)
  return jnp.einsum('...d,vd->...v', hidden, weight_VD, preferred_element_type=jnp.float32)


def check(config: FrozenConfigDict) -> None:
  """Raises UserError that names the field when a model config holds a value that is not allowed."""
  choices = {'activation': ACTIVATIONS, 'norm': NORMS, 'position': POSITIONS, 'remat': REMAT}
  for field, allowed in choices.items():
    if config[field] not in allowed:
      raise unknown(f'config.model.{field}', config[field], allowed)
  if config.num_heads % config.num_kv_heads:
    raise UserError(f'config.model.num_kv_heads is {config.num_kv_heads}; it must divide num_heads, {config.num_heads}')
  if config.position == 'rope' and config.head_dim % 2:
    raise UserError(f'config.model.head_dim is {config.head_dim}; rotary positions need an even number')


def sized(config: ConfigDict, vocab_size: int) -> FrozenConfigDict:
  """A checked config.model with the tokenizer's vocabulary filled in. Raises UserError where it asks for another size."""
  if config.vocab_size not in (0, vocab_size):
    raise UserError(f'config.model.vocab_size is {config.vocab_size}; the tokenizer has {vocab_size} (0 takes that)')
  sized_config = FrozenConfigDict(config.to_dict() | {'vocab_size': vocab_size})
  check(sized_config)
  return sized_config


def init(config: FrozenConfigDict, rng: jax.Array) -> Any:
  """Fresh parameters, a tree of arrays boxed with the names of their axes (`flax.linen.unbox` removes the boxes)."""
  return Transformer(config).init(rng, jnp.zeros((1, 1), jnp.int32))['params']


def init_params(config: FrozenConfigDict, rng: jax.Array) -> Any:
  """Fresh parameters, a tree of plain arrays."""
  return nn.unbox(init(config, rng))
