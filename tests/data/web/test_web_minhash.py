"""Duplicates: MinHash against its formula, shingles against sets of tuples, passages by hand."""

import itertools
import math
import re

import numpy as np
import pytest

from data.web import minhash


def pair(rng, similarity, union=300):
  """Two sets of random 64-bit hashes with this exact Jaccard similarity."""
  hashes = np.unique(rng.integers(0, 2**64, 2 * union, dtype=np.uint64))
  rng.shuffle(hashes)
  common = round(similarity * union)
  middle = (union + common) // 2
  a, b = hashes[:middle], np.concatenate([hashes[:common], hashes[middle:union]])
  assert len(np.intersect1d(a, b)) / len(np.union1d(a, b)) == pytest.approx(similarity)
  return np.sort(a), np.sort(b)


@pytest.mark.slow
@pytest.mark.parametrize('similarity', [0.5, 0.6, 0.7, 0.8, 0.9])
def test_candidates_follow_the_formula(similarity):
  rng, trials = np.random.default_rng(int(similarity * 10)), 400
  found, agreement = 0, []
  for _ in range(trials):
    signatures = np.array([minhash.signature(hashes) for hashes in pair(rng, similarity)])
    found += len(minhash.candidates(signatures, minhash.ROWS))
    agreement.append((signatures[0] == signatures[1]).mean())
    assert len(minhash.candidates(signatures, minhash.CLUSTER_ROWS)) == 1
  expected = 1 - (1 - similarity**8) ** 14
  assert abs(found / trials - expected) < 4 * math.sqrt(expected * (1 - expected) / trials)
  assert abs(np.mean(agreement) - similarity) < 4 * math.sqrt(
    similarity * (1 - similarity) / 112 / trials
  )


def test_unlike_sets_rarely_agree():
  rng = np.random.default_rng(0)
  signatures = np.array(
    [minhash.signature(rng.integers(0, 2**64, 200, dtype=np.uint64)) for _ in range(200)]
  )
  assert len(minhash.candidates(signatures, minhash.ROWS)) == 0
  assert len({tuple(row) for row in signatures}) == 200


def words_of(rng, count, vocabulary):
  return [f'w{i}' for i in rng.integers(0, vocabulary, count)]


def tuples(text, n=5):
  words = re.findall(r'\w+', text.lower())
  return {tuple(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))}


def test_shingles_are_the_set_of_word_5grams():
  rng = np.random.default_rng(0)
  for count in (0, 1, 4, 5, 6, 50, 5000):
    for vocabulary in (2, 5, 1000):
      texts = [
        ', '.join(words_of(rng, count, vocabulary)),
        ' '.join(words_of(rng, count, vocabulary)).upper(),
      ]
      sets, hashes = [tuples(text) for text in texts], [minhash.shingles(text) for text in texts]
      assert [len(h) for h in hashes] == [len(s) for s in sets]
      assert minhash.jaccard(*hashes) == pytest.approx(
        len(sets[0] & sets[1]) / len(sets[0] | sets[1])
      )
  assert minhash.shingles('one two') != minhash.shingles('two one')


def test_signature_does_not_depend_on_chunks(monkeypatch):
  hashes = np.random.default_rng(0).integers(0, 2**64, 1000, dtype=np.uint64)
  whole = minhash.signature(hashes)
  monkeypatch.setattr(minhash, '_CHUNK', 7)
  assert (minhash.signature(hashes) == whole).all()


def test_components_are_those_of_the_graph():
  rng = np.random.default_rng(0)
  for _ in range(50):
    pairs = rng.integers(0, 30, (rng.integers(0, 30), 2))
    reach = np.eye(30, dtype=bool)
    for a, b in pairs:
      reach[a, b] = reach[b, a] = True
    for _ in range(5):  # paths of up to 32 edges
      reach = (reach.astype(int) @ reach.astype(int)) > 0
    assert minhash.components(30, pairs) == [int(np.argmax(row)) for row in reach]


def test_no_pair_over_the_similarity_is_in_two_clusters():
  rng = np.random.default_rng(3)
  texts = []
  for _ in range(30):
    base = words_of(rng, 300, 100_000)
    for changes in (0, 5, 10, 20, 40, 80):
      words = list(base)
      for i in rng.integers(0, 300, changes):
        words[i] = 'changed'
      texts.append(' '.join(words))
  hashes = [minhash.shingles(text) for text in texts]
  signatures = np.array([minhash.signature(h) for h in hashes])
  cluster = minhash.clusters(hashes, signatures, 0.5)
  sets = [tuples(text) for text in texts]
  over = under = 0
  for a, b in itertools.combinations(range(len(texts)), 2):
    if len(sets[a] & sets[b]) / len(sets[a] | sets[b]) >= 0.5:
      over += 1
      assert cluster[a] == cluster[b]
    else:
      under += cluster[a] != cluster[b]
  assert over > 60 and under > 10_000 and len(set(cluster)) >= 60


def test_exact_duplicates_differ_in_case_and_space_only():
  assert minhash.digest('A  page\nof text ') == minhash.digest('a page of TEXT')
  assert minhash.digest('a page of text') != minhash.digest('a page of texts')


def test_repeated_passages_are_cut_from_all_but_the_longest_text():
  menu = 'Home\n\nAbout\nContact'
  short = f'{menu}\n\nA short page.\nHome\n'
  long = f'{menu}\n\nThe longest page of all of them, which keeps the menu.\nIt ends here.'
  twice = 'First line of it.\nSecond line of it.\nThird line of it.'
  texts = [short, long, f'{twice}\n\nBetween.\n\n{twice}']
  assert minhash.remove_repeated_passages(texts, 3) == [
    'A short page.\nHome',
    long,
    f'{twice}\n\nBetween.',
  ]
  assert minhash.remove_repeated_passages(texts, 4) == texts
