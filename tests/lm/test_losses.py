"""Losses against the same formula with all logits at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.infer.sampling import RowSampling, Sampling, log_probs
from lm.train import losses

B, T, D, V = 3, 8, 6, 13
ALL = np.ones((B, T), np.float32)  # weights


def inputs(seed=0):
  rng = np.random.default_rng(seed)
  x, head = (
    rng.normal(size=(B, T, D)).astype(np.float32),
    rng.normal(size=(V, D)).astype(np.float32),
  )
  weights = rng.choice([0.0, 1.0, 0.5], size=(B, T)).astype(np.float32)
  return x, head, rng.integers(V, size=(B, T), dtype=np.int32), weights


def numpy_cross_entropy(x, head, targets, weights, z_loss, cap=None):
  """Value and gradients in float64: d/dlogits = w (softmax (1 + 2 z log Z) - onehot), times sech^2
  where capped.
  """
  x, head = x.astype(np.float64), head.astype(np.float64)
  raw = x @ head.T
  logits = cap * np.tanh(raw / cap) if cap else raw
  log_z = np.log(np.exp(logits).sum(-1))
  onehot = np.eye(V)[targets]
  value = (weights * (log_z - (logits * onehot).sum(-1) + z_loss * log_z**2)).sum()
  p = np.exp(logits - log_z[..., None])
  dlogits = weights[..., None] * (p * (1 + 2 * z_loss * log_z)[..., None] - onehot)
  if cap:
    dlogits /= np.cosh(raw / cap) ** 2
  return value, dlogits @ head, np.einsum('btv,btd->vd', dlogits, x)


@pytest.mark.slow
@pytest.mark.parametrize(('z_loss', 'cap'), [(0.0, 0.0), (0.1, 0.0), (0.1, 2.0)])
@pytest.mark.parametrize(
  ('chunk', 'vocab_blocks'), [(1, 0), (5, 0), (7, 0), (24, 0), (1000, 0), (1, 1), (1, 4), (1, 13)]
)
def test_cross_entropy_and_its_gradients(chunk, vocab_blocks, z_loss, cap):
  x, head, targets, weights = inputs()
  value, dx, dhead = numpy_cross_entropy(x, head, targets, weights, z_loss, cap)
  args = (targets, weights, chunk, z_loss, cap, vocab_blocks)
  total, nats, log_z_squared = losses.cross_entropy(x, head, *args)
  plain = numpy_cross_entropy(x, head, targets, weights, 0.0, cap)[0]
  np.testing.assert_allclose((total, nats), (value, plain), rtol=1e-5)
  squares = numpy_cross_entropy(x, head, targets, weights, 1.0, cap)[0] - plain
  np.testing.assert_allclose(log_z_squared, squares, rtol=1e-5)

  def thrice(x, head):
    return 3.0 * losses.cross_entropy(x, head, *args)[0]

  got, grads = jax.value_and_grad(thrice, argnums=(0, 1))(x, head)
  np.testing.assert_allclose(got, 3 * value, rtol=1e-5)  # 3: what comes in from above is passed on
  np.testing.assert_allclose(grads[0], 3 * dx, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(grads[1], 3 * dhead, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('vocab_blocks', [0, 4])
def test_cross_entropy_stays_finite_at_huge_logits(vocab_blocks):
  x, head, targets, weights = inputs()

  def total(x):
    return losses.cross_entropy(x, head, targets, weights, 8, vocab_blocks=vocab_blocks)[0]

  value, grad = jax.value_and_grad(total)(1e4 * x)
  assert np.isfinite(value) and np.isfinite(grad).all()


@pytest.mark.slow
@pytest.mark.parametrize('vocab_blocks', [0, 4])
def test_cross_entropy_is_the_same_where_all_logits_are_lower(vocab_blocks):
  """exp of the logits themselves would be 0, or not finite, for all of them."""
  x, head, targets, weights = inputs()
  x, low, high = (
    np.concatenate([a, np.full((*a.shape[:-1], 1), value, np.float32)], axis=-1)
    for a, value in ((x, 1), (head, -300), (head, 300))
  )
  expected, dx, dhead = numpy_cross_entropy(x[..., :-1], head, targets, weights, 0.0)

  def total(x, head):
    return losses.cross_entropy(x, head, targets, weights, 8, vocab_blocks=vocab_blocks)[0]

  for shifted in (low, high):
    value, grads = jax.value_and_grad(total, argnums=(0, 1))(x, shifted)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(grads[0][..., :-1], dx, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(grads[1][:, :-1], dhead, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('vocab_blocks', [0, 4])
def test_bfloat16_states_give_float32_sums(vocab_blocks):
  x, head, targets, weights = inputs()
  low = jnp.asarray(x, jnp.bfloat16)

  def total(x, head):
    return losses.cross_entropy(x, head, targets, weights, 8, vocab_blocks=vocab_blocks)[0]

  value, (dx, dhead) = jax.value_and_grad(total, argnums=(0, 1))(low, head)
  assert (value.dtype, dx.dtype, dhead.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
  # Only the factors of the logits are rounded to bfloat16, the logits are not.
  rounded = np.asarray(low, np.float64), np.asarray(jnp.asarray(head, jnp.bfloat16), np.float64)
  np.testing.assert_allclose(
    value, numpy_cross_entropy(*rounded, targets, weights, 0.0)[0], rtol=1e-5
  )


def numpy_log_probs(x, head, targets, temperature, cap=None):
  logits = x.astype(np.float64) @ head.T.astype(np.float64)
  logits = (cap * np.tanh(logits / cap) if cap else logits) / temperature
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return np.take_along_axis(log_p, targets[..., None], -1)[..., 0], -(np.exp(log_p) * log_p).sum(-1)


@pytest.mark.parametrize(('temperature', 'cap'), [(1.0, 0.0), (0.5, 0.0), (0.5, 2.0)])
@pytest.mark.parametrize('chunk', [5, 24])
def test_log_probs_and_entropies(chunk, temperature, cap):
  x, head, targets, _ = inputs()
  log_p, entropy = numpy_log_probs(x, head, targets, temperature, cap)
  got = losses.token_log_probs(
    x, head, targets, ALL, chunk, lambda logits: jax.nn.log_softmax(logits / temperature), cap
  )
  np.testing.assert_allclose(got[0], log_p, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(got[1], entropy, rtol=1e-4, atol=1e-5)


def test_gradient_of_log_probs_against_differences():
  x, head, targets, weights = inputs()
  rows = RowSampling.of([Sampling(0.7)], len(head))
  normalize = functools.partial(log_probs, rows=rows)
  grad = jax.grad(
    lambda x: jnp.sum(weights * losses.token_log_probs(x, head, targets, ALL, 5, normalize)[0])
  )(x)
  direction = np.random.default_rng(1).normal(size=x.shape)
  ends = [
    (weights * numpy_log_probs(x + h * direction, head, targets, 0.7)[0]).sum()
    for h in (1e-5, -1e-5)
  ]
  np.testing.assert_allclose((grad * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-3)


def test_banned_tokens_have_no_probability_and_no_gradient():
  x, head, targets, _ = inputs()
  targets = np.where(targets == 4, 5, targets)
  rows = RowSampling.of([Sampling(banned_ids=(4,))], len(head))
  normalize = functools.partial(log_probs, rows=rows)
  without = np.delete(head, 4, axis=0)
  log_p, entropy = numpy_log_probs(x, without, targets - (targets > 4), 1.0)
  got = losses.token_log_probs(x, head, targets, ALL, 24, normalize)
  np.testing.assert_allclose(got[0], log_p, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(got[1], entropy, rtol=1e-4, atol=1e-5)
  grad = jax.grad(
    lambda head: sum(y.sum() for y in losses.token_log_probs(x, head, targets, ALL, 24, normalize))
  )(head)
  assert np.isfinite(grad).all() and not grad[4].any() and grad[5].any()


@pytest.fixture
def small_chunks(monkeypatch):
  """Chunks of a position of every row: those without weights are passed over."""
  monkeypatch.setattr(losses, 'FEWEST_TOKENS', 1)


@pytest.mark.parametrize('learned', [0, 1, 5, T])
def test_cross_entropy_where_many_tokens_have_no_weight(learned, small_chunks):
  x, head, targets, _ = inputs()
  rng = np.random.default_rng(1)
  weights = rng.permuted(np.arange(T) < rng.integers(learned + 1, size=(B, 1)), axis=1) * 0.5
  value, dx, dhead = numpy_cross_entropy(x, head, targets, weights, 0.1, 2.0)

  def total(x, head):
    return losses.cross_entropy(x, head, targets, weights, 24, 0.1, 2.0, is_sparse=True)[0]

  got, (got_dx, got_dhead) = jax.value_and_grad(total, argnums=(0, 1))(x, head)
  np.testing.assert_allclose(got, value, rtol=1e-5)
  np.testing.assert_allclose(got_dx, dx, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(got_dhead, dhead, rtol=1e-4, atol=1e-5)


def test_tokens_without_weight_have_no_log_probability_and_no_gradient(small_chunks):
  x, head, targets, weights = inputs()
  log_p, entropy = numpy_log_probs(x, head, targets, 1.0)
  has_weight = weights > 0

  def scores(x, head):
    found = losses.token_log_probs(x, head, targets, weights, 24)
    return found[0].sum(), found

  (_, found), (dx, dhead) = jax.value_and_grad(scores, argnums=(0, 1), has_aux=True)(x, head)
  np.testing.assert_allclose(found[0], log_p * has_weight, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(found[1], entropy * has_weight, rtol=1e-4, atol=1e-5)
  _, expected_dx, expected_dhead = numpy_cross_entropy(x, head, targets, 1.0 * has_weight, 0.0)
  np.testing.assert_allclose(dx, -expected_dx, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(dhead, -expected_dhead, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('function', ['cross_entropy', 'token_log_probs'])
def test_no_product_is_computed_for_a_chunk_without_weights(function, small_chunks):
  x, head, targets, weights = inputs()
  x[:], head[:] = 1.0, np.nan  # Whatever reads the head becomes NaN.
  weights[:, :1], weights[:, 1:] = 1, 0

  def total(x):
    if function == 'cross_entropy':
      return losses.cross_entropy(x, head, targets, weights, 24, is_sparse=True)[0]
    return losses.token_log_probs(x, head, targets, weights, 24)[0].sum()

  value, dx = jax.jit(jax.value_and_grad(total))(x)
  assert np.isnan(value) and np.isnan(dx[:, 0]).all() and not dx[:, 1:].any()


@pytest.mark.parametrize('function', ['cross_entropy', 'by vocabulary', 'token_log_probs'])
def test_never_holds_all_logits(function):
  tokens, vocab, chunk = 4096, 1024, 64
  x, head = jnp.ones((4, tokens // 4, 8)), jnp.ones((vocab, 8))
  targets, weights = jnp.zeros((4, tokens // 4), jnp.int32), jnp.ones((4, tokens // 4))

  def total(x, head):
    if function == 'cross_entropy':
      return losses.cross_entropy(x, head, targets, weights, chunk)[0]
    if function == 'by vocabulary':
      return losses.cross_entropy(x, head, targets, weights, chunk, vocab_blocks=16)[0]
    return losses.token_log_probs(x, head, targets, weights, chunk)[0].sum()

  compiled = jax.jit(jax.value_and_grad(total, argnums=(0, 1))).lower(x, head).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 0.2 * 4 * tokens * vocab


def test_the_gradient_of_the_logits_is_computed_once_and_not_transposed():
  tokens, vocab, width = 512, 1024, 64
  x, head = jnp.ones((4, tokens // 4, width)), jnp.ones((vocab, width))
  targets, weights = jnp.zeros((4, tokens // 4), jnp.int32), jnp.ones((4, tokens // 4))

  def total(x, head):
    return losses.token_log_probs(x, head, targets, weights, tokens)[0].sum()

  text = jax.jit(jax.grad(total, argnums=(0, 1))).lower(x, head).compile().as_text()
  chunk = losses.FEWEST_TOKENS
  assert f'f32[{chunk},{vocab}]' in text and f'f32[{vocab},{chunk}]' not in text
