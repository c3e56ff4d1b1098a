"""Schedules against their formulas; which parameters decay, and which Muon takes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from lm.base.errors import UserError
from lm.train import optimizers

AXES = {
  'embedding': ('vocab', 'embed'),
  'position_table': ('positions', 'embed'),
  'layers': {
    'q': ('layers', 'embed', 'heads', 'head_dim'),
    'o': ('layers', 'heads', 'head_dim', 'embed'),
    'up': ('layers', 'expert', 'embed', 'mlp'),
    'scale': ('layers', 'embed'),
    'bias': ('layers', 'heads', 'head_dim'),
  },
}
SHAPES = {
  'embedding': (10, 8),
  'position_table': (6, 8),
  'layers': {
    'q': (3, 8, 2, 4),
    'o': (3, 2, 4, 8),
    'up': (3, 2, 8, 8),
    'scale': (3, 8),
    'bias': (3, 2, 4),
  },
}


@pytest.fixture(autouse=True)
def optax_promotes():
  """optax raises a Python float to an int32 count: strict promotion would refuse it."""
  with jax.numpy_dtype_promotion('standard'):
    yield


def config(**fields):
  c = base.get_config().optim
  c.update(**fields)
  return c


def random(seed):
  leaves, tree = jax.tree.flatten(SHAPES, is_leaf=lambda x: isinstance(x, tuple))
  rng = np.random.default_rng(seed)
  return jax.tree.unflatten(tree, [jnp.asarray(rng.normal(size=s), jnp.float32) for s in leaves])


def test_cosine_with_warmup():
  schedule = optimizers.make_schedule(config(schedule='cosine', warmup=10, final_lr=0.1), 2.0, 110)
  for step, expected in (
    (0, 2 / 11),
    (9, 2 * 10 / 11),
    (10, 2.0),
    (60, 2 * (0.1 + 0.9 * 0.5)),
    (110, 0.2),
  ):
    assert float(schedule(step)) == pytest.approx(expected, rel=1e-5)
  quarter = 0.5 * (1 + math.cos(math.pi * 0.25))
  assert float(schedule(35)) == pytest.approx(2 * (0.1 + 0.9 * quarter), rel=1e-5)


def test_warmup_stable_decay():
  schedule = optimizers.make_schedule(
    config(schedule='wsd', warmup=10, decay=0.2, final_lr=0.0), 1.0, 100
  )
  assert [float(schedule(s)) for s in (10, 50, 80)] == pytest.approx([1, 1, 1])
  assert float(schedule(90)) == pytest.approx(0.5)
  assert float(schedule(100)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize('schedule', optimizers.SCHEDULES)
@pytest.mark.parametrize('steps', [1, 2, 5, 101])
def test_a_warmup_longer_than_the_run_reaches_the_peak_with_its_last_update(schedule, steps):
  rate = optimizers.make_schedule(config(schedule=schedule, warmup=100), 2.0, steps)
  assert [float(rate(step)) for step in range(steps)] == pytest.approx(
    [2 * (i + 1) / steps for i in range(steps)]
  )


def test_a_warmup_below_0_and_a_run_without_steps_are_refused():
  with pytest.raises(UserError) as raised:
    optimizers.make_schedule(config(), 1.0, 0)
  assert (raised.value.field, raised.value.value) == ('config.steps', 0)
  with pytest.raises(UserError) as raised:
    optimizers.make_schedule(config(warmup=-1), 1.0, 100)
  assert (raised.value.field, raised.value.value) == ('config.optim.warmup', -1)


def test_unknown_names_are_refused():
  with pytest.raises(UserError) as raised:
    optimizers.make_schedule(config(schedule='cosin'), 1.0, 1000)
  assert (raised.value.field, raised.value.value) == ('config.optim.schedule', 'cosin')
  with pytest.raises(UserError) as raised:
    optimizers.make(config(name='adam'), 1000, AXES)
  assert (raised.value.field, raised.value.value) == ('config.optim.name', 'adam')
  assert {'adamw', 'muon'} <= set(raised.value.allowed)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_decay_shrinks_matrices_and_nothing_else(name):
  tx, _ = optimizers.make(
    config(name=name, schedule='constant', warmup=0, lr=0.1, muon_lr=0.1, weight_decay=0.5),
    10,
    AXES,
  )
  params = random(0)
  updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
  new = optax.apply_updates(params, updates)
  for path in (('embedding',), ('layers', 'q'), ('layers', 'o'), ('layers', 'up')):
    before, after = params, new
    for key in path:
      before, after = before[key], after[key]
    np.testing.assert_allclose(after, before * (1 - 0.1 * 0.5), rtol=1e-5)
  for before, after in (
    (params['position_table'], new['position_table']),
    (params['layers']['scale'], new['layers']['scale']),
    (params['layers']['bias'], new['layers']['bias']),
  ):
    np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_muon_orthogonalises_each_layer_and_leaves_the_rest_to_adamw():
  plain = {
    'schedule': 'constant',
    'warmup': 0,
    'lr': 0.1,
    'muon_lr': 1.0,
    'weight_decay': 0.0,
    'clip': 0.0,
  }
  params, grads = random(0), random(1)
  muon, _ = optimizers.make(config(name='muon', **plain), 10, AXES)
  adam, _ = optimizers.make(config(name='adamw', **plain), 10, AXES)
  updates, _ = muon.update(grads, muon.init(params), params)
  expected, _ = adam.update(grads, adam.init(params), params)
  for name in ('embedding', 'position_table'):
    np.testing.assert_allclose(updates[name], expected[name], rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(
    updates['layers']['scale'], expected['layers']['scale'], rtol=1e-4, atol=1e-6
  )
  for layer in range(3):
    new = {name: updates['layers'][name][layer] for name in ('q', 'o', 'up')}
    # each expert is a matrix
    for matrix in (new['q'].reshape(8, 8), new['o'].reshape(8, 8), *new['up']):
      singular = np.linalg.svd(np.asarray(matrix), compute_uv=False)
      # Five Newton-Schulz steps bring singular values into about [0.7, 1.2]; a tiny one may stay
      # behind.
      assert np.median(singular) == pytest.approx(1.0, abs=0.3)
      assert singular.max() < 1.4


@pytest.mark.slow
def test_gradients_are_clipped_by_their_global_norm():
  tx, _ = optimizers.make(
    config(
      schedule='constant', warmup=0, clip=1.0, b1=0.0, b2=0.0, eps=1.0, weight_decay=0.0, lr=1.0
    ),
    10,
    AXES,
  )
  params, grads = random(0), jax.tree.map(lambda g: 100 * g, random(1))
  updates, _ = tx.update(grads, tx.init(params), params)
  norm = float(optax.tree.norm(grads))
  clipped = grads['embedding'] / norm
  np.testing.assert_allclose(
    updates['embedding'], -clipped / (jnp.abs(clipped) + 1.0), rtol=1e-4, atol=1e-6
  )


def test_muon_grows_with_the_outputs_of_a_matrix_over_its_inputs():
  """A matrix of more outputs than inputs gets the spectral norm sqrt(outputs / inputs), others 1."""
  axes = {'layers': {'up': ('layers', 'embed', 'mlp'), 'down': ('layers', 'mlp', 'embed')}}
  plain = {'schedule': 'constant', 'warmup': 0, 'muon_lr': 1.0, 'weight_decay': 0.0, 'clip': 0.0}
  tx, _ = optimizers.make(config(name='muon', **plain), 10, axes)
  rng = np.random.default_rng(0)
  grads = {
    'layers': {
      'up': jnp.asarray(rng.normal(size=(1, 4, 36)), jnp.float32),
      'down': jnp.asarray(rng.normal(size=(1, 36, 4)), jnp.float32),
    }
  }
  params = jax.tree.map(jnp.zeros_like, grads)
  updates, _ = tx.update(grads, tx.init(params), params)
  for name, norm in (('up', 3.0), ('down', 1.0)):
    singular = np.linalg.svd(np.asarray(updates['layers'][name][0]), compute_uv=False)
    assert np.median(singular) == pytest.approx(norm, rel=0.3)


@pytest.mark.slow
def test_adamw_follows_its_formula():
  """Decoupled weight decay, arXiv 1711.05101, algorithm 2, with the moments of arXiv 1412.6980."""
  fields = {'lr': 0.1, 'b1': 0.5, 'b2': 0.9, 'eps': 0.01, 'weight_decay': 0.2, 'clip': 0.0}
  tx, _ = optimizers.make(config(schedule='constant', warmup=0, **fields), 10, AXES)
  params = random(0)
  state, p, m, v = tx.init(params), np.asarray(params['embedding'], np.float64), 0.0, 0.0
  for t in (1, 2, 3):
    grads = random(t)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    g = np.asarray(grads['embedding'], np.float64)
    m, v = 0.5 * m + 0.5 * g, 0.9 * v + 0.1 * g**2
    step = (m / (1 - 0.5**t)) / (np.sqrt(v / (1 - 0.9**t)) + 0.01)
    p = p - 0.1 * (step + 0.2 * p)
    np.testing.assert_allclose(params['embedding'], p, rtol=1e-4, atol=1e-5)
