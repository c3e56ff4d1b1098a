import math

import numpy as np
import pytest
from refusals import refused

from data.shards import baselines, token_shards
from data.tokenizers import loading as tokenizers
from lm.base import files
from lm.base.errors import UserError


def batch(rows, weights=None):
  """A batch of data.loader from rows of ids."""
  rows = np.array(rows, np.int32)
  weights = np.ones(rows[:, 1:].shape) if weights is None else np.array(weights)
  return {'inputs': rows[:, :-1], 'targets': rows[:, 1:], 'weights': weights.astype(np.float32)}


def test_bigram_by_hand():
  # pairs: 0->1 three times, 0->2 once, 1->0 twice; vocabulary of 4
  counts = baselines.count([batch([[0, 1, 0, 1, 0]]), batch([[0, 1, 9, 0, 2]], [[1, 0, 0, 1]])])
  on = baselines.Pairs(*np.array([[0, 0, 0, 1, 3], [1, 2, 3, 0, 0], [1, 1, 1, 1, 1]]))
  d0, d1, d2, d3 = 0.25, 0.5, 0.75, 1.5
  got = baselines.bigram(counts.all, on, 4, [d0, d1, d2, d3])
  rest = 3 * d0 / 4  # of the three followers (1, 2 and 0, of one input each) to each of four tokens
  q = [(0.75 + rest) / 3, (0.75 + rest) / 3, (0.75 + rest) / 3, rest / 3]
  back = (d3 + d1) / 4  # discounts of 0->1 (three times) and 0->2 (once), of four
  expected = [
    1.5 / 4 + back * q[1],
    0.5 / 4 + back * q[2],
    back * q[3],
    1.25 / 2 + d2 / 2 * q[0],
    q[0],
  ]
  np.testing.assert_allclose(got, expected)


def random_batches(seed, rows=400):
  """Rows of a Markov chain of 30 states, the same chain for every seed."""
  chain = np.random.default_rng(0).dirichlet(np.full(30, 0.1), size=30)
  rng = np.random.default_rng(seed)
  states = [rng.integers(30, size=rows)]
  for _ in range(40):
    states.append(np.array([rng.choice(30, p=chain[s]) for s in states[-1]]))
  return [batch(part) for part in np.array_split(np.stack(states, 1), 10)], chain


def test_probabilities_sum_to_one_and_order_of_strength():
  (train, chain), (test, _) = random_batches(1), random_batches(2)
  counts, held_out = baselines.count(train), baselines.count(test)
  every = baselines.Pairs(
    np.repeat(np.arange(31), 31), np.tile(np.arange(31), 31), np.ones(31 * 31)
  )
  p = baselines.bigram(counts.all, every, 31, [0.3, 0.4, 0.7, 1.0]).reshape(31, 31)
  np.testing.assert_allclose(p.sum(1), 1)
  tokens = held_out.all.counts.sum()
  assert tokens == 400 * 40
  unigram, bigram = (
    f(counts, held_out, 31, tokens) for f in (baselines.unigram_bpb, baselines.bigram_bpb)
  )
  truth = -held_out.all.counts @ np.log2(chain[held_out.all.inputs, held_out.all.targets]) / tokens
  targets = np.concatenate([b['targets'].ravel() for b in test])
  share = np.bincount(np.concatenate([b['targets'].ravel() for b in train]), minlength=30) / tokens
  assert unigram == pytest.approx(-np.log2(share[targets]).mean(), rel=1e-3)
  assert truth < bigram < truth + 0.05 < unigram


def test_repeated_epochs_change_nothing():
  (train, _), (test, _) = random_batches(1, 60), random_batches(2, 60)
  held_out = baselines.count(test)
  once, thrice = baselines.count(train), baselines.count(train * 3)
  assert (once.repeats, thrice.repeats) == (1, 3)
  assert thrice.all.counts.sum() == 3 * once.all.counts.sum()
  for f in (baselines.unigram_bpb, baselines.bigram_bpb):
    assert f(thrice, held_out, 30, 1000) == pytest.approx(f(once, held_out, 30, 1000), rel=1e-9)


def test_kept_aside_rows_are_some_and_disjoint():
  counts = baselines.count(random_batches(1)[0])
  most, aside = counts.most.counts.sum(), counts.aside.counts.sum()
  assert most + aside == counts.all.counts.sum()
  assert 0.03 < aside / (most + aside) < 0.2


def test_adding_up_on_the_way_gives_the_same(monkeypatch):
  train = random_batches(1)[0]
  whole = baselines.count(train)
  monkeypatch.setattr(baselines, '_COMPACT', 100)
  for a, b in zip(whole[:3], baselines.count(train)[:3], strict=True):
    for x, y in zip(a, b, strict=True):
      np.testing.assert_array_equal(x, y)


def test_no_weight_at_all():
  with refused('target with a weight in these batches'):
    baselines.count([batch([[1, 2, 3]], [[0, 0]])])


def test_two_rows_are_too_few_to_keep_one_aside():
  counts = baselines.count([batch([[0, 1, 0, 1, 0]])])
  assert math.isfinite(baselines.bigram_bpb(counts, counts, 4, 10))


def test_text_and_compressors(tmp_path):
  tokenizer = tokenizers.load('bytes', ['<|endoftext|>'])
  texts = ['naïve text. ' * 50, 'and more of it\n' * 30]
  builder = token_shards.ShardWriter('uint16')
  for text in texts:
    builder.add([256, *text.encode()], None, len(text.encode()))
  head = {'version': token_shards.VERSION, 'kind': 'text', 'dtype': 'uint16', 'document_start': 256}
  head['tokenizer'] = {'fingerprint': tokenizer.fingerprint, 'vocab_size': 257}
  files.write_json(
    tmp_path / 'manifest.json', token_shards.manifest(head, [builder.write(tmp_path, 0)])
  )
  data = baselines.read_text(tmp_path / 'manifest.json', tokenizer)
  assert data == ''.join(texts).encode()
  ids = [256, *data, *data[:52]]
  rows = [ids[i : i + 53] for i in range(0, len(data), 52)]  # each target about once
  compared = baselines.compare(
    [batch(rows)], [batch(rows)], [tmp_path / 'manifest.json'], tokenizer
  )
  shares = np.bincount(list(data)) / len(data)
  entropy = -sum(share * math.log2(share) for share in shares if share)
  assert compared['unigram_bpb'] == pytest.approx(entropy, rel=0.1)
  # A letter nearly decides the next one, and a compressor writes each of the two lines once.
  assert 0.1 < compared['bigram_bpb'] < entropy / 2
  assert 0 < compared['gzip_bpb'] < 1.5 and 0 < compared['xz_bpb'] < 1.5
  with pytest.raises(UserError) as raised:
    baselines.read_text(tmp_path / 'manifest.json', tokenizers.load('bytes'))
  assert raised.value.field.startswith('tokenizer of')
  assert raised.value.value == tokenizer.fingerprint


@pytest.mark.parametrize('compressor', [baselines.gzip_bpb, baselines.xz_bpb])
def test_compressors_cannot_shorten_noise_and_take_a_pattern_for_nothing(compressor):
  noise = np.random.default_rng(0).bytes(100_000)
  assert 8 <= compressor(noise) < 8.1
  assert compressor(b'a' * 100_000) < 0.1
  # What comes again within 32 KiB costs nothing; only xz looks further back.
  assert 4 <= compressor(noise[:10_000] * 2) < 4.2
  far = compressor(noise[:50_000] * 2)
  assert far >= 8 if compressor is baselines.gzip_bpb else 4 <= far < 4.2
