"""Finds exact duplicates, repeated passages, and near-duplicates by MinHash (Broder 1997)."""

import functools
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from data.records import hashing

# FineWeb (Penedo et al. 2024): pairs of Jaccard similarity s become candidates with probability
# 1 - (1 - s^8)^14.
BANDS, ROWS = 14, 8
CLUSTER_ROWS = 2  # in 56 bands: at s = 0.5 all pairs but 1e-7 of them become candidates
# In scripts without spaces between words each character counts as a word: Thai, Lao, Burmese,
# Khmer, kana, Han.
_SPACELESS = (
  '\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff'
  '\U00020000-\U0003ffff'
)
_WORD = re.compile(rf'[{_SPACELESS}]|[^\W{_SPACELESS}]+')
_CHUNK = 4096  # shingles hashed at once: 112 hashes of each take 3.7 MB


def normalised(text: str) -> str:
  """Returns the text in lower case with single spaces: what exact duplicates have in common."""
  return ' '.join(text.lower().split())


def digest(text: str) -> str:
  """Returns the hex SHA-256 of the normalised text."""
  return hashlib.sha256(normalised(text).encode()).hexdigest()


def remove_repeated_passages(texts: Sequence[str], window: int = 3) -> list[str]:
  """Removes every run of `window` or more lines that occurred before, in this text or in another.

  Pages of one site share menus, footers and, in reference pages, inherited entries. CCNet (Wenzek
  et al. 2020, arXiv 1911.00359, section 3.1) drops each single line that was seen before, which
  tears holes in lists and code; a run of lines is stronger evidence. The longest text is read
  first, so the most complete page keeps what several share.

  Args:
    texts: documents.
    window: number of lines (blank ones do not count) that must repeat together.

  Returns:
    The documents without the repeated lines, in the order of `texts`.
  """
  seen: set[tuple[str, ...]] = set()
  result = list(texts)
  for index in sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i)):
    lines = texts[index].split('\n')
    solid = [i for i, line in enumerate(lines) if line.strip()]
    keys = [hash(lines[i].strip()) for i in solid]  # equal within one process only
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
  encoded = word.encode('utf-8', 'surrogatepass')
  return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), 'little')


def words(text: str) -> list[str]:
  """Returns the lower-case runs of letters and digits of a text.

  In scripts without spaces between words, each character is a word.
  """
  return _WORD.findall(text.lower())


def ngrams(words: list[str], n: int) -> np.ndarray:
  """Returns hashes of the n-grams in order, uint64 [count]; fewer than n words form one n-gram."""
  hashed = np.array([_word_hash(word) for word in words], np.uint64)
  count = max(len(words) - n + 1, 1)
  hashes = np.zeros(count, np.uint64)
  for i in range(min(n, len(words))):
    hashes = hashing.mix(hashes + np.uint64(0x9E3779B97F4A7C15) + hashed[i : i + count])
  return hashes


def shingles(text: str, n: int = 5) -> np.ndarray:
  """Returns the set of word n-grams as sorted uint64 [count].

  A text of fewer than n words is one shingle.
  """
  return np.unique(ngrams(words(text), n))


@functools.cache
def _permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(1)
  a, b = rng.integers(1, 2**63, (2, count), dtype=np.uint64)
  return a * np.uint64(2) + np.uint64(1), b


def signature(hashes: np.ndarray, count: int = BANDS * ROWS) -> np.ndarray:
  """Returns the MinHash signature, uint64 [count], of a set of 64-bit hashes [n].

  Two signatures agree at each place with a probability equal to the Jaccard similarity of the sets.
  """
  a, b = _permutations(count)
  result = np.full(count, np.iinfo(np.uint64).max)
  for start in range(0, len(hashes), _CHUNK):
    chunk = hashes[start : start + _CHUNK, None]
    result = np.minimum(result, hashing.mix(chunk * a[None] + b[None]).min(axis=0))
  return result


def candidates(signatures: np.ndarray, rows: int) -> np.ndarray:
  """Returns pairs, int [n, 2] with i < j, of signatures that agree in a band of `rows` hashes.

  The signatures have the shape [documents, hashes].
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
  """Returns the exact Jaccard similarity of two sorted arrays of distinct hashes."""
  both = np.intersect1d(a, b, assume_unique=True).size
  return both / max(a.size + b.size - both, 1)


def components(count: int, pairs: np.ndarray) -> list[int]:
  """Returns the smallest member of each document's connected component in the graph of `pairs`.

  Args:
    count: number of documents.
    pairs: int [n, 2], the edges.
  """
  # This takes a second to import, and only the clusters need it.
  from scipy.sparse import coo_array, csgraph

  a, b = np.asarray(pairs, np.int64).reshape(-1, 2).T
  _, labels = csgraph.connected_components(
    coo_array((np.ones(len(a), bool), (a, b)), (count, count)), directed=False
  )
  _, first = np.unique(labels, return_index=True)
  return first[labels].tolist()


def clusters(hashes: Sequence[np.ndarray], signatures: np.ndarray, similarity: float) -> list[int]:
  """Returns the component of each document under exact Jaccard similarity >= `similarity`.

  Candidate pairs come from bands of 2 hashes. A split between these components leaves no pair of
  that similarity on both sides.
  """
  pairs = candidates(signatures, CLUSTER_ROWS)
  # The estimate from signatures has a standard error of at most 0.05, so a limit that is lower by
  # 0.2 loses no pair.
  likely = (signatures[pairs[:, 0]] == signatures[pairs[:, 1]]).mean(axis=1) >= similarity - 0.2
  alike = [jaccard(hashes[a], hashes[b]) >= similarity for a, b in pairs[likely]]
  return components(len(hashes), pairs[likely][np.array(alike, bool)])
