"""Generation against forward passes without a cache, and the filters against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from lm.base.errors import UserError
from lm.infer import engine
from lm.infer.engine import Sampling

# every full forward is padded to this, which changes nothing before the padding: one compilation
LENGTH = 32
KEY = jax.random.key(7)
RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(23, size=n).tolist() for n in (5, 1, 9)]


def np_filtered(logits, *, temperature=1.0, top_k=0, top_p=1.0, banned=()):
  """Probabilities [V] of one row in float64, from the definitions: ban, temper, keep k, keep the
  nucleus.
  """
  logits = np.array(logits, np.float64) / (temperature or 1)
  logits[list(banned)] = -np.inf
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
  return nucleus / nucleus.sum()


def full(config, params, forward, rows):
  """Logits [B, LENGTH, V] of rows of any length up to LENGTH, without a cache."""
  tokens = np.zeros((len(rows), LENGTH), np.int32)
  for padded, row in zip(tokens, rows, strict=True):
    padded[: len(row)] = row
  return np.asarray(forward(config, params, tokens))


def generate(config, params, prompts, sampling, **options):
  options = {'key': KEY, 'max_new_tokens': 12, 'stop_ids': [], 'capacity': LENGTH} | options
  return engine.generate(config, params, prompts, sampling=sampling, **options)


@pytest.mark.parametrize(
  'fields', [{}, {'position': 'learned', 'norm': 'layernorm', 'num_kv_heads': 4}]
)
def test_greedy_equals_argmax_of_full_forwards(tiny, forward, fields):
  config, params = tiny(**fields)
  completions = generate(config, params, PROMPTS, Sampling(0))
  # Causal: the logits at a place are those of a forward of the tokens up to it, so one forward
  # checks the whole rollout.
  logits = full(
    config, params, forward, [p + c.tokens for p, c in zip(PROMPTS, completions, strict=True)]
  )
  for row, prompt, c in zip(logits, PROMPTS, completions, strict=True):
    assert c.tokens == row[len(prompt) - 1 : len(prompt) + 11].argmax(-1).tolist()
    assert not c.finished


@pytest.mark.parametrize(
  'sampling', [Sampling(0), Sampling(0.7, top_k=9, top_p=0.8, banned_ids=(3, 4)), Sampling(1.3)]
)
def test_log_probs_are_those_of_a_full_forward(tiny, forward, sampling):
  config, params = tiny()
  completions = generate(config, params, PROMPTS, sampling)
  logits = full(
    config, params, forward, [p + c.tokens for p, c in zip(PROMPTS, completions, strict=True)]
  )
  for i, (prompt, c) in enumerate(zip(PROMPTS, completions, strict=True)):
    assert len(c.tokens) == len(c.log_probs) == len(c.sampled) == 12 and all(c.sampled)
    for n, token in enumerate(c.tokens):
      p = np_filtered(
        logits[i, len(prompt) - 1 + n],
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        banned=sampling.banned_ids,
      )
      assert c.log_probs[n] == pytest.approx(np.log(p[token]), abs=2e-4)


def test_a_row_does_not_depend_on_its_neighbours(tiny):
  config, params = tiny()
  sampling = Sampling(1.5)
  together = generate(config, params, PROMPTS, sampling)
  ends = jnp.zeros(23, bool)
  for i, prompt in enumerate(PROMPTS):
    tokens, num = engine.pad_tokens([prompt], 32)
    state = engine.prefill(config, params, engine.start(config, 1, LENGTH), tokens, num)
    _, out = engine.decode(
      config,
      sampling,
      12,
      params,
      state,
      np.array([12], np.int32),
      ends,
      jax.random.fold_in(KEY, i)[None],
    )
    assert out.tokens_BM[0].tolist() == together[i].tokens
    np.testing.assert_allclose(out.log_probs_BM[0], together[i].log_probs, atol=1e-5)
  assert (
    together[0].tokens
    != generate(config, params, PROMPTS, sampling, key=jax.random.key(8))[0].tokens
  )
  twins = generate(config, params, [PROMPTS[0]] * 3, sampling)
  assert twins[0].tokens != twins[1].tokens


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
    {'temperature': 0, 'top_k': 2},
  ],
)
def test_filters_equal_numpy(options):
  logits = (3 * np.random.default_rng(1).normal(size=(16, 23))).astype(np.float32)
  log_p = np.asarray(engine.filter_logits(jnp.asarray(logits), Sampling(**options)))
  named = {'banned' if name == 'banned_ids' else name: value for name, value in options.items()}
  expected = np.array([np_filtered(row, **named) for row in logits])
  np.testing.assert_array_equal(np.isneginf(log_p), expected == 0)
  np.testing.assert_allclose(np.exp(log_p), expected, rtol=1e-4, atol=1e-6)


def test_top_p_keeps_the_token_that_crosses_it_and_one_at_least():
  log_p = jnp.log(jnp.array([[0.1, 0.5, 0.15, 0.25]]))
  for top_p, kept in (
    (0.45, {1}),
    (0.6, {1, 3}),
    (0.8, {1, 2, 3}),
    (1e-6, {1}),
    (1.0, {0, 1, 2, 3}),
  ):
    filtered = engine.filter_logits(log_p, Sampling(top_p=top_p))[0]
    assert set(np.flatnonzero(np.isfinite(filtered)).tolist()) == kept


def test_draws_follow_the_softmax(tiny, forward):
  config, params = tiny()
  B = 2000
  sampling = Sampling(1.5, banned_ids=(2,))
  drawn = [
    c.tokens
    for c in generate(config, params, [PROMPTS[0]] * B, sampling, max_new_tokens=2, capacity=8)
  ]
  first = full(config, params, forward, [PROMPTS[0]])[0, 4]
  starts = [[*PROMPTS[0], token] for token in range(23)]
  second = full(config, params, forward, starts)[:, 5]
  p = np_filtered(first, temperature=1.5, banned=(2,))
  joint = p[:, None] * np.array([np_filtered(row, temperature=1.5, banned=(2,)) for row in second])
  counts = np.zeros((23, 23))
  np.add.at(counts, tuple(np.array(drawn).T), 1)
  assert counts[joint == 0].sum() == 0
  for expected, found in (
    (B * p, counts.sum(1)),
    (B * joint.sum(0), counts.sum(0)),
    (B * joint, counts),
  ):
    error = np.abs(found - expected) / np.sqrt(expected + 1)
    assert error.max() < 5, 'five standard deviations'


def test_stop_budget_and_a_full_cache_end_rows_one_by_one(tiny):
  config, params = tiny()
  free = generate(config, params, PROMPTS, Sampling(0), max_new_tokens=20, capacity=16)
  assert [len(c.tokens) for c in free] == [11, 15, 7]  # until 16 tokens are in the cache
  assert not any(c.finished for c in free)
  stop = free[1].tokens[3]
  stopped = generate(config, params, PROMPTS, Sampling(0), stop_ids=[stop])
  for c, whole in zip(stopped, free, strict=True):
    seen = whole.tokens[:12]
    assert c.finished == (stop in seen)
    seen = seen[: seen.index(stop) + 1] if stop in seen else seen  # the stop token itself is kept
    assert c.tokens[: len(seen)] == seen and len(c.log_probs) == len(c.sampled) == len(c.tokens)
    assert len(c.tokens) == (len(seen) if c.finished else 12)
  assert stopped[1].finished and not all(c.finished for c in stopped)


def decode(config, params, prompt, budget_B):
  tokens, num = engine.pad_tokens([prompt] * len(budget_B), 32)
  state = engine.prefill(config, params, engine.start(config, len(budget_B), LENGTH), tokens, num)
  before = np.asarray(state.logits_BV)
  keys = jax.random.split(KEY, len(budget_B))
  state, out = engine.decode(
    config, Sampling(0), 12, params, state, np.array(budget_B, np.int32), jnp.zeros(23, bool), keys
  )
  return before, state, out


def test_rows_at_rest_keep_their_logits_and_cache(tiny, forward):
  config, params = tiny()
  before, state, out = decode(config, params, PROMPTS[0], [0, 2, 4])
  assert out.count_B.tolist() == [0, 2, 4] and state.cache.length_B.tolist() == [5, 7, 9]
  np.testing.assert_array_equal(state.logits_BV[0], before[0])
  assert out.tokens_BM[0].tolist() == [0] * 12 and out.tokens_BM[1, 2:].tolist() == [0] * 10
  rows = [PROMPTS[0] + out.tokens_BM[i, :n].tolist() for i, n in enumerate((0, 2, 4))]
  logits = full(config, params, forward, rows)
  for i, row in enumerate(rows):
    np.testing.assert_allclose(state.logits_BV[i], logits[i, len(row) - 1], rtol=1e-4, atol=1e-4)


def test_a_tool_is_called_at_the_pause_and_its_tokens_are_read(tiny, forward):
  config, params = tiny()
  free = generate(config, params, PROMPTS, Sampling(0))
  pause, forced, calls = free[0].tokens[2], [20, 21, 22, 20], []

  def tool(ids):
    calls.append(list(ids))
    return list(forced)

  done = generate(config, params, PROMPTS, Sampling(0), pause_ids=[pause], tool=tool, max_calls=1)
  expected_calls = []
  for prompt, c, whole in zip(PROMPTS, done, free, strict=True):
    if pause not in whole.tokens[:11]:
      assert c.tokens == whole.tokens and all(c.sampled)
      continue
    n = whole.tokens.index(pause) + 1
    expected_calls.append(whole.tokens[:n])
    assert c.tokens[: n + 4] == whole.tokens[:n] + forced
    logits = full(config, params, forward, [prompt + c.tokens] * 3)[0, len(prompt) - 1 :]
    for i, token in enumerate(c.tokens):
      sampled = not n <= i < n + 4
      assert c.sampled[i] == sampled
      # what follows conditions on the forced tokens
      assert not sampled or token == logits[i].argmax()
      p = np_filtered(logits[i], temperature=0)[token]
      assert c.log_probs[i] == (pytest.approx(np.log(p), abs=2e-4) if sampled else 0)
    # Forced tokens are not charged to the budget; a second pause, with no calls left, ends the row
    # unfinished.
    later = c.tokens[n + 4 :]
    assert later[-1] == pause or sum(c.sampled) == 12
    assert pause not in later[:-1] and not c.finished
  assert calls == expected_calls and expected_calls


def test_calls_are_limited_and_results_that_do_not_fit_are_left_out(tiny):
  config, params = tiny()
  always = {'pause_ids': range(23), 'max_new_tokens': 12}  # every token calls
  out = generate(
    config, params, PROMPTS, Sampling(0), max_calls=3, tool=lambda ids: [1, 2], **always
  )
  assert [c.sampled for c in out] == [[True, False, False] * 3 + [True]] * 3
  # 5 and 9 tokens, one more is drawn: 6 tokens fit beside 9 of 16, 6 + 10 do not
  prompts = [PROMPTS[0], PROMPTS[2]]
  out = generate(
    config, params, prompts, Sampling(0), capacity=16, tool=lambda ids: [1] * 6, **always
  )
  assert [c.sampled for c in out] == [[True] + [False] * 6 + [True], [True]]
  out = generate(config, params, PROMPTS, Sampling(0), tool=lambda ids: [], **always)
  assert [c.sampled for c in out] == [[True]] * 3
  out = generate(
    config,
    params,
    PROMPTS,
    Sampling(0),
    tool=lambda ids: [1],
    pause_ids=range(23),
    max_new_tokens=1,
  )
  assert [c.sampled for c in out] == [[True]] * 3  # no budget is left to go on with


def test_what_cannot_be_continued_is_named(tiny):
  config, params = tiny()
  learned = FrozenConfigDict(config.to_dict() | {'position': 'learned'})
  with pytest.raises(UserError, match='prompt 1 has 0 tokens; allowed: 1 to 31'):
    generate(config, params, [[1], []], Sampling(0))
  with pytest.raises(UserError, match='prompt 0 has 32 tokens; allowed: 1 to 31'):
    generate(config, params, [[1] * 32], Sampling(0))
  with pytest.raises(
    UserError, match='context of 65 tokens was asked for; the learned positions end at max_len, 64'
  ):
    generate(learned, params, [[1]], Sampling(0), capacity=65)
  for options in ({'temperature': -1.0}, {'top_k': -1}, {'top_p': 0.0}, {'top_p': 1.1}):
    with pytest.raises(UserError, match='top_p is above 0'):
      Sampling(**options)
