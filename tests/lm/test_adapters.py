"""Adapters against the model they are merged into; what is trained, and what that costs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from lm.base.errors import UserError
from lm.model import adapters, heads, param_rules, quantize, transformer
from lm.model.cache import init_cache
from lm.parallel import sharding
from lm.stages import pretrain
from lm.train import optimizers, train_step

LORA = {'lora_rank': 3, 'lora_alpha': 6.0}
LOSS = ConfigDict({'chunk': 8, 'z_loss': 0.0, 'vocab_blocks': 0, 'balance': 0.5})
TOKENS = np.random.default_rng(0).integers(23, size=(2, 9), dtype=np.int32)
VARIANTS = {
  'dense': {'attention_bias': 'all', 'mlp_bias': True},
  'blocks': {'mlp_blocks': 2},
  'unrolled': {'scan_layers': False},
  'routed': {'num_experts': 4, 'lora_params': 'layers/.*/kernel'},
  'some': {'lora_params': 'layers/attention/(q|v)/kernel'},
}


def plain_of(config):
  return FrozenConfigDict(config.to_dict() | {'lora_rank': 0})


def axes_of(config):
  return sharding.axis_names(transformer.abstract(config))


def in_numpy(params, factor):
  """W + A @ B * alpha / rank, matrix by matrix in float64."""
  if 'lora_a' not in params:
    return {k: in_numpy(x, factor) if isinstance(x, dict) else x for k, x in params.items()}
  rest = dict(params)
  w, a, b = (np.asarray(rest.pop(name), np.float64) for name in ('kernel', 'lora_a', 'lora_b'))
  letters = {  # by the numbers of axes of w, a and b
    (4, 3, 4): 'ldr,lrnh->ldnh',
    (4, 4, 3): 'lnhr,lrd->lnhd',
    (4, 4, 4): 'ledr,lerf->ledf',
    (3, 3, 3): 'ldr,lrf->ldf',
  }
  change = np.einsum(letters[w.ndim, a.ndim, b.ndim], a, b)
  return rest | {'kernel': (w + factor * change).astype(np.float32)}


@pytest.mark.slow
@pytest.mark.parametrize('name', VARIANTS)
def test_the_adapted_model_is_the_one_with_the_products_added(tiny, forward, name):
  config, params = tiny(**LORA | VARIANTS[name])
  expected = in_numpy(params, 2.0)
  got = forward(config, params, TOKENS)
  np.testing.assert_allclose(got, forward(plain_of(config), expected, TOKENS), atol=2e-4)
  assert np.abs(got - forward(plain_of(config), without(params), TOKENS)).max() > 0.1
  for merged in (
    adapters.merge(params, 2.0),
    jax.jit(adapters.merge, static_argnums=1)(params, 2.0),
  ):
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), merged, expected
    )


def without(params):
  return {
    k: without(x) if isinstance(x, dict) else x
    for k, x in params.items()
    if not adapters.is_adapter(k)
  }


@pytest.mark.slow
def test_a_fresh_adapter_changes_nothing_and_no_other_parameter(tiny, forward):
  config, _ = tiny(**LORA)
  init = jax.jit(transformer.init_params, static_argnums=0)
  params = init(config, jax.random.key(3))
  base_params = init(plain_of(config), jax.random.key(3))
  jax.tree.map(np.testing.assert_array_equal, without(params), base_params)
  np.testing.assert_array_equal(
    forward(config, params, TOKENS), forward(plain_of(config), base_params, TOKENS)
  )
  q = params['layers']['attention']['q']
  assert q['lora_a'].shape == (2, 16, 3) and not np.any(q['lora_b'])
  assert 0.5 < np.std(q['lora_a']) * 4 < 2
  assert not np.array_equal(q['lora_a'], params['layers']['attention']['k']['lora_a'])


@pytest.mark.slow
def test_decoding_with_a_cache_is_the_same_function(tiny, forward):
  config, params = tiny(**LORA)
  cache = init_cache(config, 2, 16)
  hidden = []
  for start, stop in ((0, 4), (4, 9)):
    x, cache = transformer.Transformer(config).apply(
      {'params': params}, TOKENS[:, start:stop], cache=cache
    )
    hidden.append(x)
  logits = heads.unembed(params, config, jnp.concatenate(hidden, 1))
  np.testing.assert_allclose(logits, forward(config, params, TOKENS), atol=1e-4)


@pytest.mark.slow
def test_adapters_stay_beside_int8_weights(tiny, forward):
  config, params = tiny(**LORA)
  small = quantize.quantize('int8', params, axes_of(config))
  got, full = forward(config, small, TOKENS), forward(config, params, TOKENS)
  assert 0 < np.abs(got - full).max() < 0.1 * np.abs(full).max()


@pytest.mark.slow
def test_adapters_are_named_and_split_as_their_matrices(tiny):
  config, _ = tiny(**LORA)
  axes = axes_of(config)['layers']
  assert axes['attention']['q']['lora_a'] == ('layers', 'embed', 'lora')
  assert axes['attention']['q']['lora_b'] == ('layers', 'lora', 'heads', 'head_dim')
  assert axes['attention']['o']['lora_a'] == ('layers', 'heads', 'head_dim', 'lora')
  assert axes['mlp']['down']['lora_b'] == ('layers', 'lora', 'embed')
  assert param_rules.matrix_sides(axes['attention']['q']['lora_b']) == ((1,), (2, 3))
  assert param_rules.matrix_sides(axes['attention']['o']['lora_a']) == ((1, 2), (3,))


@pytest.mark.parametrize(
  'fields, wrong',
  [
    ({'lora_rank': -1}, ('lora_rank', -1)),
    ({'lora_rank': 2, 'lora_alpha': 0.0}, ('lora_alpha', 0.0)),
    ({'lora_rank': 2, 'lora_params': 'layers/attn/.*'}, ('lora_params', 'layers/attn/.*')),
    ({'lora_rank': 2, 'lora_params': 'layers/('}, ('lora_params', 'layers/(')),
    ({'lora_rank': 2, 'lora_params': 'embedding'}, ('lora_params', 'embedding')),
  ],
)
def test_adapters_of_nothing_are_refused(tiny, fields, wrong):
  with pytest.raises(UserError) as error:
    tiny(**fields)
  assert (error.value.field, error.value.value) == (f'config.model.{wrong[0]}', wrong[1])


# ---- What is trained -----------------------------------------------------------------------------


def names_of(config):
  return set(param_rules.leaf_names(axes_of(config)))


@pytest.mark.slow
def test_a_rule_names_what_is_trained(tiny):
  plain, _ = tiny(tie_embeddings=False)
  lora, _ = tiny(**LORA, heads=('vocabulary', 'scalar'))
  assert adapters.trained('', axes_of(plain)) == names_of(plain)
  assert adapters.trained('all', axes_of(lora)) == names_of(lora)
  default = adapters.trained('', axes_of(lora))
  assert default == {n for n in names_of(lora) if 'lora_' in n} | {'scalar_head'}
  some = adapters.trained('layers/attention/.*, head', axes_of(plain))
  assert some == {n for n in names_of(plain) if n.startswith('layers/attention/')} | {'head'}
  for rule, wrong in (
    ('layers/attention', 'layers/attention'),
    ('head,scalar_head', 'scalar_head'),
  ):
    with pytest.raises(UserError) as error:
      adapters.trained(rule, axes_of(plain))
    assert (error.value.field, error.value.value) == ('config.train.params', wrong)
    assert 'layers/attention/q/kernel' in error.value.allowed


def test_parts_of_a_tree_are_put_together_again():
  tree = {'a': 1, 'b': {'c': (2,), 'd': {'e': 3}}}
  assert param_rules.leaf_names(tree) == ['a', 'b/c', 'b/d/e']
  chosen, rest = param_rules.split(tree, frozenset({'a', 'b/d/e'}))
  assert (chosen, rest) == ({'a': 1, 'b': {'d': {'e': 3}}}, {'b': {'c': (2,)}})
  assert param_rules.join(chosen, rest) == param_rules.join(rest, chosen) == tree


def batch(rows=4, length=8):
  tokens = np.random.default_rng(1).integers(23, size=(2, rows, length + 1), dtype=np.int32)
  ones = np.ones((2, rows, length), np.int32)
  return {
    'inputs': tokens[..., :-1],
    'targets': tokens[..., 1:],
    'weights': ones.astype(np.float32),
    'positions': ones * np.arange(length, dtype=np.int32),
    'segment_ids': ones,
  }


def make(config, rule, optim='adamw', **fields):
  """(step, state) of two microbatches for a model and a rule."""
  settings, axes = base.get_config().optim, axes_of(config)
  settings.update(name=optim, warmup=0, schedule='constant', lr=0.01, **fields)
  trained = adapters.trained(rule, axes)
  with jax.numpy_dtype_promotion('standard'):
    tx, schedule = optimizers.make(settings, 10, axes, trained)
  step = train_step.make_train_step(pretrain.make_loss(config, LOSS), tx, schedule, trained=trained)

  def run(state):
    with jax.numpy_dtype_promotion('standard'):
      return jax.jit(step)(state, batch(), 2)

  return run, functools.partial(train_step.init_state, tx=tx, trained=trained)


def changed(before, after):
  before, after = (
    dict(zip(param_rules.leaf_names(t), jax.tree.leaves(t), strict=True))
    for t in (jax.tree.map(np.asarray, sort(before)), jax.tree.map(np.asarray, sort(after)))
  )
  return {name for name, x in before.items() if not np.array_equal(x, after[name])}


def sort(tree):
  return {k: sort(x) if isinstance(x, dict) else x for k, x in sorted(tree.items())}


@pytest.mark.slow
@pytest.mark.parametrize('optim', ['adamw', 'muon'])
@pytest.mark.parametrize('rule', ['', 'layers/(attention|mlp)/.*,final_norm/scale'])
def test_what_is_not_trained_stays_and_has_no_state(tiny, optim, rule):
  config, params = tiny(**LORA if not rule else {})
  run, init = make(config, rule, optim)
  state = init(params)
  trained = adapters.trained(rule, axes_of(config))
  new, metrics = run(state)
  assert changed(params, new['params']) == trained
  assert set(param_rules.leaf_names(new['params'])) == names_of(config)
  sizes = {
    n: x.size
    for n, x in zip(param_rules.leaf_names(sort(params)), jax.tree.leaves(params), strict=True)
  }
  matrices = {n for n in trained if n.endswith('kernel')} if optim == 'muon' else set()
  moments = sum(sizes[n] * (1 if n in matrices else 2) for n in trained)
  held = sum(  # but for counters and the coefficients of Muon's polynomial
    x.size
    for path, x in jax.tree_util.tree_leaves_with_path(state['opt_state'])
    if x.ndim and not sharding.leaf_name(path).endswith('ns_coeffs')
  )
  assert held == moments < 2 * sum(sizes.values())
  assert metrics['opt/grad_norm'] > 0


@pytest.mark.slow
def test_the_gradient_of_what_is_trained_is_that_of_all(tiny):
  config, params = tiny(**LORA)
  loss_fn = pretrain.make_loss(config, LOSS)
  trained, frozen = param_rules.split(params, adapters.trained('', axes_of(config)))
  accumulate, key = jax.jit(functools.partial(train_step.accumulate, loss_fn)), jax.random.key(0)
  grads, sums = accumulate(trained, batch(), 2, key, frozen)
  everything, same = accumulate(params, batch(), 2, key)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, grads, param_rules.select(everything, adapters.trained('', axes_of(config))))
  jax.tree.map(close, sums, same)


@pytest.mark.slow
def test_gradients_of_frozen_matrices_are_not_computed(tiny):
  """6 operations for each weight and token become 4 and a little."""
  fields = {'embed_dim': 128, 'mlp_dim': 512, 'scan_layers': False}
  flops = {}
  for name, more in (('all', {}), ('adapters', {'lora_rank': 1})):
    config = tiny(**fields, **more)[0]
    run, init = make(config, '')
    shapes = jax.eval_shape(functools.partial(transformer.init_params, config), jax.random.key(0))
    with jax.numpy_dtype_promotion('standard'):
      state = jax.eval_shape(init, shapes)
      flops[name] = jax.jit(run).lower(state).compile().cost_analysis()['flops']
  assert flops['adapters'] / flops['all'] < 0.78


@pytest.mark.slow
def test_rates_multiply_the_update_of_what_they_name(tiny):
  config, params = tiny()
  runs = {}
  for rates in ('', 'layers/attention/q/.*:0.5,layers/.*:2'):
    run, init = make(config, '', rates=rates)
    runs[rates] = run(init(params))[0]['params']
  plain, scaled = (
    jax.tree.map(lambda a, b: np.asarray(b - a), params, new) for new in runs.values()
  )
  for path, factor in ((('attention', 'q'), 0.5), (('attention', 'k'), 2.0), (('mlp', 'up'), 2.0)):
    before, after = (
      functools.reduce(lambda t, k: t[k], path, t['layers'])['kernel'] for t in (plain, scaled)
    )
    np.testing.assert_allclose(after, factor * before, rtol=1e-3, atol=1e-6)
  np.testing.assert_array_equal(scaled['embedding'], plain['embedding'])


@pytest.mark.parametrize('rates', ['head:2', 'embedding', 'embedding:0', 'embedding:fast', ':2'])
def test_rates_of_another_form_are_refused(rates):
  with pytest.raises(UserError) as error:
    optimizers.rate_factors(rates, ['embedding', 'layers/mlp/up/kernel'])
  assert error.value.field == 'config.optim.rates'
  assert error.value.value in (rates, rates.split(':')[0])


def test_without_rates_and_rules_the_optimizer_state_is_as_before(tiny):
  config, params = tiny()
  axes = axes_of(config)
  with jax.numpy_dtype_promotion('standard'):
    old, _ = optimizers.make(base.get_config().optim, 10, axes)
    new, _ = optimizers.make(base.get_config().optim, 10, axes, adapters.trained('', axes))
  states = [jax.eval_shape(tx.init, params) for tx in (old, new)]
  assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
  assert isinstance(states[0][0], optax.EmptyState)


# ---- Over a mesh ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
  'axes', [{'fsdp': 2, 'tensor': 2, 'data': 2}, {'fsdp': 4, 'context': 2}], ids=str
)
def test_adapters_train_over_a_mesh_as_on_one_device(tiny, axes):
  config, params = tiny(**LORA, vocab_size=24)
  one_run, init = make(config, '')
  expected = one_run(init(params))
  mesh = sharding.make_mesh(ConfigDict(dict.fromkeys(sharding.AXES, 1) | axes), jax.devices())
  boxed = transformer.abstract(config)
  shardings = sharding.param_shardings(boxed, mesh)
  with jax.set_mesh(mesh):
    got = one_run(init(jax.device_put(params, shardings)))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
  jax.tree.map(close, got[0]['params'], expected[0]['params'])
  assert got[1]['train/loss'] == pytest.approx(float(expected[1]['train/loss']), rel=1e-5)
