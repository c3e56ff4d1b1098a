"""How tokens are drawn: the filters against NumPy, and draws against their probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refused

from lm.base.errors import UserError
from lm.infer import sampling
from lm.infer.sampling import RowSampling, Sampling


def np_filtered(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, banned_ids=()):
  """Probabilities [V] of one row in float64, from the definitions: ban, temper, keep k, keep the
  nucleus, keep what is not much less likely than the likeliest.
  """
  logits = np.array(logits, np.float64) / (temperature or 1)
  logits[list(banned_ids)] = -np.inf
  order = sorted(range(len(logits)), key=lambda i: -logits[i])
  p = np.exp(logits - logits.max())
  if temperature == 0:
    return p / p.sum()
  if top_k:
    p[order[top_k:]] = 0
  p /= p.sum()
  kept, total = [], 0.0
  for i in order:
    if total >= top_p:
      break
    kept.append(i)
    total += p[i]
  nucleus = np.zeros_like(p)
  nucleus[kept] = p[kept]
  nucleus[p < min_p * p.max()] = 0
  return nucleus / nucleus.sum()


def filtered(logits, *ways):
  """Log-probabilities [B, V] that are drawn from, with one `Sampling` for all rows or for each."""
  rows = RowSampling.of(ways, logits.shape[-1])
  return np.asarray(sampling.filter_logits(jnp.asarray(logits), rows))


@pytest.mark.slow
@pytest.mark.parametrize(
  'options',
  [
    {'temperature': 0.5},
    {'top_k': 1},
    {'top_k': 5},
    {'top_k': 99},
    {'top_p': 0.01},
    {'top_p': 0.6},
    {'temperature': 2.0, 'top_k': 8, 'top_p': 0.7},
    {'top_p': 0.9, 'banned_ids': (0, 11)},
    {'min_p': 0.1},
    {'min_p': 1.0},
    {'temperature': 2.0, 'top_k': 12, 'top_p': 0.95, 'min_p': 0.2, 'banned_ids': (5,)},
    {'temperature': 0, 'top_k': 2, 'top_p': 0.5, 'min_p': 0.5},
  ],
)
def test_filters_equal_numpy(options):
  logits = (3 * np.random.default_rng(1).normal(size=(16, 23))).astype(np.float32)
  log_p = filtered(logits, Sampling(**options))
  expected = np.array([np_filtered(row, **options) for row in logits])
  np.testing.assert_array_equal(np.isneginf(log_p), expected == 0)
  np.testing.assert_allclose(np.exp(log_p), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  'temperature, top_k, top_p',
  [
    (1.0, [0, 1, 7, 40], 1.0),
    (1.0, [0, 1, 7, 999], 1.0),  # the last needs more than the candidates
    (1.0, 0, [0.3, 0.5, 1.0, 0.7]),
    (9.0, 0, [0.3, 0.5, 1.0, 0.9]),  # so flat that the candidates do not sum to p
    ([1.0, 0.0, 2.0, 9.0], [5, 5, 0, 0], [1.0, 0.5, 0.2, 0.99]),
  ],
)
def test_filters_of_a_large_vocabulary_equal_numpy(monkeypatch, temperature, top_k, top_p):
  monkeypatch.setattr(sampling, 'CANDIDATES', (16, 50))
  logits = np.random.default_rng(2).normal(size=(4, 1000)).astype(np.float32)
  logits[:, :500] = logits[:, 500:] = np.round(logits[:, 500:], 1)  # most tokens have equals
  ways = np.broadcast_arrays(temperature, top_k, top_p, range(4))[:3]
  log_p = filtered(
    logits, *(Sampling(float(t), int(k), float(p)) for t, k, p in zip(*ways, strict=True))
  )
  for i, row in enumerate(logits):
    one = [np.broadcast_to(x, 4)[i] for x in (temperature, top_k, top_p)]
    p = np_filtered(row, temperature=one[0], top_p=one[2]) if not one[1] else None
    if p is None:  # all equals of the k-th are kept
      kth = np.sort(row)[-one[1]]
      p = np_filtered(np.where(row < kth, -np.inf, row), temperature=one[0], top_p=one[2])
      p = np_filtered(row, temperature=0) if one[0] == 0 else p
    np.testing.assert_allclose(np.exp(log_p[i]), p, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(np.isneginf(log_p[i]), p == 0)


@pytest.mark.slow
def test_top_p_keeps_the_token_that_crosses_it_and_one_at_least():
  log_p = jnp.log(jnp.array([[0.1, 0.5, 0.15, 0.25]]))
  for top_p, kept in (
    (0.45, {1}),
    (0.6, {1, 3}),
    (0.8, {1, 2, 3}),
    (1e-6, {1}),
    (1e-46, {1}),  # 0 in float32
    (1.0, {0, 1, 2, 3}),
  ):
    found = filtered(log_p, Sampling(top_p=top_p))[0]
    assert set(np.flatnonzero(np.isfinite(found)).tolist()) == kept


def test_the_repetition_penalty_the_bias_and_the_bans_come_in_that_order():
  """As in transformers: positive logits of tokens that occurred are divided, others multiplied."""
  logits = np.array([[2.0, -1.0, 0.5, -3.0, 1.0]], np.float32)
  way = Sampling(0.5, repetition_penalty=4.0, logit_bias={0: 1.0, 3: -2.0}, banned_ids=(4,))
  rows = RowSampling.of([way], 5)
  rows.seen_BV[0, [0, 1]] = True
  expected = np.array([2 / 4 + 1, -4, 0.5, -5, -np.inf]) / 0.5
  np.testing.assert_allclose(sampling.temper(jnp.asarray(logits), rows)[0], expected, rtol=1e-6)
  several = RowSampling.of([way, Sampling()], 5)  # a row without a penalty beside one with it
  several.seen_BV[:, 0] = True
  tempered = jax.jit(sampling.temper)(jnp.repeat(logits, 2, 0), several)
  np.testing.assert_allclose(tempered[1], logits[0])
  assert tempered[0, 0] == pytest.approx(3.0)


@pytest.mark.slow
@pytest.mark.parametrize('size', [5, 256, 1000])
def test_a_token_is_picked_as_often_as_it_is_probable(size):
  rng = np.random.default_rng(0)
  p = rng.dirichlet(np.full(size, 0.1)).astype(np.float32)
  p[rng.random(size) < 0.3] = 0
  n = 20_000
  uniform = ((np.arange(n) + 0.5) / n).astype(np.float32)  # one number in each n-th of the range
  picked = np.asarray(jax.jit(sampling.pick)(np.broadcast_to(p, (n, size)), uniform))
  counts = np.bincount(picked, minlength=size)
  assert len(counts) == size and not counts[p == 0].any()
  np.testing.assert_allclose(counts, n * p / p.sum(), atol=2)


def test_the_ends_of_the_range_pick_tokens_that_can_be_drawn():
  p = np.zeros((2, 700), np.float32)
  p[:, [3, 600]] = 0.7, 0.3
  last = np.nextafter(np.float32(1), np.float32(0))
  assert sampling.pick(jnp.asarray(p), jnp.array([0.0, last])).tolist() == [3, 600]


def test_a_temperature_too_small_for_float32_takes_the_likeliest_token():
  rows = RowSampling.of([Sampling(temperature=1e-40), Sampling(temperature=1e-7)], 4)
  token_B, log_p_B = sampling.draw(jnp.array([[0.0, 9.0, 3.0, 1.0]] * 2), rows, jnp.zeros(2, int))
  assert token_B.tolist() == [1, 1] and np.isfinite(log_p_B).all()


@pytest.mark.parametrize(
  'field, value',
  [
    ('temperature', -1.0),
    ('temperature', float('nan')),
    ('top_k', -1),
    ('top_p', 0.0),
    ('top_p', 1.1),
    ('min_p', 1.1),
    ('min_p', -0.1),
    ('repetition_penalty', 0.0),
    ('repetition_penalty', 1e-46),
    ('logit_bias', {1: float('inf')}),
  ],
)
def test_numbers_that_are_not_allowed_are_named(field, value):
  with pytest.raises(UserError) as raised:
    Sampling(**{field: value})
  assert raised.value.field == field


@pytest.mark.parametrize(
  ('way', 'field', 'value'),
  [
    (Sampling(logit_bias={23: 1.0}), 'logit_bias', 23),
    (Sampling(banned_ids=(-1,)), 'banned_ids', -1),
  ],
)
def test_ids_outside_the_vocabulary_are_named(way, field, value):
  with refused(field, value, 'ids from 0 to 22'):
    way.bias(23)


def test_the_models_own_log_probs_and_the_likeliest_tokens():
  logits = np.random.default_rng(3).normal(size=(2, 40)).astype(np.float32)
  log_p, ids, tops = sampling.top(jnp.asarray(logits), np.array([5, 7]), 3)
  expected = np.asarray(jax.nn.log_softmax(logits))
  np.testing.assert_allclose(log_p, expected[[0, 1], [5, 7]], rtol=1e-5)
  np.testing.assert_array_equal(ids, np.argsort(-logits)[:, :3])
  np.testing.assert_allclose(tops, np.sort(expected)[:, ::-1][:, :3], rtol=1e-5)


def test_the_first_of_equal_largest_numbers_is_found():
  x = np.full((3, 2 * sampling.STRETCH + 3), -2.0, np.float32)
  x[1, [7, sampling.STRETCH]] = 1.5
  x[2, [2 * sampling.STRETCH + 1, 2 * sampling.STRETCH + 2]] = -1
  places, numbers = sampling.largest(jnp.asarray(x))
  assert places.tolist() == [0, 7, 2 * sampling.STRETCH + 1]
  assert numbers.tolist() == [-2, 1.5, -1]
