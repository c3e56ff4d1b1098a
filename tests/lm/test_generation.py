"""Completions of lists of prompts against forward passes without a cache."""

import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from test_sampling import np_filtered

from lm.base.errors import UserError
from lm.infer import generation, programs
from lm.infer.sampling import Sampling

# every full forward is padded to this, which changes nothing before the padding: one compilation
LENGTH = 32
KEY = jax.random.key(7)
RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(23, size=n).tolist() for n in (5, 1, 9)]


def full(config, params, forward, rows):
  """Logits [B, LENGTH, V] of rows of any length up to LENGTH, without a cache."""
  tokens = np.zeros((len(rows), LENGTH), np.int32)
  for padded, row in zip(tokens, rows, strict=True):
    padded[: len(row)] = row
  return np.asarray(forward(config, params, tokens))


def generate(config, params, prompts, sampling, **options):
  options = {'key': KEY, 'max_new_tokens': 12, 'stop_ids': [], 'capacity': LENGTH} | options
  return generation.generate(config, params, prompts, sampling=sampling, **options)


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
  'options',
  [
    {'temperature': 0},
    {'temperature': 0.7, 'top_k': 9, 'top_p': 0.8, 'banned_ids': (3, 4)},
    {'temperature': 1.3},
    {'temperature': 1.3, 'min_p': 0.1},
  ],
)
def test_log_probs_are_those_of_a_full_forward(tiny, forward, options):
  config, params = tiny()
  completions = generate(config, params, PROMPTS, Sampling(**options))
  logits = full(
    config, params, forward, [p + c.tokens for p, c in zip(PROMPTS, completions, strict=True)]
  )
  for i, (prompt, c) in enumerate(zip(PROMPTS, completions, strict=True)):
    assert len(c.tokens) == len(c.log_probs) == len(c.sampled) == 12 and all(c.sampled)
    for n, token in enumerate(c.tokens):
      p = np_filtered(logits[i, len(prompt) - 1 + n], **options)
      assert c.log_probs[n] == pytest.approx(np.log(p[token]), abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize('temperature', [0, 1.0])
def test_ids_beyond_the_tokenizers_are_never_drawn(tiny, temperature):
  config, params = tiny(tie_embeddings=False)
  head = np.array(params['head'])
  head[19:] *= 100  # by far the likeliest, if they could be drawn
  out = generate(
    config, params | {'head': head}, PROMPTS, Sampling(temperature, banned_ids=range(19, 23))
  )
  assert max(max(c.tokens) for c in out) < 19


@pytest.mark.slow
def test_draws_follow_the_softmax(tiny, forward):
  config, params = tiny()
  B = 2000
  sampler = Sampling(1.5, banned_ids=(2,))
  drawn = [
    c.tokens
    for c in generate(
      config, params, [PROMPTS[0]] * B, sampler, max_new_tokens=2, capacity=8, rows=500
    )
  ]
  first = full(config, params, forward, [PROMPTS[0]])[0, 4]
  starts = [[*PROMPTS[0], token] for token in range(23)]
  second = full(config, params, forward, starts)[:, 5]
  p = np_filtered(first, temperature=1.5, banned_ids=(2,))
  joint = p[:, None] * np.array(
    [np_filtered(row, temperature=1.5, banned_ids=(2,)) for row in second]
  )
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


@pytest.mark.slow
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


@pytest.mark.slow
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
  assert sorted(calls) == sorted(expected_calls) and expected_calls


@pytest.mark.slow
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


MIX = [
  Sampling(0),
  Sampling(1.0, top_k=3),
  Sampling(0.7, top_p=0.6),
  Sampling(1.3, min_p=0.2),
  Sampling(0, repetition_penalty=1.5, logit_bias={3: 4.0}),
  Sampling(2.0, banned_ids=(1, 2)),
]
SIX = [*PROMPTS, *PROMPTS]


def test_one_compilation_serves_every_mix_and_each_row_is_as_if_alone(tiny):
  config, params = tiny()
  mixed = generate(config, params, SIX, MIX)
  compiled = programs.decode._cache_size()
  for i in range(6):  # every row's way of drawing in turn, for all rows
    same = generate(config, params, SIX, MIX[i])
    assert same[i].tokens == mixed[i].tokens
    np.testing.assert_allclose(same[i].log_probs, mixed[i].log_probs, atol=1e-5)
  generate(config, params, SIX, Sampling(banned_ids=(1, 2)), stop_ids=[3], pause_ids=[4])
  assert programs.decode._cache_size() == compiled
  assert len({tuple(c.tokens) for c in mixed}) == 6


def test_the_key_decides_the_draws_and_twins_differ(tiny):
  config, params = tiny()
  first, again = (generate(config, params, PROMPTS, Sampling(1.5)) for _ in range(2))
  other = generate(config, params, PROMPTS, Sampling(1.5), key=jax.random.key(8))
  assert [c.tokens for c in first] == [c.tokens for c in again]
  assert all(a.tokens != b.tokens for a, b in zip(first, other, strict=True))
  twins = generate(config, params, [PROMPTS[0]] * 3, Sampling(1.5))
  assert len({tuple(c.tokens) for c in twins}) == 3


@pytest.mark.slow
def test_a_prompt_is_read_once_for_all_its_completions(tiny, monkeypatch):
  config, params = tiny()
  read, prefill = [], programs.prefill

  def count(config, params, rows, rows_R, tokens_RT, num_R, capacity):
    read.append(int(num_R.sum()))
    return prefill(config, params, rows, rows_R, tokens_RT, num_R, capacity)

  monkeypatch.setattr(programs, 'prefill', count)
  prompts = [PROMPTS[0], PROMPTS[2]]
  group = generate(config, params, prompts, Sampling(1.5), repeats=4)
  assert sum(read) == 4 + 8  # all but the last token of each
  apart = [generate(config, params, [prompt] * 8, Sampling(1.5)) for prompt in prompts]
  assert [c.tokens for c in group] == [c.tokens for c in apart[0][:4] + apart[1][4:]]
  assert {c.reused for c in group} == {0, 4, 8} and len({tuple(c.tokens) for c in group}) == 8


@pytest.mark.slow
def test_fewer_rows_than_completions_give_the_same(tiny):
  config, params = tiny()
  few = generate(config, params, SIX, MIX, rows=3)
  for one, other in zip(few, generate(config, params, SIX, MIX), strict=True):
    assert one.tokens == other.tokens
    np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)


def test_what_cannot_be_continued_is_named(tiny):
  config, params = tiny()
  learned = FrozenConfigDict(config.to_dict() | {'position': 'learned'})
  for prompts in ([[1], []], [[1] * 32]):
    with pytest.raises(UserError) as raised:
      generate(config, params, prompts, Sampling(0))
    assert raised.value.field == 'prompt' and raised.value.value == f'{len(prompts[-1])} tokens'
  with pytest.raises(UserError) as raised:
    generate(learned, params, [[1]], Sampling(0), capacity=65)
  assert (raised.value.field, raised.value.value) == ('context', 65)
  assert 'max_len = 64' in raised.value.allowed
