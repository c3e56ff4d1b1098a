"""Kernels of accelerators, run step by step on a CPU, against the reference, gradients included."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from lm.base.errors import UserError
from lm.model.attention import kernels, reference
from lm.parallel import sharding

B, T, N, K, H = 2, 256, 4, 2, 128


def inputs(rows=B):
  rng = np.random.default_rng(0)
  q, k, v, dout = (
    rng.normal(size=(rows, T, heads, H)).astype(np.float32) for heads in (N, K, K, N)
  )
  segments = np.sort(rng.integers(1, 4, size=(rows, T)), axis=1).astype(np.int32)
  return q, k, v, dout, segments


def expected_attention(q, k, v, segments, scale, cap, window):
  distance = np.arange(T)[:, None] - np.arange(T)[None]
  mask = (distance >= 0) & (segments[:, :, None] == segments[:, None, :])
  return reference.attend(q, k, v, mask & (distance < window) if window else mask, scale, cap)


def both(function, dout, *arrays):
  """Output and gradients."""
  return jax.jit(jax.value_and_grad(lambda *x: jnp.vdot(function(*x), dout), argnums=(0, 1, 2)))(
    *arrays
  )


def splash(q, k, v, segments, scale, cap, window):
  return kernels.attend('splash', q, k, v, segments, scale, cap, window, interpret=True)


@pytest.mark.slow
@pytest.mark.parametrize(('cap', 'window'), [(0.0, 0), (2.0, 50)])
def test_splash_is_the_reference(cap, window):
  q, k, v, dout, segments = inputs()
  options = segments, 0.11, cap, window
  got, expected = (
    both(lambda *x, f=f: f(*x, *options), dout, q, k, v) for f in (splash, expected_attention)
  )
  chex.assert_trees_all_close(got, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.slow
def test_splash_over_a_mesh_is_the_reference():
  q, k, v, dout, segments = inputs(4)
  mesh = sharding.make_mesh(
    ConfigDict(dict.fromkeys(sharding.AXES, 1) | {'fsdp': 2, 'context': 2, 'tensor': 2})
  )
  options = segments, 0.11, 0.0, 0
  expected = both(lambda *x: expected_attention(*x, *options), dout, q, k, v)
  with jax.set_mesh(mesh):
    got = both(lambda *x: splash(*x, *options), dout, q, k, v)
  chex.assert_trees_all_close(jax.device_get(got), jax.device_get(expected), rtol=1e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize('window', [0, 50])
def test_what_is_asked_of_cudnn_is_the_reference(window, monkeypatch):
  """As XLA computes it: the kernel itself needs a GPU."""

  def by_xla(*arrays, implementation, attention=jax.nn.dot_product_attention, **options):
    assert implementation == 'cudnn'
    return attention(*arrays, implementation='xla', **options)

  monkeypatch.setattr(jax.nn, 'dot_product_attention', by_xla)
  q, k, v, dout, segments = inputs()
  options = segments, 0.11, 0.0, window
  got = both(lambda *x: kernels.attend('cudnn', *x, *options), dout, q, k, v)
  chex.assert_trees_all_close(
    got, both(lambda *x: expected_attention(*x, *options), dout, q, k, v), rtol=1e-3, atol=2e-4
  )


def config(**fields):
  return FrozenConfigDict(base.get_config().model.to_dict() | fields)


@pytest.mark.parametrize(
  ('fields', 'platform', 'refused'),
  [
    ({'attention': 'flash'}, 'tpu', ('attention', 'flash', tuple(kernels.PLATFORMS))),
    ({'attention': 'splash'}, 'cpu', ('attention', 'splash', ('reference', 'ring'))),
    ({'attention': 'cudnn'}, 'tpu', ('attention', 'cudnn', ('reference', 'ring', 'splash'))),
    (
      {'attention': 'cudnn', 'attention_softcap': 2.0},
      'gpu',
      ('attention_softcap', 2.0, "0, with config.model.attention 'cudnn'"),
    ),
  ],
)
def test_what_is_not_available_is_refused(fields, platform, refused):
  field, value, allowed = refused
  with pytest.raises(UserError) as raised:
    kernels.check(config(**fields), platform)
  assert (raised.value.field, raised.value.value) == (f'config.model.{field}', value)
  assert set(raised.value.allowed) == set(allowed)
  kernels.check(config(), platform)


@pytest.mark.parametrize(
  ('name', 'context', 'length', 'multiple'),
  [
    ('reference', 8, 12, 8),
    ('ring', 8, 12, 8),
    ('cudnn', 1, 127, 2),
    ('splash', 1, 160, 128),
    ('splash', 4, 384, 512),
  ],
)
def test_a_length_that_an_attention_cannot_cut_is_refused_before_the_run(
  name, context, length, multiple
):
  mesh = AbstractMesh((context,), ('context',))
  with pytest.raises(UserError) as raised:
    kernels.check_length(name, mesh, length)
  assert (raised.value.field, raised.value.value) == ('config.seq_len', length)
  assert f'multiples of {multiple},' in raised.value.allowed
  kernels.check_length(name, mesh, multiple)
  with pytest.raises(UserError) as raised:
    kernels.check_length('splatsh', mesh, length)
  assert (raised.value.field, raised.value.value) == ('config.model.attention', 'splatsh')


def test_rows_that_splash_cannot_cut_are_refused():
  q, k, v, _, segments = (x[:, :100] for x in inputs())
  with pytest.raises(UserError) as raised:
    kernels.attend('splash', q, k, v, segments, 1.0, 0.0, 0)
  assert raised.value.value == 100 and 'multiples of 128,' in raised.value.allowed
