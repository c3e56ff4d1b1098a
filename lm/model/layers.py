"""The parts of every layer: norms, matrix products, dense and routed feed-forward blocks.

The axes are named in lm/model/transformer.py.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from ml_collections import FrozenConfigDict

from lm.base.errors import UserError
from lm.model import adapters, tiles
from lm.model.apart import GATE_UP, TILED, TRANSPOSED
from lm.model.param_rules import matrix_sides
from lm.model.products import matrix_product, product_of_transposed
from lm.parallel.sharding import BATCH, RULES, batch_ways, spec

ACTIVATIONS = {
  'swiglu': nn.silu,
  'geglu': lambda x: nn.gelu(x, approximate=True),
  'gelu': lambda x: nn.gelu(x, approximate=True),
  'relu2': lambda x: jnp.square(nn.relu(x)),
}
GATED = ('swiglu', 'geglu')
NORMS = ('rmsnorm', 'layernorm')


def lookup(
  table_VD: jax.Array, ids_BT: jax.Array, axes: tuple[str, str], dtype: jnp.dtype
) -> jax.Array:
  """Returns the rows of a table that ids select, [B, T, D], over the mesh.

  A device looks up its columns for all rows of its neighbours along fsdp, and receives from them
  the other columns of its own rows, so that only rows are sent. Without this, the compiler may sum
  the whole table's gradient on every device.

  Args:
    axes: the names of the table's axes.
  """
  mesh = jax.sharding.get_abstract_mesh()
  B, T = ids_BT.shape
  if mesh.empty or mesh.size == 1 or B % batch_ways(mesh) or T % mesh.shape['context']:
    return table_VD[ids_BT].astype(dtype)
  split = RULES[axes[0]]  # The mesh axis that the rows of the table are sharded over, or None.

  def local(table_VD, ids_BT):
    table_VD = jax.lax.pcast(table_VD, tuple({*BATCH, 'context'} - {'fsdp'}), to='varying')
    ids_NBT = jax.lax.all_gather(ids_BT, 'fsdp')
    if split:
      ids_NBT -= jax.lax.axis_index(split) * len(table_VD)
    here_NBT = (ids_NBT >= 0) & (ids_NBT < len(table_VD))
    x_NBTD = jnp.where(here_NBT[..., None], table_VD[jnp.where(here_NBT, ids_NBT, 0)], 0).astype(
      dtype
    )
    x_BTD = jax.lax.all_to_all(x_NBTD, 'fsdp', 0, 3, tiled=True)[0]
    return jax.lax.psum(x_BTD, split) if split else x_BTD

  rows = PartitionSpec(BATCH, 'context')
  return jax.shard_map(local, in_specs=(spec(axes), rows), out_specs=rows)(table_VD, ids_BT)


class Norm(nn.Module):
  """RMSNorm (arXiv 1910.07467) or LayerNorm over the last axis, computed in float32."""

  config: FrozenConfigDict
  kind: str
  axis: str = 'embed'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config

    def vector(name, init):
      return self.param(
        name,
        nn.with_logical_partitioning(init, (self.axis,)),
        x.shape[-1:],
        jnp.dtype(c.param_dtype),
      )

    scale = vector('scale', nn.initializers.zeros if c.norm_offset else nn.initializers.ones)
    bias = vector('bias', nn.initializers.zeros) if self.kind == 'layernorm' else None

    @jax.checkpoint  # The backward pass keeps only x.
    def norm(x, scale, bias):
      y = x.astype(jnp.float32)
      if bias is not None:
        y = y - y.mean(-1, keepdims=True)
      y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + c.norm_eps)
      scale = scale.astype(jnp.float32) + float(c.norm_offset)
      y = y * jnp.expand_dims(scale, range(y.ndim - 1))
      if bias is not None:
        y = y + jnp.expand_dims(bias.astype(jnp.float32), range(y.ndim - 1))
      return y.astype(x.dtype)

    return norm(x, scale, bias)


class Linear(nn.Module):
  """A matrix product with a weight whose axes are named, and an optional bias.

  The product sums over the leading axes of the weight; the bias has its other axes.
  """

  config: FrozenConfigDict
  shape: tuple[int, ...]
  axes: tuple[str, ...]
  # The number of trailing axes of x, and of leading axes of the weight, that are summed over.
  contract: int = 1
  bias: bool = False
  std: float = 0.02
  # None means the device's default, for which TPUs round float32 factors to bfloat16.
  precision: jax.lax.Precision | None = None

  def setup(self):
    c, n = self.config, self.contract
    # How the matrix is laid out for inference (lm/model/apart.py), if it is.
    forms = [form for form in (TRANSPOSED, TILED) if self.has_variable('params', form)]
    self.form = forms[0] if forms else None
    if self.form:
      self.w = self.get_variable('params', self.form)
    else:
      init = nn.with_logical_partitioning(nn.initializers.normal(self.std), self.axes)
      self.w = self.param('kernel', init, self.shape, jnp.dtype(c.param_dtype))
    if self.bias:
      init = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[n:])
      self.b = self.param('bias', init, self.shape[n:], jnp.dtype(c.param_dtype))
    # Int8 weights (lm/model/quantize.py) come with a scale.
    if self.has_variable('params', 'kernel_scale'):
      self.scale = self.get_variable('params', 'kernel_scale')
    self.adapter = None
    if self.has_variable('params', adapters.A):
      self.adapter = [self.get_variable('params', name) for name in (adapters.A, adapters.B)]

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.function()(x)

  def function(self) -> Callable[[jax.Array], jax.Array]:
    """Returns what this module computes, as a function that jax may transform."""
    w, bias, form = self.w, self.b if self.bias else None, self.form
    scale = self.scale if self.has_variable('params', 'kernel_scale') else None

    def product(x, w, contract):
      w = w.astype(x.dtype)
      if self.config.remat == 'dots':  # It keeps the results of products, and must see them.
        return jnp.tensordot(x, w, contract, precision=self.precision)
      return matrix_product(x, w, contract, self.precision)

    def apply(x: jax.Array) -> jax.Array:
      if form:
        x_D = x.reshape(*x.shape[: x.ndim - self.contract], -1)
        outputs = self.shape[self.contract :]
        if form == TILED:
          y = tiles.product(x_D, w, math.prod(outputs))
        else:
          y = product_of_transposed(x_D, w)
        y = y.reshape(*y.shape[:-1], *outputs)
      else:
        y = product(x, w, self.contract)
      if scale is not None:
        y = (y.astype(jnp.float32) * jnp.expand_dims(scale, range(y.ndim - scale.ndim))).astype(
          x.dtype
        )
      if self.adapter:
        a, b = self.adapter
        y += adapters.scale(self.config) * product(product(x, a, self.contract), b, 1)
      if bias is not None:
        y = y + jnp.expand_dims(bias.astype(x.dtype), range(y.ndim - bias.ndim))
      return y

    return apply

  def weights(self) -> list[jax.Array]:
    """Returns the weight, and the bias if there is one, in the dtype of activations.

    This is for products that are computed elsewhere.
    """
    w = self.w
    if self.has_variable('params', 'kernel_scale'):
      w = w.astype(jnp.float32) * jnp.expand_dims(self.scale, matrix_sides(self.axes)[0])
    if self.adapter:
      w = adapters.merged(w, *self.adapter, adapters.scale(self.config))
    return [x.astype(jnp.dtype(self.config.dtype)) for x in (w, *([self.b] if self.bias else []))]


def residual_std(config: FrozenConfigDict) -> float:
  """Returns the init std of output projections, init_std / sqrt(2 L).

  With it, depth does not grow the variance of the residual stream (GPT-2).
  """
  return config.init_std / (2 * config.num_layers) ** 0.5


class Mlp(nn.Module):
  """A feed-forward block: gated (SwiGLU, GeGLU, arXiv 2002.05202) or plain (GELU, ReLU^2).

  It can be computed in blocks of hidden values, one after the other. The values, the weights that
  are gathered for them and the gradients that are summed over devices then exist for one block at a
  time, in the forward and the backward pass.
  """

  config: FrozenConfigDict

  @nn.compact
  def __call__(self, x_BTD: jax.Array, blocks: int = 1) -> jax.Array:
    c = self.config
    D, F = c.embed_dim, c.mlp_dim
    act = ACTIVATIONS[c.activation]

    def up(name, size=F):
      return Linear(c, (D, size), ('embed', 'mlp'), bias=c.mlp_bias, std=c.init_std, name=name)

    if self.has_variable('params', GATE_UP):
      gate_BTF, up_BTF = jnp.split(up(GATE_UP, 2 * F)(x_BTD), 2, axis=-1)
      down = Linear(c, (F, D), ('mlp', 'embed'), bias=c.mlp_bias, std=residual_std(c), name='down')
      return down(act(gate_BTF) * up_BTF)
    ups = [up(name) for name in (('gate', 'up') if c.activation in GATED else ('up',))]
    down = Linear(c, (F, D), ('mlp', 'embed'), bias=c.mlp_bias, std=residual_std(c), name='down')

    def hidden(first, *second):
      return act(first) * second[0] if second else act(first)

    if blocks == 1:
      product = down.function()
      # The backward pass keeps only the inputs of the activation. It needs the hidden values, but
      # not the product, so that is not computed again.
      return jax.checkpoint(lambda *x: product(hidden(*x)))(*(linear(x_BTD) for linear in ups))

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add(y_BTD, block):
      ups, down_FD = block
      h_BTF = hidden(
        *(x_BTD @ w + jnp.expand_dims(sum(b), (0, 1)) if b else x_BTD @ w for w, *b in ups)
      )
      return y_BTD + (h_BTF @ down_FD).astype(jnp.float32), None

    down_FD, *bias = down.weights()
    parts = (
      [[_cut(w, blocks, w.ndim - 1) for w in linear.weights()] for linear in ups],
      _cut(down_FD, blocks, 0),
    )
    y_BTD = jax.lax.scan(add, jnp.zeros(x_BTD.shape, jnp.float32), parts)[0].astype(x_BTD.dtype)
    return y_BTD + jnp.expand_dims(bias[0], (0, 1)) if bias else y_BTD


def _cut(w: jax.Array, n: int, axis: int) -> jax.Array:
  """Returns [n, ...]: `w` cut into n parts along an axis that is sharded over the axis tensor.

  Each part is sharded over the mesh in the same way.
  """
  mesh = jax.sharding.get_abstract_mesh()
  ways = 1 if mesh.empty else mesh.shape['tensor']
  before, size, after = w.shape[:axis], w.shape[axis], w.shape[axis + 1 :]
  if size % (ways * n):
    raise UserError(
      field='config.model.mlp_blocks',
      value=n,
      allowed=f'numbers that times config.mesh.tensor, {ways}, divide mlp_dim, {size}',
    )
  parts = jnp.moveaxis(w.reshape(*before, ways, n, size // (ways * n), *after), axis + 1, 0)
  return parts.reshape(n, *before, size // n, *after)


class Experts(nn.Module):
  """Routed feed-forward blocks: a token goes to its `experts_per_token` most probable experts.

  No token is dropped.

  Router and softmax are float32, at full precision on every device.
  """

  config: FrozenConfigDict

  @nn.compact
  def __call__(self, x_BTD: jax.Array, real_BT: jax.Array, whole_rows: bool = False) -> jax.Array:
    """Returns [B, T, D], and sows the `balance` of each row, [B], in the collection 'losses'.

    Args:
      real_BT: 0 on padding, which does not count in the balance.
      whole_rows: rows are not split over the mesh along their length.
    """
    c = self.config
    D, E, F = c.embed_dim, c.num_experts, c.mlp_dim
    router = Linear(
      c,
      (D, E),
      ('embed', 'router'),
      std=c.init_std,
      precision=jax.lax.Precision.HIGHEST,
      name='router',
    )
    p_BTE = jax.nn.softmax(router(x_BTD.astype(jnp.float32)))
    weight_BTA, expert_BTA = jax.lax.top_k(p_BTE, c.experts_per_token)
    if c.normalize_experts:
      weight_BTA = weight_BTA / weight_BTA.sum(-1, keepdims=True)
    self.sow('losses', 'balance', balance(p_BTE, expert_BTA, real_BT))

    up, down = ((D, F), ('embed', 'mlp'), c.init_std), ((F, D), ('mlp', 'embed'), residual_std(c))

    def kernel(name, shape, axes, std):
      return Linear(c, (E, *shape), ('expert', *axes), std=std, name=name).weights()[0]

    kernels = {'up': kernel('up', *up), 'down': kernel('down', *down)}
    if c.activation in GATED:
      kernels['gate'] = kernel('gate', *up)
    run = dispatch
    if jax.sharding.get_abstract_mesh().size > 1 and not self.is_initializing():
      run = functools.partial(_dispatch_over_mesh, whole_rows=whole_rows)
    return run(c.activation, x_BTD, weight_BTA, expert_BTA, kernels)


def _dispatch_over_mesh(
  activation: str,
  x_BTD: jax.Array,
  weight_BTA: jax.Array,
  expert_BTA: jax.Array,
  kernels: dict[str, jax.Array],
  whole_rows: bool,
) -> jax.Array:
  """Runs `dispatch` with the tokens and the kernels spread over the mesh.

  Where the mesh does not divide the rows or their length, as in decoding, tokens of weight 0 are
  added and removed again.
  """
  mesh, (B, T) = jax.sharding.get_abstract_mesh(), x_BTD.shape[:2]
  missing = (0, -B % batch_ways(mesh)), (0, 0 if whole_rows else -T % mesh.shape['context']), (0, 0)
  token, place = (
    PartitionSpec(BATCH, None if whole_rows else 'context'),
    PartitionSpec('expert', None, 'tensor'),
  )
  places = {
    name: PartitionSpec('expert', 'tensor') if name == 'down' else place for name in kernels
  }
  run = jax.shard_map(
    functools.partial(dispatch, activation, spread=True),
    in_specs=(token, token, token, places),
    out_specs=token,
  )
  return run(*(jnp.pad(x, missing) for x in (x_BTD, weight_BTA, expert_BTA)), kernels)[:B, :T]


def dispatch(
  activation: str,
  x_BTD: jax.Array,
  weight_BTA: jax.Array,
  expert_BTA: jax.Array,
  kernels: dict[str, jax.Array],
  spread: bool = False,
) -> jax.Array:
  """Returns the weighted sum of the outputs of each token's experts, [B, T, D].

  The tokens are sorted by expert and multiplied in groups of unequal size, as in MegaBlocks (arXiv
  2211.15841): the work is that of the experts chosen, whatever the load. With `spread` (under
  shard_map) the kernels are this device's experts: the tokens of all devices along the mesh axis
  `expert` are gathered, and each gets its own back, summed over them.
  """
  if spread:
    x_BTD, weight_BTA, expert_BTA = jax.lax.all_gather(
      (x_BTD, weight_BTA, expert_BTA), 'expert', tiled=True
    )
  B, T, D = x_BTD.shape
  here = kernels['up'].shape[0]
  expert_X = expert_BTA.reshape(-1)  # X counts the B * T * A choices.
  if spread:
    expert_X -= jax.lax.axis_index('expert') * here
  # The choices of experts on other devices are sorted to the end.
  expert_X = jnp.where((expert_X >= 0) & (expert_X < here), expert_X, here)
  order_X = jnp.argsort(expert_X, stable=True)
  token_X = order_X // expert_BTA.shape[-1]
  sizes_E = jnp.bincount(expert_X, length=here).astype(jnp.int32)
  act = jax.checkpoint(ACTIVATIONS[activation])
  x_XD = x_BTD.reshape(-1, D)[token_X]

  def up(name):
    return jax.lax.ragged_dot(x_XD, kernels[name], sizes_E)

  h_XF = act(up('gate')) * up('up') if activation in GATED else act(up('up'))
  y_XD = jax.lax.ragged_dot(h_XF, kernels['down'], sizes_E)
  weight_X1 = weight_BTA.reshape(-1)[order_X, None].astype(y_XD.dtype)
  y_XD = jnp.where(expert_X[order_X, None] < here, y_XD * weight_X1, 0)
  y_BTD = jnp.zeros((B * T, D), y_XD.dtype).at[token_X].add(y_XD).reshape(B, T, D)
  if spread:
    y_BTD = jax.lax.psum_scatter(jax.lax.psum(y_BTD, 'tensor'), 'expert', tiled=True)
  return y_BTD


def balance(p_BTE: jax.Array, expert_BTA: jax.Array, real_BT: jax.Array) -> jax.Array:
  """Returns how unevenly each row uses its experts, float32 [B].

  The value is 1 when the experts are used evenly, and up to E / A when they are always the same.

  E * sum over experts of (share of choices) * (mean probability), the loss of Switch (arXiv
  2101.03961, section 2.2) taken over each row alone (DeepSeek-V3, arXiv 2412.19437, section 2.1.2),
  so that it adds up over microbatches and devices.
  """
  A, E = expert_BTA.shape[-1], p_BTE.shape[-1]
  chosen_BTE = jax.nn.one_hot(expert_BTA, E, dtype=jnp.float32).sum(2) / A
  inverse_B1 = 1 / jnp.maximum(real_BT.sum(1, keepdims=True), 1)
  share_BE, mean_BE = (
    jnp.einsum('bte,bt->be', x, real_BT) * inverse_B1 for x in (chosen_BTE, p_BTE)
  )
  return E * (share_BE * mean_BE).sum(-1)
