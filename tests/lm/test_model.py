"""The Transformer against NumPy, through its gradients, and with its cache against itself
without.
"""

import functools

import chex
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import struct
from ml_collections import FrozenConfigDict

from lm.base.errors import UserError
from lm.model import apart, heads, layers, transformer
from lm.model.attention.reference import attend
from lm.model.cache import init_cache, visible
from lm.parallel.sharding import leaf_name

TOKENS = np.random.default_rng(0).integers(23, size=(3, 11), dtype=np.int32)
VARIANTS = {
  'llama': {'activation': 'swiglu', 'tie_embeddings': False},
  'qwen': {'qk_norm': 'head', 'activation': 'geglu', 'rope_theta': 50.0, 'num_kv_heads': 1},
  'gpt2': {
    'norm': 'layernorm',
    'position': 'learned',
    'activation': 'gelu',
    'attention_bias': 'all',
    'mlp_bias': True,
    'num_kv_heads': 4,
  },
  'gemma': {
    'layer_types': ('window', 'full'),
    'window': 3,
    'norm_position': 'both',
    'norm_offset': True,
    'scale_embeddings': True,
    'attention_scale': 0.3,
    'attention_softcap': 2.0,
    'logit_softcap': 4.0,
    'rope_theta_window': 30.0,
    'rope_scaling': 'linear',
    'rope_factor': 8.0,
    'qk_norm': 'head',
  },
  'olmo': {
    'norm_position': 'post',
    'qk_norm': 'projection',
    'layer_types': ('full', 'nope', 'window'),
    'window': 4,
    'num_layers': 3,
    'attention_bias': 'qkv',
  },
  'llama3': {
    'rope_scaling': 'llama3',
    'rope_factor': 4.0,
    'rope_original_len': 20,
    'rope_theta': 30.0,
    'head_dim': 12,
  },
  'mixtral': {'num_experts': 5, 'experts_per_token': 2, 'layer_types': ('window',), 'window': 5},
  'unnormalized experts': {
    'num_experts': 4,
    'experts_per_token': 3,
    'normalize_experts': False,
    'activation': 'gelu',
  },
  'relu2': {
    'activation': 'relu2',
    'mlp_bias': True,
    'attention_bias': 'all',
    'norm_eps': 0.1,
    'head_dim': 6,
  },
}


@pytest.mark.slow
@pytest.mark.parametrize('name', VARIANTS)
def test_equals_numpy(tiny, forward, name):
  config, params = tiny(**VARIANTS[name])
  segments = np.repeat([[1] * 4 + [2] * 7], 3, axis=0).astype(np.int32)
  positions = np.repeat([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6]], 3, axis=0).astype(np.int32)
  plain = forward(config, params, TOKENS)
  packed = forward(config, params, TOKENS, positions_BT=positions, segment_ids_BT=segments)
  for row in range(3):
    expected = reference.logits(config, params, TOKENS[row])
    np.testing.assert_allclose(plain[row], expected, rtol=2e-4, atol=2e-4)
    expected = reference.logits(config, params, TOKENS[row], positions[row], segments[row])
    np.testing.assert_allclose(packed[row], expected, rtol=2e-4, atol=2e-4)


@pytest.mark.slow
def test_long_rows_are_attended_in_blocks_without_a_seam(tiny, forward):
  config, params = tiny(max_len=200)
  tokens = np.random.default_rng(1).integers(23, size=(1, 150), dtype=np.int32)
  np.testing.assert_allclose(
    forward(config, params, tokens)[0],
    reference.logits(config, params, tokens[0]),
    rtol=5e-4,
    atol=5e-4,
  )


def influence(config, params, tokens, **options):
  """[T, S]: whether the logits at t depend on the embedding of the token at s. One row, no two
  tokens alike.
  """

  def logits(table):
    hidden, _ = transformer.Transformer(config).apply(
      {'params': params | {'embedding': table}}, tokens, **options
    )
    return heads.unembed(params, config, hidden)[0].sum(-1)

  jacobian_TVD = jax.jit(jax.jacrev(logits))(jnp.asarray(params['embedding']))
  return np.asarray(jnp.abs(jacobian_TVD).sum(-1))[:, tokens[0]]


@pytest.mark.slow
def test_is_causal(tiny):
  config, params = tiny(**VARIANTS['llama'])
  seen = influence(config, params, np.arange(8, dtype=np.int32)[None])
  np.testing.assert_array_equal(seen > 0, np.tril(np.ones((8, 8), bool)))


@pytest.mark.slow
def test_documents_do_not_see_each_other(tiny, forward):
  config, params = tiny(**VARIANTS['llama'])
  tokens = np.arange(9, dtype=np.int32)[None]
  segments = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 2]], np.int32)
  positions = np.array([[0, 1, 2, 3, 0, 1, 2, 3, 4]], np.int32)
  options = {'positions_BT': positions, 'segment_ids_BT': segments}
  seen = influence(config, params, tokens, **options)
  np.testing.assert_array_equal(seen > 0, np.tril(segments[0][:, None] == segments[0]))
  together = forward(config, params, tokens, **options)
  alone = [
    forward(config, params, tokens)[:, :4],
    forward(config, params, np.roll(tokens, 5, axis=1))[:, :5],
  ]
  np.testing.assert_allclose(together, np.concatenate(alone, axis=1), atol=1e-5)


@functools.cache
def loss_and_grads(config):
  """The compiled (params) -> (loss, gradients) of three rows."""

  def loss(params):
    hidden, _ = transformer.Transformer(config).apply({'params': params}, jnp.asarray(TOKENS))
    return jnp.square(heads.unembed(params, config, hidden)).mean()

  shapes = jax.eval_shape(lambda: transformer.init_params(config, jax.random.key(0)))
  return jax.jit(jax.value_and_grad(loss)).lower(shapes).compile()


@pytest.mark.slow
def test_scan_changes_nothing_but_the_program(tiny):
  (scanned, params), (unrolled, other) = tiny(scan_layers=True), tiny(scan_layers=False)
  chex.assert_trees_all_equal(params, other)
  a, b = loss_and_grads(scanned), loss_and_grads(unrolled)
  chex.assert_trees_all_close(a(params), b(params), rtol=1e-4, atol=1e-6)
  # the scatter into the embedding's gradient may be a loop in both
  assert a.as_text().count(' while(') > b.as_text().count(' while(')


@pytest.mark.slow
@pytest.mark.parametrize('scan_layers', [True, False])
def test_remat_recomputes_and_changes_no_gradient(tiny, scan_layers):
  compiled, results, exps, dots = {}, {}, {}, {}
  for remat in transformer.REMAT:
    config, params = tiny(remat=remat, scan_layers=scan_layers)
    compiled[remat] = loss_and_grads(config)
    results[remat] = compiled[remat](params)
    text = compiled[remat].as_text()
    exps[remat], dots[remat] = text.count(' exponential('), text.count(' dot(')
  for remat in ('full', 'dots'):
    chex.assert_trees_all_close(results[remat], results['none'], rtol=1e-4, atol=1e-6)
  # softmax and SiLU are computed again
  assert exps['full'] > exps['none'] and exps['dots'] > exps['none']
  assert dots['full'] > dots['dots'] >= dots['none']
  if scan_layers:
    used = {remat: c.memory_analysis().temp_size_in_bytes for remat, c in compiled.items()}
    assert used['full'] < used['dots'] < used['none']


def cached(config, params, rows, chunks, capacity=16, make_cache=init_cache):
  """Logits of ragged `rows`, read in pieces: chunks[i][row] tokens of each row in call i, padded
  with other tokens.
  """

  @jax.jit
  def read(params, cache, tokens, num):
    hidden, cache = transformer.Transformer(config).apply(
      {'params': params}, tokens, cache=cache, num_tokens_B=num
    )
    return heads.unembed(params, config, hidden), cache

  cache = make_cache(config, len(rows), capacity)
  done, out = [0] * len(rows), [[] for _ in rows]
  width = max(max(chunk) for chunk in chunks)
  for chunk in chunks:
    tokens = np.full((len(rows), width), 7, np.int32)
    for row, n in enumerate(chunk):
      tokens[row, :n] = rows[row][done[row] : done[row] + n]
    logits, cache = read(params, cache, tokens, np.array(chunk, np.int32))
    for row, n in enumerate(chunk):
      out[row].append(np.asarray(logits)[row, :n])
      done[row] += n
    np.testing.assert_array_equal(cache.length_B, done)
  return [np.concatenate(x) for x in out]


@pytest.mark.slow
@pytest.mark.parametrize('name', VARIANTS)
def test_cached_equals_full(tiny, forward, name):
  config, params = tiny(**VARIANTS[name])
  full = forward(config, params, TOKENS)
  one_by_one = cached(config, params, TOKENS, [(1, 1, 1)] * 11)
  pieces = cached(config, params, TOKENS, [(4, 4, 4), (1, 1, 1), (6, 6, 6)])
  np.testing.assert_allclose(one_by_one, full, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(pieces, full, rtol=1e-4, atol=1e-4)
  rows = [TOKENS[0], TOKENS[1, :2], TOKENS[2, :7]]
  ragged = cached(config, params, rows, [(5, 2, 0), (3, 0, 1), (1, 0, 6), (2, 0, 0)])
  for i, row in enumerate(rows):
    np.testing.assert_allclose(ragged[i], full[i, : len(row)], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['gpt2', 'gemma', 'olmo', 'mixtral'])
def test_layers_apart_compute_the_same(tiny, forward, name):
  config, params = tiny(**VARIANTS[name])
  several = apart.apart(params)
  assert several.keys() - params.keys() == {f'layer_{i}' for i in range(config.num_layers)}
  expected = forward(config, params, TOKENS)
  np.testing.assert_allclose(forward(config, several, TOKENS), expected, rtol=1e-5, atol=1e-5)
  chunks = [(4, 4, 4), (1, 1, 1), (6, 6, 6)]
  make_cache = functools.partial(init_cache, stacked=False)
  got = cached(config, several, TOKENS, chunks, make_cache=make_cache)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('stacked', [True, False])
def test_an_int8_cache_rounds_each_token_and_head_to_255_values(stacked):
  config = FrozenConfigDict({'num_layers': 2, 'num_kv_heads': 3, 'head_dim': 8, 'dtype': 'float32'})
  cache = init_cache(config, 2, 12, 'int8', stacked)
  rng = np.random.default_rng(0)
  k, v = rng.normal(size=(2, 2, 4, 3, 8)).astype(np.float32)
  cache = cache.append(1, k, v).advance(np.array([4, 4]))
  q = rng.normal(size=(2, 1, 6, 8)).astype(np.float32)
  cache = cache.append(1, k[:, :1], v[:, :1])
  got = cache.attend(1, q, 0.3, 0.0, 0)

  def rounded(x):
    step = np.abs(x).max(-1, keepdims=True) / 127
    return np.round(x / step) * step

  keys, values = (np.concatenate([rounded(x), rounded(x[:, :1])], 1) for x in (k, v))
  mask = np.ones((2, 1, 5), bool)
  expected = attend(q, keys, values, mask, 0.3)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_rows_of_a_cache_are_taken_put_back_and_resized(tiny):
  config, _ = tiny()
  cache = init_cache(config, 3, 8)
  rng = np.random.default_rng(0)
  k, v = rng.normal(size=(2, 3, 4, 2, 4)).astype(np.float32)
  cache = cache.append(0, k, v).advance(np.array([4, 2, 3]))
  taken = cache.take(np.array([2, 3]), 6)  # the second stands for any row
  assert taken.capacity == 6 and taken.length_B[0] == 3
  taken = taken.append(0, k[:2, :1], v[:2, :1]).advance(np.array([1, 1]))
  back = cache.put(np.array([1, 3]), taken)
  assert back.length_B.tolist() == [4, 4, 3]
  held = np.asarray(back.layers['k'][0])
  np.testing.assert_array_equal(held[1, :, :3], k[2, :3].swapaxes(0, 1))
  np.testing.assert_array_equal(held[1, :, 3], k[0, 0])
  np.testing.assert_array_equal(held[[0, 2]], np.asarray(cache.layers['k'][0])[[0, 2]])
  smaller = back.resize(3)
  assert smaller.length_B.tolist() == [3, 3, 3] and smaller.resize(9).capacity == 9
  np.testing.assert_array_equal(
    smaller.resize(9).layers['v'][..., :3, :], back.layers['v'][..., :3, :]
  )


@pytest.mark.slow
def test_cache_may_be_filled_to_the_brim(tiny, forward):
  config, params = tiny(**VARIANTS['llama'])
  rows = [TOKENS[0], TOKENS[1, :5]]
  # padding of row 0's last chunk falls off the end
  got = cached(config, params, rows, [(8, 5), (3, 0)], capacity=11)
  for i, row in enumerate(rows):
    np.testing.assert_allclose(
      got[i], forward(config, params, TOKENS)[i, : len(row)], rtol=1e-4, atol=1e-4
    )


@struct.dataclass
class PagedCache:
  """A `lm.model.cache.Cache` whose rows lie in pages of 4 tokens, scattered over one pool."""

  pool_LPCKH: jax.Array  # P pages of C tokens; keys, then values, along the last axis
  table_BI: jax.Array  # the page of each row's I-th stretch of C tokens
  length_B: jax.Array

  @classmethod
  def create(cls, config, batch_size, capacity):
    per_row = -(-capacity // 4)
    count = batch_size * per_row
    shape = config.num_layers, count, 4, config.num_kv_heads, 2 * config.head_dim
    order = np.random.default_rng(0).permutation(count).reshape(batch_size, per_row)
    # what no row has written yet must not be seen
    return cls(jnp.full(shape, 1e3), jnp.asarray(order), jnp.zeros(batch_size, jnp.int32))

  @property
  def capacity(self):
    return self.table_BI.shape[1] * 4

  def positions(self, num_tokens):
    return self.length_B[:, None] + jnp.arange(num_tokens)[None]

  def append(self, layer, k_BTKH, v_BTKH):
    positions_BT = self.positions(k_BTKH.shape[1])
    pages_BT = jnp.take_along_axis(self.table_BI, positions_BT // 4, 1, mode='fill', fill_value=999)
    new = jnp.concatenate([k_BTKH, v_BTKH], -1)
    place = self.pool_LPCKH.at[layer, pages_BT, positions_BT % 4]
    return self.replace(pool_LPCKH=place.set(new, mode='drop'))

  def attend(self, layer, q_BTNH, scale, softcap, window):
    held = self.pool_LPCKH[layer][self.table_BI]
    held = held.reshape(q_BTNH.shape[0], self.capacity, *held.shape[3:])
    k_BSKH, v_BSKH = jnp.split(held, 2, axis=-1)
    mask_BTS = visible(self.positions(q_BTNH.shape[1]), self.capacity, window)
    return attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS, scale, softcap)

  def advance(self, num_B):
    return self.replace(length_B=jnp.minimum(self.length_B + num_B, self.capacity))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['llama', 'olmo'])
def test_a_paged_cache_needs_nothing_but_its_methods(tiny, name):
  config, params = tiny(**VARIANTS[name])
  rows = [TOKENS[0], TOKENS[1, :2], TOKENS[2, :7]]
  chunks = [(5, 2, 0), (3, 0, 1), (1, 0, 6), (2, 0, 0)]
  contiguous = cached(config, params, rows, chunks, capacity=12)
  paged = cached(config, params, rows, chunks, capacity=12, make_cache=PagedCache.create)
  for one, other in zip(paged, contiguous, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_copies_of_a_row_of_the_cache_go_on_as_the_row_would(tiny, forward):
  config, params = tiny(**VARIANTS['gemma'])
  read = jax.jit(transformer.Transformer(config).apply)
  prompts, num_B = np.array([[3, 1, 4, 1], [2, 7, 7, 7]], np.int32), np.array([4, 2], np.int32)
  empty = init_cache(config, 2, 12)
  _, cache = read({'params': params}, prompts, cache=empty, num_tokens_B=num_B)
  cache = cache.take(np.array([0, 0, 0, 1, 1, 1]), 12)
  assert cache.length_B.tolist() == [4, 4, 4, 2, 2, 2] and cache.capacity == 12
  ends = TOKENS.reshape(-1)[:18].reshape(6, 3)
  hidden, _ = read({'params': params}, ends, cache=cache)
  logits = heads.unembed(params, config, hidden)
  for i, end in enumerate(ends):
    row = [*prompts[i // 3, : num_B[i // 3]], *end]
    whole = forward(config, params, np.array([row], np.int32))[0, -3:]
    np.testing.assert_allclose(logits[i], whole, rtol=1e-4, atol=1e-4)


def test_bfloat16_computes_in_bfloat16_and_returns_float32_logits(tiny, forward):
  (config, params), (exact, _) = (
    tiny(dtype='bfloat16', **VARIANTS['llama']),
    tiny(**VARIANTS['llama']),
  )
  hidden, _ = jax.eval_shape(transformer.Transformer(config).apply, {'params': params}, TOKENS)
  logits = forward(config, params, TOKENS)
  assert hidden.dtype == jnp.bfloat16 and logits.dtype == jnp.float32
  error = np.abs(logits - forward(exact, params, TOKENS)) / np.abs(logits).max()
  assert 1e-4 < error.max() < 0.05  # it is not float32 in disguise, and not far off


def test_logits_of_bfloat16_states_are_not_rounded_to_bfloat16(tiny):
  config, params = tiny(dtype='bfloat16', tie_embeddings=False)
  hidden = np.random.default_rng(0).normal(size=(3, 16)).astype(jnp.bfloat16)
  weight = params['head'].astype(jnp.bfloat16)
  np.testing.assert_allclose(
    heads.unembed(params, config, hidden),
    hidden.astype(np.float64) @ weight.astype(np.float64).T,
    rtol=1e-5,
    atol=1e-5,
  )


def kept(module, x):
  """Shapes of the arrays, as large as `x` or larger, that are kept for the backward pass."""
  params = jax.eval_shape(module.init, jax.random.key(0), x)
  pull = jax.eval_shape(lambda *args: jax.vjp(module.apply, *args)[1], params, x)
  return sorted(a.shape for a in jax.tree.leaves(pull) if a.ndim == x.ndim)


@pytest.mark.slow
def test_what_the_backward_pass_computes_again_is_not_kept(tiny):
  """Norms keep what they read alone; activations too, beside the factors of the products."""
  config, _ = tiny()
  x = jnp.ones((2, 5, config.embed_dim))
  assert kept(layers.Norm(config, 'rmsnorm'), x) == [(2, 5, 16)]
  assert kept(layers.Norm(config, 'layernorm'), x) == [(2, 5, 16)]
  assert kept(layers.Mlp(config), x) == [(2, 5, 16), *[(2, 5, 24)] * 2]


@pytest.mark.slow
@pytest.mark.parametrize('num_experts', [0, 4])
def test_weights_that_write_into_the_residual_stream_begin_smaller(tiny, num_experts):
  """The outputs of 2 L parts, init_std / sqrt(2 L) each, add up to init_std (GPT-2)."""
  sizes = {'num_layers': 8, 'embed_dim': 64, 'mlp_dim': 96, 'tie_embeddings': False}
  config, _ = tiny(init_std=0.1, num_experts=num_experts, **sizes)
  params = jax.jit(transformer.init_params, static_argnums=0)(config, jax.random.key(0))
  paths = jax.tree_util.tree_leaves_with_path(params)
  stds = {leaf_name(path): float(x.std()) for path, x in paths if 'norm' not in leaf_name(path)}
  smaller = {'layers/attention/o/kernel', 'layers/mlp/down/kernel'}
  assert smaller < stds.keys() and len(stds) == (9 if num_experts == 0 else 10)
  assert stds == pytest.approx({name: 0.025 if name in smaller else 0.1 for name in stds}, rel=0.1)


def products(jaxpr):
  """Every matrix product of a program, those of inner programs included."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      yield equation
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from products(inner)


@pytest.mark.slow
def test_routers_are_float32_where_products_are_bfloat16_by_default(tiny):
  """TPUs multiply float32 as bfloat16 unless the highest precision is asked for."""
  config, params = tiny(num_experts=5, dtype='bfloat16')
  program = jax.make_jaxpr(
    lambda params: transformer.Transformer(config).apply({'params': params}, TOKENS)
  )(params)
  weights = (config.embed_dim, 5)
  routers = [p for p in products(program.jaxpr) if p.invars[1].aval.shape == weights]
  assert routers
  for product in routers:
    assert product.invars[0].aval.dtype == product.invars[1].aval.dtype == jnp.float32
    assert product.params['precision'] == (jax.lax.Precision.HIGHEST,) * 2


@pytest.mark.slow
@pytest.mark.parametrize('fields', [{}, {'activation': 'gelu', 'mlp_bias': True}])
def test_blocks_of_the_feed_forward_layer_are_the_whole(tiny, fields):
  config, params = tiny(**fields)
  mlp = jax.tree.map(lambda x: x[0], params['layers']['mlp'])
  x_BTD = np.random.default_rng(0).normal(size=(2, 5, config.embed_dim)).astype(np.float32)

  @functools.partial(jax.jit, static_argnums=0)
  def run(blocks):
    def loss(mlp, x_BTD):
      y_BTD = layers.Mlp(config).apply({'params': mlp}, x_BTD, blocks=blocks)
      return jnp.square(y_BTD).sum(), y_BTD

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(mlp, x_BTD)

  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), run(4), run(1))
  with pytest.raises(UserError) as raised:
    run(5)
  assert (raised.value.field, raised.value.value) == ('config.model.mlp_blocks', 5)
  assert 'divide mlp_dim, 24' in raised.value.allowed


@pytest.mark.parametrize(
  'fields, field, value',
  [
    ({'activation': 'gelo'}, 'activation', 'gelo'),
    ({'norm': 'batchnorm'}, 'norm', 'batchnorm'),
    ({'position': 'rop'}, 'position', 'rop'),
    ({'remat': 'some'}, 'remat', 'some'),
    ({'num_kv_heads': 3}, 'num_kv_heads', 3),
    ({'head_dim': 5}, 'head_dim', 5),
    ({'layer_types': ('ful',)}, 'layer_types', 'ful'),
    ({'layer_types': ()}, 'layer_types', ()),
    ({'layer_types': ('window', 'full')}, 'window', 0),
    ({'layer_types': ('nope',), 'position': 'learned'}, 'layer_types', ('nope',)),
    ({'qk_norm': 'heads'}, 'qk_norm', 'heads'),
    ({'rope_scaling': 'yarn'}, 'rope_scaling', 'yarn'),
    ({'rope_scaling': 'llama3'}, 'rope_original_len', 0),
    ({'num_experts': 4, 'experts_per_token': 5}, 'experts_per_token', 5),
    ({'num_experts': 4, 'mlp_bias': True}, 'mlp_bias', True),
    ({'num_experts': 4, 'mlp_blocks': 2}, 'mlp_blocks', 2),
    ({'mlp_blocks': 0}, 'mlp_blocks', 0),
  ],
)
def test_check_names_the_field(tiny, fields, field, value):
  with pytest.raises(UserError) as raised:
    tiny(**fields)
  assert (raised.value.field, raised.value.value) == (f'config.model.{field}', value)
  assert raised.value.allowed
