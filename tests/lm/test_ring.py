"""Ring attention over meshes of eight devices against the reference on one, gradients included."""

import contextlib
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from lm.base.errors import UserError
from lm.cost import hlo
from lm.model import transformer
from lm.model.attention import kernels, reference, ring
from lm.parallel import sharding

B, T, N, K, H = 2, 32, 4, 2, 8


def on(axes):
  """The mesh of eight devices, in use; without axes none is."""
  if not axes:
    return contextlib.nullcontext()
  return jax.set_mesh(sharding.make_mesh(ConfigDict(dict.fromkeys(sharding.AXES, 1) | axes)))


def inputs(dtype=jnp.float32):
  """(q, k, v, dout, segments): documents that cross the borders of devices, and padding that fills
  some devices.
  """
  rng = np.random.default_rng(0)
  arrays = (jnp.asarray(rng.normal(size=(B, T, heads, H)), dtype) for heads in (N, K, K, N))
  segments = np.stack([np.arange(T) // 13 + 1, np.where(np.arange(T) < 11, 1, 0)]).astype(np.int32)
  return *arrays, segments


def both(function, axes, q, k, v, dout):
  """Output and gradients, and the compiled program."""

  def run(q, k, v, dout):
    out, backward = jax.vjp(function, q, k, v)
    return out, *backward(dout)

  arrays = q, k, v, dout
  with on(axes):
    if axes:
      place = jax.NamedSharding(jax.sharding.get_mesh(), jax.P(sharding.BATCH, 'context', 'tensor'))
      arrays = jax.device_put(arrays, place)
    compiled = jax.jit(run).lower(*arrays).compile()
    return jax.device_get(compiled(*arrays)), compiled.as_text()


def ringed(segments, cap=0.0, window=0):
  return lambda q, k, v: kernels.attend('ring', q, k, v, segments, 0.4, cap, window)


def expected_attention(segments, cap=0.0, window=0):
  distance = np.arange(T)[:, None] - np.arange(T)[None]
  mask = (distance >= 0) & (segments[:, :, None] == segments[:, None, :])
  return lambda q, k, v: reference.attend(
    q, k, v, mask & (distance < window) if window else mask, 0.4, cap
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ('axes', 'cap', 'window', 'turns'),
  [
    ({'context': 4, 'tensor': 2}, 0.0, 0, 3),
    # the first query of a part sees one key of the last part but one
    ({'fsdp': 2, 'context': 4}, 2.0, 10, 2),
    ({'context': 8}, 0.0, 9, 2),  # and here all keys of it
    ({}, 2.0, 9, 0),
  ],
)
def test_a_ring_is_the_reference(axes, cap, window, turns, monkeypatch):
  *arrays, segments = inputs()
  expected, _ = both(expected_attention(segments, cap, window), {}, *arrays)
  monkeypatch.setattr(ring, 'BLOCK', 4)
  got, text = both(ringed(segments, cap, window), axes, *arrays)
  chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=2e-5)
  # Keys, values and documents go round twice, gradients of keys and values once and home; nothing
  # is gathered.
  sizes = dict.fromkeys(sharding.AXES, 1) | axes
  tokens = B * T // math.prod(sizes[axis] for axis in (*sharding.BATCH, 'context'))
  sent = (
    4
    * tokens
    * (2 * turns * (2 * K * H // sizes['tensor'] + 1) + (turns + 1) * 2 * K * H // sizes['tensor'])
  )
  count = 2 * turns * 3 + (turns + 1) * 2
  assert hlo.cost(text, sizes).collectives() == (
    {'context': {'collective-permute': {'count': count, 'bytes': sent}}} if turns else {}
  )


def test_sums_are_float32_where_inputs_are_bfloat16():
  *arrays, segments = inputs(jnp.bfloat16)
  got, _ = both(ringed(segments), {'fsdp': 2, 'context': 4}, *arrays)
  expected, _ = both(expected_attention(segments), {}, *(x.astype(jnp.float32) for x in arrays))
  chex.assert_trees_all_equal_dtypes(got, tuple(arrays[i] for i in (0, 0, 1, 2)))
  chex.assert_trees_all_close(
    jax.tree.map(lambda x: x.astype(np.float32), got), expected, atol=0.05
  )


def test_the_backward_pass_keeps_no_scores():
  *arrays, _, segments = inputs()
  _, backward = jax.vjp(ringed(segments), *arrays)
  assert max(x.size for x in jax.tree.leaves(backward)) <= arrays[0].size < B * N * T * T


@pytest.mark.slow
@pytest.mark.parametrize('kinds', [('window', 'full'), ('full',)])
def test_a_model_is_that_of_the_reference_and_keeps_no_masks(kinds, monkeypatch):
  monkeypatch.setattr(ring, 'BLOCK', 4)
  fields = {
    'vocab_size': 24,
    'num_layers': 2,
    'embed_dim': 16,
    'num_heads': N,
    'num_kv_heads': K,
    'head_dim': 4,
    'mlp_dim': 24,
    'layer_types': kinds,
    'window': 9,
    'remat': 'full',
    'init_std': 0.3,
  }
  *_, segments = inputs()
  tokens = np.random.default_rng(0).integers(24, size=(B, T))

  def run(attention, axes):
    config = FrozenConfigDict(base.get_config().model.to_dict() | fields | {'attention': attention})

    def loss(params):
      hidden, _ = transformer.Transformer(config).apply({'params': params}, tokens, None, segments)
      return jnp.square(hidden - 1).sum()

    params = jax.jit(transformer.init_params, static_argnums=0)(config, jax.random.key(0))
    with on(axes):
      compiled = jax.jit(jax.value_and_grad(loss)).lower(params).compile()
      return jax.device_get(compiled(params)), compiled.as_text()

  got, text = run('ring', {'fsdp': 2, 'context': 4})
  chex.assert_trees_all_close(got, run('reference', {})[0], rtol=2e-4, atol=1e-3)
  # masks of several blocks or stops, kept for all layers
  assert not re.search(r'pred\[(\d+,){5}', text)


def test_a_row_that_the_mesh_does_not_divide_is_refused():
  *arrays, _, segments = (x[:, :30] for x in inputs())
  with (
    on({'fsdp': 2, 'context': 4}),
    pytest.raises(UserError) as raised,
  ):
    ringed(segments)(*arrays)
  assert (raised.value.field, raised.value.value) == ('config.mesh.context', 4)
  assert '30 tokens' in raised.value.allowed
