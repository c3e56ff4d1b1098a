"""Attention against the formula, differentiated by JAX."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model.attention import reference

B, K, G, H = 2, 2, 3, 8


def formula(q_BTNH, k_BSKH, v_BSKH, mask_BTS, scale=H**-0.5, cap=None):
  """Each query head on its own: softmax(cap(q k scale)) v."""
  heads = []
  for n in range(q_BTNH.shape[2]):
    scores_BTS = jnp.einsum('BTH,BSH->BTS', q_BTNH[:, :, n], k_BSKH[:, :, n // G]) * scale
    if cap:
      scores_BTS = jnp.tanh(scores_BTS / cap) * cap
    weights_BTS = jax.nn.softmax(jnp.where(mask_BTS, scores_BTS, -jnp.inf), axis=-1)
    heads.append(weights_BTS @ v_BSKH[:, :, n // G])
  return jnp.stack(heads, 2)


@pytest.fixture
def inputs():
  """inputs(T, S, causal) -> (q, k, v, dout, mask) with two documents in a row where causal, else a
  window of its own.
  """

  def make(T, S, causal):
    rng = np.random.default_rng(0)
    shapes = (B, T, K * G, H), (B, S, K, H), (B, S, K, H), (B, T, K * G, H)
    arrays = [2 * rng.normal(size=shape).astype(np.float32) for shape in shapes]
    segment = np.arange(S) >= S // 3
    mask = (
      np.tril(segment[:, None] == segment[None, :])
      if causal
      else np.arange(S)[None] <= np.arange(T)[:, None] + S - T
    )
    return *arrays, np.broadcast_to(mask, (B, T, S))

  return make


@pytest.mark.slow
@pytest.mark.parametrize(
  ('T', 'S', 'causal', 'cached'),
  [
    (5, 5, True, reference.CACHED),
    (5, 9, False, reference.CACHED),
    (130, 130, True, 0),  # one row at a time
    (300, 300, True, reference.CACHED),
  ],
)
def test_values_and_gradients_are_those_of_the_formula(inputs, monkeypatch, T, S, causal, cached):
  monkeypatch.setattr(reference, 'CACHED', cached)
  q, k, v, dout, mask = inputs(T, S, causal)

  def both(function):
    return jax.value_and_grad(lambda *x: jnp.vdot(function(*x), dout), argnums=(0, 1, 2))(q, k, v)

  ours = both(lambda *x: reference.attend(*x, mask, H**-0.5, causal=causal))
  chex.assert_trees_all_close(ours, both(lambda *x: formula(*x, mask)), rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_scores_are_scaled_and_capped_as_asked(inputs):
  q, k, v, dout, mask = inputs(70, 70, True)

  def both(function):
    return jax.value_and_grad(
      lambda *x: jnp.vdot(function(*x, mask, 0.7, 3.0), dout), argnums=(0, 1, 2)
    )(q, k, v)

  ours = both(functools.partial(reference.attend, causal=True))
  chex.assert_trees_all_close(ours, both(formula), rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_the_backward_pass_keeps_nothing_of_size_queries_times_keys(inputs):
  q, k, v, _, mask = inputs(200, 200, True)
  _, backward = jax.vjp(lambda *x: reference.attend(*x, mask, H**-0.5, causal=True), q, k, v)
  floats = [x for x in jax.tree.leaves(backward) if jnp.issubdtype(x.dtype, jnp.floating)]
  assert floats and max(x.size for x in floats) <= q.size


def test_bfloat16_goes_in_and_out_while_the_softmax_is_float32(inputs):
  *arrays, dout, mask = inputs(64, 64, True)
  q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in arrays)
  out, backward = jax.vjp(lambda *x: reference.attend(*x, mask, H**-0.5, causal=True), q, k, v)
  grads = backward(jnp.asarray(dout, jnp.bfloat16))
  chex.assert_trees_all_equal_dtypes([out, *grads], [q, q, k, v])
  expected = formula(*(x.astype(jnp.float32) for x in (q, k, v)), mask)
  np.testing.assert_allclose(out.astype(np.float32), expected, atol=0.1)
