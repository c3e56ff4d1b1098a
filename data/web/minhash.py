"""Exact duplicates, repeated passages, and near-duplicates by MinHash (Broder 1997), vectorised in
NumPy.
"""

import functools
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from data.records import hashing

# FineWeb (Penedo et al. 2024): pairs of Jaccard s become candidates with 1 - (1 - s^8)^14
BANDS, ROWS = 14, 8
CLUSTER_ROWS = 2  # 56 bands of 2: at s = .5 all but 1e-7 of the pairs become candidates
# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han. There each character
# counts as a word.
_SPACELESS = '\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff'
_WORD = re.compile(rf'[{_SPACELESS}]|[^\W{_SPACELESS}]+')
_CHUNK = 4096  # shingles hashed at once: 3.7 MB of 112 hashes each


def normalised(text: str) -> str:
  """Lower case, and each run of whitespace one space: what exact duplicates have in common."""
  return ' '.join(text.lower().split())


def digest(text: str) -> str:
  """Hex SHA-256 of the normalised text."""
  return hashlib.sha256(normalised(text).encode()).hexdigest()


def remove_repeated_passages(texts: Sequence[str], window: int = 3) -> list[str]:
  """Cuts every run of `window` or more lines that stood before, in the same text or in one earlier
  in rank.

  Pages of one site share menus, footers and, in reference pages, inherited entries. CCNet (Wenzek
  et al. 2020, arXiv 1911.00359, section 3.1) drops each single line that was seen before, which
  tears holes in lists and code; a run of lines is evidence enough. The longest text ranks first, so
  the fullest page keeps what several share.

  Args:
    texts: documents.
    window: lines (blank ones do not count) that must repeat together.

  Returns:
    The documents without the repeated lines, in the order of `texts`.
  """
  seen: set[tuple[str, ...]] = set()
  result = list(texts)
  for index in sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i)):
    lines = texts[index].split('\n')
    solid = [i for i, line in enumerate(lines) if line.strip()]
    keys = [hash(lines[i].strip()) for i in solid]  # within one process only
    dropped = set()
    for i in range(len(solid) - window + 1):
      key = tuple(keys[i : i + window])
      if key in seen:
        dropped.update(solid[i : i + window])
      seen.add(key)
    if dropped:
      kept = '\n'.join(line for i, line in enumerate(lines) if i not in dropped)
      result[index] = re.sub(r'\n{3,}', '\n\n', kept).strip('\n')
  return result


@functools.lru_cache(1 << 20)
def _word_hash(word: str) -> int:
  return int.from_bytes(
    hashlib.blake2b(word.encode('utf-8', 'surrogatepass'), digest_size=8).digest(), 'little'
  )


def words(text: str) -> list[str]:
  """Lower-case runs of letters and digits; of a script without spaces between words, the single
  characters.
  """
  return _WORD.findall(text.lower())


def ngrams(words: list[str], n: int) -> np.ndarray:
  """Hashes of the n-grams in order, uint64 [count]; fewer than n words are one n-gram."""
  hashed = np.array([_word_hash(word) for word in words], np.uint64)
  count = max(len(words) - n + 1, 1)
  hashes = np.zeros(count, np.uint64)
  for i in range(min(n, len(words))):
    hashes = hashing.mix(hashes + np.uint64(0x9E3779B97F4A7C15) + hashed[i : i + count])
  return hashes


def shingles(text: str, n: int = 5) -> np.ndarray:
  """The set of word n-grams as sorted uint64 [count]. A text of fewer than n words is one
  shingle.
  """
  return np.unique(ngrams(words(text), n))


@functools.cache
def _permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(1)
  a, b = rng.integers(1, 2**63, (2, count), dtype=np.uint64)
  return a * np.uint64(2) + np.uint64(1), b


def signature(hashes: np.ndarray, count: int = BANDS * ROWS) -> np.ndarray:
  """MinHash signature, uint64 [count], of a set of 64-bit hashes [n]. Two agree at a place with
  probability Jaccard.
  """
  a, b = _permutations(count)
  result = np.full(count, np.iinfo(np.uint64).max)
  for start in range(0, len(hashes), _CHUNK):
    chunk = hashes[start : start + _CHUNK, None]
    result = np.minimum(result, hashing.mix(chunk * a[None] + b[None]).min(axis=0))
  return result


def candidates(signatures: np.ndarray, rows: int) -> np.ndarray:
  """Pairs, int [n, 2] with i < j, of signatures [documents, hashes] that agree in a whole band of
  `rows` hashes.
  """
  pairs = set()
  for start in range(0, signatures.shape[1] - rows + 1, rows):
    buckets = defaultdict(list)
    for index, band in enumerate(np.ascontiguousarray(signatures[:, start : start + rows])):
      buckets[band.tobytes()].append(index)
    for members in buckets.values():
      pairs.update((a, b) for i, a in enumerate(members) for b in members[i + 1 :])
  return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
  """Exact Jaccard similarity of two sorted arrays of distinct hashes."""
  both = np.intersect1d(a, b, assume_unique=True).size
  return both / max(a.size + b.size - both, 1)


def components(count: int, pairs: np.ndarray) -> list[int]:
  """The smallest member of each document's connected component in the graph of `pairs`, int [n, 2];
  [count].
  """
  from scipy.sparse import coo_array, csgraph  # a second to import, and only the clusters need it

  a, b = np.asarray(pairs, np.int64).reshape(-1, 2).T
  _, labels = csgraph.connected_components(
    coo_array((np.ones(len(a), bool), (a, b)), (count, count)), directed=False
  )
  _, first = np.unique(labels, return_index=True)
  return first[labels].tolist()


def clusters(hashes: Sequence[np.ndarray], signatures: np.ndarray, similarity: float) -> list[int]:
  """Component of each document under exact Jaccard >= `similarity`; pairs come from bands of 2
  hashes.

  A split between these components leaves no pair of that similarity on both sides.
  """
  pairs = candidates(signatures, CLUSTER_ROWS)
  # The signature's estimate has a standard error of at most .05: .2 below the limit nothing is
  # lost.
  likely = (signatures[pairs[:, 0]] == signatures[pairs[:, 1]]).mean(axis=1) >= similarity - 0.2
  alike = [jaccard(hashes[a], hashes[b]) >= similarity for a, b in pairs[likely]]
  return components(len(hashes), pairs[likely][np.array(alike, bool)])
