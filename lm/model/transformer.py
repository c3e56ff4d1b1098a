"""The one Transformer: training, scoring, prefill and decode are the same function.

It runs with or without a key/value cache. The names of arrays end in their axes:
  B batch          T query position    S key position       D model width
  N query heads    K key/value heads   G = N / K            H head width
  F feed-forward   V vocabulary        L layers             E experts
  A experts of a token                 R rank of an adapter (lm/model/adapters.py)
Some modules give these letters another meaning where the context is theirs alone:
  C chunk of tokens or keys, or the most probable tokens of a row
  F forced tokens (lm/infer)           M microbatches, or new tokens (lm/infer)
  W width of a part of the vocabulary (lm/train/losses.py)
  X choices of experts (lm/model/layers.py)
  Q questions and G answers to each (lm/stages/rl, lm/stages/reward.py)
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base.config import layer_types
from lm.base.errors import UserError, unknown
from lm.model import adapters, heads, rope
from lm.model.apart import HEAD_TILED, LAYER, QKV
from lm.model.attention import kernels
from lm.model.attention.reference import attend, attention_weights
from lm.model.cache import Cache
from lm.model.layers import ACTIVATIONS, NORMS, Experts, Linear, Mlp, Norm, lookup, residual_std
from lm.parallel.sharding import constrain

POSITIONS = ('rope', 'learned')
LAYER_TYPES = ('full', 'window', 'nope')
QK_NORMS = ('none', 'head', 'projection')
BIASES = ('none', 'qkv', 'all')
NORM_POSITIONS = ('pre', 'post', 'both')
REMAT = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def layer_kinds(config: FrozenConfigDict) -> list[str]:
  """Returns the types of layer that a model has, each once."""
  return [kind for kind in LAYER_TYPES if kind in layer_types(config)]


class Attention(nn.Module):
  """Causal grouped-query attention (arXiv 2305.13245).

  It has rotary positions and optional query/key norms.
  """

  config: FrozenConfigDict

  @nn.compact
  def __call__(self, x_BTD, tables, mask_BTS, segment_ids_BT, cache: Cache | None, layer, kind):
    c = self.config
    D, N, K, H = c.embed_dim, c.num_heads, c.num_kv_heads, c.head_dim

    def heads(name: str, count: int, axis: str) -> jax.Array:
      bias = c.attention_bias != 'none'
      return Linear(
        c, (D, count, H), ('embed', axis, 'head_dim'), bias=bias, std=c.init_std, name=name
      )(x_BTD)

    def normed(name: str, x_BTNH: jax.Array) -> jax.Array:
      if c.qk_norm == 'head':
        return Norm(c, 'rmsnorm', 'head_dim', name=name)(x_BTNH)
      return Norm(c, 'rmsnorm', 'all_heads', name=name)(
        x_BTNH.reshape(*x_BTNH.shape[:2], -1)
      ).reshape(x_BTNH.shape)

    if self.has_variable('params', QKV):
      q_BTNH, k_BTKH, v_BTKH = jnp.split(heads(QKV, N + 2 * K, 'heads'), (N, N + K), axis=2)
    else:
      q_BTNH, k_BTKH, v_BTKH = (
        heads('q', N, 'heads'),
        heads('k', K, 'kv_heads'),
        heads('v', K, 'kv_heads'),
      )
    if c.qk_norm != 'none':
      q_BTNH, k_BTKH = normed('q_norm', q_BTNH), normed('k_norm', k_BTKH)
    if c.position == 'rope':
      q_BTNH, k_BTKH = rope.rotate(q_BTNH, tables), rope.rotate(k_BTKH, tables)
    scale = c.attention_scale or H**-0.5
    windows = [c.window if name == 'window' else 0 for name in layer_kinds(c)]
    if cache is None and self.is_mutable_collection('inside'):  # Only lm/infer/inside.py reads it.
      weights_BNTS = attention_weights(q_BTNH, k_BTKH, mask_BTS, scale, c.attention_softcap)
      self.sow('inside', 'weights', weights_BNTS)
    if cache is not None:
      is_known = isinstance(kind, int) or len(windows) == 1
      window = (
        windows[kind if isinstance(kind, int) else 0] if is_known else jnp.asarray(windows)[kind]
      )
      cache = cache.append(layer, k_BTKH, v_BTKH)
      out_BTNH = cache.attend(layer, q_BTNH, scale, c.attention_softcap, window)
    elif c.attention != 'reference' and not self.is_initializing():
      run = functools.partial(
        kernels.attend,
        c.attention,
        q_BTNH,
        k_BTKH,
        v_BTKH,
        segment_ids_BT,
        scale,
        c.attention_softcap,
      )
      branches = [functools.partial(run, window) for window in windows]
      out_BTNH = jax.lax.switch(kind, branches) if len(branches) > 1 else branches[0]()
    else:
      out_BTNH = attend(q_BTNH, k_BTKH, v_BTKH, mask_BTS, scale, c.attention_softcap, causal=True)
    bias, std = c.attention_bias == 'all', residual_std(c)
    o = Linear(
      c, (N, H, D), ('heads', 'head_dim', 'embed'), contract=2, bias=bias, std=std, name='o'
    )
    return o(out_BTNH), cache


class Block(nn.Module):
  """One layer, in the form that nn.scan loops over; its carry is (x_BTD, cache).

  Each of its two parts reads a norm of the residual stream (GPT-2, Llama), or has its result
  normalized before it is added (OLMo 2), or both (Gemma 2).
  """

  config: FrozenConfigDict

  @nn.compact
  def __call__(self, carry, layer, kind, tables, masks, segment_ids_BT):
    """Returns the carry after this layer.

    Args:
      layer: number of the layer, an int if layers are apart.
      kind: the layer's index into `tables` and `masks`, which have one entry for each type of layer
        that the model has; an int if layers are apart.
      masks: None with a cache, which makes its own masks.
    """
    c = self.config
    x_BTD, cache = carry
    x_BTD = constrain(x_BTD, 'batch', None if cache is not None else 'length', None)
    if isinstance(kind, int):
      tables, mask_BTS = tables[kind], masks[kind]
    elif len(masks) > 1:
      tables, mask_BTS = jax.tree.map(
        lambda *x: jax.lax.select_n(kind, *x), *zip(tables, masks, strict=True)
      )
    else:
      (tables,), (mask_BTS,) = tables, masks

    def before(name: str, x_BTD: jax.Array) -> jax.Array:
      return x_BTD if c.norm_position == 'post' else Norm(c, c.norm, name=f'{name}_norm')(x_BTD)

    def after(name: str, x_BTD: jax.Array) -> jax.Array:
      return x_BTD if c.norm_position == 'pre' else Norm(c, c.norm, name=f'{name}_post_norm')(x_BTD)

    attention = Attention(c, name='attention')
    out_BTD, cache = attention(
      before('attention', x_BTD), tables, mask_BTS, segment_ids_BT, cache, layer, kind
    )
    x_BTD = x_BTD + after('attention', out_BTD)
    normed_BTD = before('mlp', x_BTD)
    if c.num_experts:
      real_BT = (segment_ids_BT > 0).astype(jnp.float32)
      out_BTD = Experts(c, name='mlp')(normed_BTD, real_BT, whole_rows=cache is not None)
    else:
      out_BTD = Mlp(c, name='mlp')(normed_BTD, blocks=1 if cache is not None else c.mlp_blocks)
    x_BTD = x_BTD + after('mlp', out_BTD)
    self.sow('finite', 'layers', jnp.isfinite(x_BTD).all())  # Only lm/train/diagnose.py reads it.
    self.sow('inside', 'residual', x_BTD)  # Only lm/infer/inside.py reads it.
    return (x_BTD, cache), None


class Transformer(nn.Module):
  """A decoder-only Transformer.

  The parameters of the layers are stacked along a leading axis L, whether they are scanned or not.
  For inference they may also be apart (lm/model/apart.py).
  """

  config: FrozenConfigDict  # The `model` part of a config, checked by `check`.

  def setup(self):
    c = self.config
    init, dtype = nn.initializers.normal(c.init_std), jnp.dtype(c.param_dtype)
    table = nn.with_logical_partitioning(init, ('vocab', 'embed'))
    self.embedding = self.param('embedding', table, (c.vocab_size, c.embed_dim), dtype)
    if c.position == 'learned':
      positions = nn.with_logical_partitioning(init, ('positions', 'embed'))
      self.position_table = self.param('position_table', positions, (c.max_len, c.embed_dim), dtype)
    if not c.tie_embeddings and not self.has_variable('params', HEAD_TILED):
      self.head = self.param('head', table, (c.vocab_size, c.embed_dim), dtype)
    # It is made last, so that the other parameters draw the same random numbers without it.
    if 'scalar' in c.heads:
      vector = nn.with_logical_partitioning(heads.scalar_init(c.embed_dim), ('embed',))
      self.scalar_head = self.param(heads.SCALAR, vector, (c.embed_dim,), dtype)

  @nn.compact
  def __call__(
    self,
    tokens_BT: jax.Array,
    positions_BT: jax.Array | None = None,
    segment_ids_BT: jax.Array | None = None,
    cache: Cache | None = None,
    num_tokens_B: jax.Array | None = None,
    noise_BTD: jax.Array | None = None,
  ) -> tuple[jax.Array, Cache | None]:
    """Returns the final hidden states of tokens; `heads.unembed` turns those needed into logits.

    Args:
      tokens_BT: int32 ids.
      positions_BT: place of each token in its document; by default 0, 1, 2, ... Not with a cache,
        which knows it.
      segment_ids_BT: document of each token in its row; tokens see their own document only. Not
        with a cache.
      cache: what each row has read before; the tokens are appended behind it.
      num_tokens_B: with a cache, how many of each row's tokens are real (the rest, at its end, is
        padding); default T.
      noise_BTD: what is added to the embeddings of the tokens, before those of positions.

    Returns:
      (hidden_BTD, cache): the hidden states after the final norm, and the cache with the tokens
      appended (or None).
    """
    c = self.config
    B, T = tokens_BT.shape
    # There is one rotation and one mask for each type of layer; a layer picks its own by index.
    kinds = layer_kinds(c)
    masks = [None] * len(kinds)
    if cache is not None:
      assert positions_BT is None and segment_ids_BT is None, 'a cache knows its own positions'
      positions_BT = cache.positions(T)
    else:
      index_1T = jnp.arange(T)[None, :]
      if positions_BT is None:
        positions_BT = jnp.broadcast_to(index_1T, (B, T))
      distance_BTS = index_1T[:, :, None] - index_1T[:, None, :]
      mask_BTS = (distance_BTS >= 0) & jnp.ones((B, 1, 1), bool)
      if segment_ids_BT is not None:
        mask_BTS &= segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
      masks = [
        mask_BTS & (distance_BTS < c.window) if kind == 'window' else mask_BTS for kind in kinds
      ]
    if segment_ids_BT is None:
      segment_ids_BT = jnp.ones((B, T), jnp.int32)
    tables = [rope.tables(c, kind, positions_BT) if c.position == 'rope' else () for kind in kinds]

    x_BTD = self._embed(tokens_BT, positions_BT, noise_BTD)
    x_BTD, cache = self._apply_layers((x_BTD, cache), tables, masks, segment_ids_BT)
    if cache is not None:
      added_B = jnp.full(B, T, jnp.int32) if num_tokens_B is None else num_tokens_B
      cache = cache.advance(added_B)
    return Norm(c, c.norm, name='final_norm')(x_BTD), cache

  def _embed(
    self, tokens_BT: jax.Array, positions_BT: jax.Array, noise_BTD: jax.Array | None
  ) -> jax.Array:
    """Returns what the first layer reads: the embeddings of tokens and, if learned, of places."""
    c = self.config
    x_BTD = lookup(self.embedding, tokens_BT, ('vocab', 'embed'), jnp.dtype(c.dtype))
    if noise_BTD is not None:
      x_BTD = x_BTD + noise_BTD.astype(x_BTD.dtype)
    if c.scale_embeddings:
      x_BTD = x_BTD * jnp.asarray(c.embed_dim**0.5, x_BTD.dtype)
    if c.position == 'learned':
      x_BTD = x_BTD + lookup(self.position_table, positions_BT, ('positions', 'embed'), x_BTD.dtype)
    return x_BTD

  def _apply_layers(
    self,
    carry: tuple[jax.Array, Cache | None],
    tables: Sequence[Any],
    masks: Sequence[jax.Array | None],
    segment_ids_BT: jax.Array,
  ) -> tuple[jax.Array, Cache | None]:
    """Returns the carry of `Block` after all layers, which are scanned, unrolled or apart."""
    c = self.config
    kind_L = [layer_kinds(c).index(kind) for kind in layer_types(c)]
    if self.has_variable('params', LAYER.format(0)):
      for layer, kind in enumerate(kind_L):
        block = Block(c, name=LAYER.format(layer))
        carry, _ = block(carry, layer, kind, tables, masks, segment_ids_BT)
      return carry
    block = Block
    if c.remat != 'none':
      block = nn.remat(Block, policy=REMAT[c.remat], prevent_cse=not c.scan_layers)
    in_loop = c.scan_layers or self.is_initializing()  # drawing compiles faster in a loop
    layers = nn.scan(
      block,
      variable_axes={'params': 0, 'finite': 0, 'inside': 0, 'losses': 0},
      split_rngs={'params': True},
      in_axes=(0, 0, *[nn.broadcast] * 3),
      length=c.num_layers,
      unroll=1 if in_loop else c.num_layers,
      metadata_params={nn.PARTITION_NAME: 'layers'},
    )(c, name='layers')
    kind_L = jnp.asarray(kind_L, jnp.int32)
    carry, _ = layers(carry, jnp.arange(c.num_layers), kind_L, tables, masks, segment_ids_BT)
    return carry


def check(config: FrozenConfigDict) -> None:
  """Raises UserError, naming the field, where a model config holds a value that is not allowed."""
  c = config
  choices = {
    'activation': ACTIVATIONS,
    'norm': NORMS,
    'position': POSITIONS,
    'remat': REMAT,
    'qk_norm': QK_NORMS,
    'attention_bias': BIASES,
    'norm_position': NORM_POSITIONS,
    'rope_scaling': rope.SCALINGS,
  }
  for field, allowed in choices.items():
    if c[field] not in allowed:
      raise unknown(f'config.model.{field}', c[field], allowed)
  heads.check(c.heads)
  adapters.check(c)
  for kind in c.layer_types:
    if kind not in LAYER_TYPES:
      raise unknown('config.model.layer_types', kind, LAYER_TYPES)

  def require(condition: bool, field: str, allowed: str) -> None:
    if not condition:
      raise UserError(field=f'config.model.{field}', value=c[field], allowed=allowed)

  require(len(c.layer_types) > 0, 'layer_types', 'at least one type')
  require(
    'window' not in c.layer_types or c.window > 0,
    'window',
    'at least 1, for layers of type window',
  )
  require(
    c.num_heads % c.num_kv_heads == 0, 'num_kv_heads', f'a divisor of num_heads, {c.num_heads}'
  )
  require(
    c.position != 'rope' or c.head_dim % 2 == 0, 'head_dim', 'an even number, for rotary positions'
  )
  require(
    c.position == 'rope' or 'nope' not in c.layer_types,
    'layer_types',
    'types but nope, which takes rotary positions away',
  )
  require(c.rope_scaling == 'none' or c.rope_factor >= 1, 'rope_factor', 'at least 1')
  require(
    c.rope_scaling != 'llama3' or c.rope_original_len > 0,
    'rope_original_len',
    'above 0, for llama3 scaling',
  )
  require(
    c.rope_scaling != 'llama3' or c.rope_high_freq_factor > c.rope_low_freq_factor,
    'rope_high_freq_factor',
    f'above rope_low_freq_factor, {c.rope_low_freq_factor}',
  )
  require(c.num_experts >= 0, 'num_experts', 'at least 0')
  require(
    not c.num_experts or 1 <= c.experts_per_token <= c.num_experts,
    'experts_per_token',
    f'from 1 to num_experts, {c.num_experts}',
  )
  require(not (c.num_experts and c.mlp_bias), 'mlp_bias', 'False, since experts have no biases')
  require(c.mlp_blocks >= 1, 'mlp_blocks', 'at least 1')
  require(
    c.mlp_blocks == 1 or not c.num_experts, 'mlp_blocks', '1, since experts are computed at once'
  )


def sized(config: ConfigDict, vocab_size: int) -> FrozenConfigDict:
  """Returns a checked config.model with the tokenizer's vocabulary size filled in.

  Raises:
    UserError: the config asks for another size.
  """
  if config.vocab_size not in (0, vocab_size):
    raise UserError(
      field='config.model.vocab_size',
      value=config.vocab_size,
      allowed=f'{vocab_size}, the size of the tokenizer, or 0, which stands for it',
    )
  sized_config = FrozenConfigDict(config.to_dict() | {'vocab_size': vocab_size})
  check(sized_config)
  return sized_config


def init(config: FrozenConfigDict, rng: jax.Array) -> Any:
  """Returns fresh parameters: a tree of arrays boxed with the names of their axes.

  `flax.linen.unbox` removes the boxes.
  """
  boxed = Transformer(config).init(rng, jnp.zeros((1, 1), jnp.int32))['params']
  return adapters.add(boxed, config, jax.random.fold_in(rng, 1)) if config.lora_rank else boxed


def abstract(config: FrozenConfigDict) -> Any:
  """Returns the tree of `init` with shapes in the place of arrays; each config is traced once."""
  return _abstract(config, jax.sharding.get_abstract_mesh())


@functools.lru_cache(maxsize=64)
def _abstract(config: FrozenConfigDict, mesh: jax.sharding.AbstractMesh) -> Any:
  """Traces `init` on `mesh`, which is the one that is set."""
  return jax.eval_shape(lambda: init(config, jax.random.key(0)))


def init_params(config: FrozenConfigDict, rng: jax.Array) -> Any:
  """Returns fresh parameters: a tree of plain arrays."""
  return nn.unbox(init(config, rng))
