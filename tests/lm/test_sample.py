"""Generation against forward passes without a cache, and the filters against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from lm.base.errors import UserError
from lm.infer import engine, sampling
from lm.infer.sampling import Sampling

# every full forward is padded to this, which changes nothing before the padding: one compilation
LENGTH = 32
KEY = jax.random.key(7)
RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(23, size=n).tolist() for n in (5, 1, 9)]


def np_filtered(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, banned=()):
  """Probabilities [V] of one row in float64, from the definitions: ban, temper, keep k, keep the
  nucleus, keep what is not much less likely than the likeliest.
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
  nucleus[p < min_p * p.max()] = 0
  return nucleus / nucleus.sum()


def full(config, params, forward, rows):
  """Logits [B, LENGTH, V] of rows of any length up to LENGTH, without a cache."""
  tokens = np.zeros((len(rows), LENGTH), np.int32)
  for padded, row in zip(tokens, rows, strict=True):
    padded[: len(row)] = row
  return np.asarray(forward(config, params, tokens))


def draws(temperature=1.0, banned=(), **options):
  """A Sampling with bans, of the vocabulary of 23 tokens that tests have."""
  return Sampling.create(temperature, **options).ban(banned, 23)


def generate(config, params, prompts, sampling, **options):
  options = {'key': KEY, 'max_new_tokens': 12, 'stop_ids': [], 'capacity': LENGTH} | options
  return engine.generate(config, params, prompts, sampling=sampling, **options)


@pytest.mark.parametrize(
  'fields', [{}, {'position': 'learned', 'norm': 'layernorm', 'num_kv_heads': 4}]
)
def test_greedy_equals_argmax_of_full_forwards(tiny, forward, fields):
  config, params = tiny(**fields)
  completions = generate(config, params, PROMPTS, Sampling.create(0))
  # Causal: the logits at a place are those of a forward of the tokens up to it, so one forward
  # checks the whole rollout.
  logits = full(
    config, params, forward, [p + c.tokens for p, c in zip(PROMPTS, completions, strict=True)]
  )
  for row, prompt, c in zip(logits, PROMPTS, completions, strict=True):
    assert c.tokens == row[len(prompt) - 1 : len(prompt) + 11].argmax(-1).tolist()
    assert not c.finished


@pytest.mark.parametrize(
  'options',
  [
    {'temperature': 0},
    {'temperature': 0.7, 'top_k': 9, 'top_p': 0.8, 'banned': (3, 4)},
    {'temperature': 1.3},
    {'temperature': 1.3, 'min_p': 0.1},
  ],
)
def test_log_probs_are_those_of_a_full_forward(tiny, forward, options):
  config, params = tiny()
  completions = generate(config, params, PROMPTS, draws(**options))
  logits = full(
    config, params, forward, [p + c.tokens for p, c in zip(PROMPTS, completions, strict=True)]
  )
  for i, (prompt, c) in enumerate(zip(PROMPTS, completions, strict=True)):
    assert len(c.tokens) == len(c.log_probs) == len(c.sampled) == 12 and all(c.sampled)
    for n, token in enumerate(c.tokens):
      p = np_filtered(logits[i, len(prompt) - 1 + n], **options)
      assert c.log_probs[n] == pytest.approx(np.log(p[token]), abs=2e-4)


def test_a_row_does_not_depend_on_its_neighbours(tiny):
  config, params = tiny()
  sampler = Sampling.create(1.5)
  together = generate(config, params, PROMPTS, sampler)
  ends = jnp.zeros(23, bool)
  for i, prompt in enumerate(PROMPTS):
    tokens, num = engine.pad_tokens([prompt], 32)
    state = engine.prefill(config, params, engine.start(config, 1, LENGTH), tokens, num)
    alone = sampler.for_rows(1, 23, jax.random.fold_in(KEY, i)[None])
    _, out = engine.decode(config, 12, params, state, alone, np.array([12], np.int32), ends)
    assert out.tokens_BM[0].tolist() == together[i].tokens
    np.testing.assert_allclose(out.log_probs_BM[0], together[i].log_probs, atol=1e-5)
  assert (
    together[0].tokens
    != generate(config, params, PROMPTS, sampler, key=jax.random.key(8))[0].tokens
  )
  twins = generate(config, params, [PROMPTS[0]] * 3, sampler)
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
    {'top_p': 0.9, 'banned': (0, 11)},
    {'min_p': 0.1},
    {'min_p': 1.0},
    {'temperature': 2.0, 'top_k': 12, 'top_p': 0.95, 'min_p': 0.2, 'banned': (5,)},
    {'temperature': 0, 'top_k': 2, 'top_p': 0.5, 'min_p': 0.5},
  ],
)
def test_filters_equal_numpy(options):
  logits = (3 * np.random.default_rng(1).normal(size=(16, 23))).astype(np.float32)
  log_p = np.asarray(sampling.filter_logits(jnp.asarray(logits), draws(**options)))
  expected = np.array([np_filtered(row, **options) for row in logits])
  np.testing.assert_array_equal(np.isneginf(log_p), expected == 0)
  np.testing.assert_allclose(np.exp(log_p), expected, rtol=1e-4, atol=1e-6)


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
  many = Sampling.create(temperature, top_k=top_k, top_p=top_p)
  log_p = np.asarray(sampling.filter_logits(jnp.asarray(logits), many))
  for i, row in enumerate(logits):
    one = [np.broadcast_to(x, 4)[i] for x in (temperature, top_k, top_p)]
    p = np_filtered(row, temperature=one[0], top_p=one[2]) if not one[1] else None
    if p is None:  # all equals of the k-th are kept
      kth = np.sort(row)[-one[1]]
      p = np_filtered(np.where(row < kth, -np.inf, row), temperature=one[0], top_p=one[2])
      p = np_filtered(row, temperature=0) if one[0] == 0 else p
    np.testing.assert_allclose(np.exp(log_p[i]), p, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(np.isneginf(log_p[i]), p == 0)


MIX = {
  'temperature': [0, 1.0, 0.7, 1.3, 0, 2.0],
  'top_k': [0, 3, 0, 0, 5, 0],
  'top_p': [1.0, 1.0, 0.6, 1.0, 0.5, 1.0],
  'min_p': [0, 0, 0, 0.2, 0, 0],
}
SIX = [*PROMPTS, *PROMPTS]


def test_one_compilation_serves_every_mix_and_each_row_is_as_if_alone(tiny):
  config, params = tiny()
  start = engine.decode._cache_size()
  mixed = generate(config, params, SIX, draws(**MIX))
  assert engine.decode._cache_size() <= start + 1
  compiled = engine.decode._cache_size()
  for i in range(6):  # every row's way of drawing in turn, for all rows
    same = generate(config, params, SIX, draws(**{name: value[i] for name, value in MIX.items()}))
    assert same[i].tokens == mixed[i].tokens
    np.testing.assert_allclose(same[i].log_probs, mixed[i].log_probs, atol=1e-5)
  generate(config, params, SIX, draws(banned=(1, 2)), stop_ids=[3], pause_ids=[4])
  generate(config, params, SIX, draws().force([[1], [], [2, 3], [], [], []], 7))
  assert engine.decode._cache_size() == compiled
  assert len({tuple(c.tokens) for c in mixed}) == 6


def test_bans_may_differ_from_row_to_row(tiny):
  config, params = tiny()
  banned = np.zeros((3, 23), bool)
  banned[0, :11], banned[1, 11:] = True, True
  out = generate(config, params, PROMPTS, Sampling.create(1.5).replace(banned_BV=banned))
  assert min(out[0].tokens) >= 11 and max(out[1].tokens) < 11 and len(set(out[2].tokens)) > 1


@pytest.mark.parametrize('temperature', [0, 1.5])
def test_forced_tokens_are_read_as_a_prompt_is(tiny, temperature):
  config, params = tiny()
  forced = [[], [3, 1, 4], list(range(20))]  # the last is longer than the queue
  out = generate(config, params, PROMPTS, draws(temperature).force(forced, 20), capacity=48)
  longer = [p + f for p, f in zip(PROMPTS, forced, strict=True)]
  read = generate(config, params, longer, draws(temperature), capacity=48)
  for f, c, whole in zip(forced, out, read, strict=True):
    assert c.tokens == f + whole.tokens
    assert c.sampled == [False] * len(f) + [True] * 12
    assert c.log_probs[: len(f)] == [0] * len(f)
    np.testing.assert_allclose(c.log_probs[len(f) :], whole.log_probs, atol=1e-4)


def test_a_forced_token_ends_no_row_and_is_not_charged(tiny):
  config, params = tiny()
  free = generate(config, params, [[*PROMPTS[0], 3, 4]], Sampling.create(0), max_new_tokens=3)
  [out] = generate(
    config,
    params,
    PROMPTS[:1],
    Sampling.create(0).force([[3, 4]], 2),
    max_new_tokens=3,
    stop_ids=[{3, 4}.difference(free[0].tokens).pop()],
  )
  assert out.tokens == [3, 4, *free[0].tokens] and not out.finished


def prefilled(monkeypatch):
  """Has `engine.prefill` note how many tokens it is given, padding included: a list."""
  sizes, prefill = [], engine.prefill

  def count(config, params, state, tokens_BT, num_B):
    sizes.append(tokens_BT.size)
    return prefill(config, params, state, tokens_BT, num_B)

  monkeypatch.setattr(engine, 'prefill', count)
  return sizes


def test_a_prompt_is_read_once_for_all_its_completions(tiny, monkeypatch):
  config, params = tiny()
  sizes = prefilled(monkeypatch)
  group = generate(config, params, PROMPTS, draws(1.5), repeats=4)
  apart = generate(config, params, [p for p in PROMPTS for _ in range(4)], draws(1.5))
  assert sizes == [3 * 32, 12 * 32]
  assert [c.tokens for c in group] == [c.tokens for c in apart]
  for one, other in zip(group, apart, strict=True):
    np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)
  assert len({tuple(c.tokens) for c in group}) == 12


@pytest.mark.parametrize('temperature', [0, 1.0])
def test_ids_beyond_the_tokenizers_are_never_drawn(tiny, temperature):
  config, params = tiny(tie_embeddings=False)
  head = np.array(params['head'])
  head[19:] *= 100  # by far the likeliest, if they could be drawn
  out = generate(config, params | {'head': head}, PROMPTS, draws(temperature, banned=range(19, 23)))
  assert max(max(c.tokens) for c in out) < 19


def test_top_p_keeps_the_token_that_crosses_it_and_one_at_least():
  log_p = jnp.log(jnp.array([[0.1, 0.5, 0.15, 0.25]]))
  for top_p, kept in (
    (0.45, {1}),
    (0.6, {1, 3}),
    (0.8, {1, 2, 3}),
    (1e-6, {1}),
    (1.0, {0, 1, 2, 3}),
  ):
    filtered = sampling.filter_logits(log_p, Sampling.create(top_p=top_p))[0]
    assert set(np.flatnonzero(np.isfinite(filtered)).tolist()) == kept


def test_draws_follow_the_softmax(tiny, forward):
  config, params = tiny()
  B = 2000
  sampler = draws(1.5, banned=(2,))
  drawn = [
    c.tokens
    for c in generate(config, params, [PROMPTS[0]] * B, sampler, max_new_tokens=2, capacity=8)
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
  free = generate(config, params, PROMPTS, Sampling.create(0), max_new_tokens=20, capacity=16)
  assert [len(c.tokens) for c in free] == [11, 15, 7]  # until 16 tokens are in the cache
  assert not any(c.finished for c in free)
  stop = free[1].tokens[3]
  stopped = generate(config, params, PROMPTS, Sampling.create(0), stop_ids=[stop])
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
  sampler = Sampling.create(0).for_rows(len(budget_B), 23, jax.random.split(KEY, len(budget_B)))
  state, out = engine.decode(
    config, 12, params, state, sampler, np.array(budget_B, np.int32), jnp.zeros(23, bool)
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
  free = generate(config, params, PROMPTS, Sampling.create(0))
  pause, forced, calls = free[0].tokens[2], [20, 21, 22, 20], []

  def tool(ids):
    calls.append(list(ids))
    return list(forced)

  done = generate(
    config, params, PROMPTS, Sampling.create(0), pause_ids=[pause], tool=tool, max_calls=1
  )
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
    config, params, PROMPTS, Sampling.create(0), max_calls=3, tool=lambda ids: [1, 2], **always
  )
  assert [c.sampled for c in out] == [[True, False, False] * 3 + [True]] * 3
  # 5 and 9 tokens, one more is drawn: 6 tokens fit beside 9 of 16, 6 + 10 do not
  prompts = [PROMPTS[0], PROMPTS[2]]
  out = generate(
    config, params, prompts, Sampling.create(0), capacity=16, tool=lambda ids: [1] * 6, **always
  )
  assert [c.sampled for c in out] == [[True] + [False] * 6 + [True], [True]]
  out = generate(config, params, PROMPTS, Sampling.create(0), tool=lambda ids: [], **always)
  assert [c.sampled for c in out] == [[True]] * 3
  out = generate(
    config,
    params,
    PROMPTS,
    Sampling.create(0),
    tool=lambda ids: [1],
    pause_ids=range(23),
    max_new_tokens=1,
  )
  assert [c.sampled for c in out] == [[True]] * 3  # no budget is left to go on with


def test_what_cannot_be_continued_is_named(tiny):
  config, params = tiny()
  learned = FrozenConfigDict(config.to_dict() | {'position': 'learned'})
  for prompts, number, length in ([[1], []], 1, 0), ([[1] * 32], 0, 32):
    with pytest.raises(UserError) as raised:
      generate(config, params, prompts, Sampling.create(0))
    assert raised.value.field.endswith(f'prompt {number}') and raised.value.value == length
    assert raised.value.allowed.startswith('from 1 to 31,')
  with pytest.raises(UserError) as raised:
    generate(learned, params, [[1]], Sampling.create(0), capacity=65)
  assert raised.value.value == 65 and 'max_len = 64' in raised.value.allowed
  for options in (
    {'temperature': -1.0},
    {'top_k': [3, -1]},
    {'top_p': 0.0},
    {'top_p': [0.5, 1.1]},
    {'min_p': 1.1},
    {'min_p': -0.1},
  ):
    with pytest.raises(UserError) as raised:
      Sampling.create(**options)
    assert {raised.value.field: raised.value.value} == options
