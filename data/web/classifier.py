"""Reads, applies and writes a fastText quality classifier (Joulin et al. 2016, arXiv 1607.01759).

The file has fastText's own format, so that published classifiers can be used here and ours can be
used by other programs.
"""

import contextlib
import functools
import hashlib
import mmap
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import fasttext
import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from data.web import inputs
from data.web.rules import Check
from lm.base import errors
from lm.base.errors import UserError

# fastText's marks of a label and of the end of a text. Words that look like them are left out.
LABEL, END = '__label__', '</s>'
MAGIC = 793712314
# The structures of a file:
# HEAD: magic, version, dim, ws, epoch, minCount, neg, wordNgrams, loss, model, bucket, minn, maxn,
#   lrUpdateRate, t. Those that only describe the training are 0 in our files.
# WORDS: entries, words, labels, tokens, pruned.
# ENTRY, after the entry's name and a zero byte: occurrences, and whether it is a label.
# MATRIX, before the matrix's numbers: whether it is quantised, rows, columns.
HEAD, WORDS, ENTRY, MATRIX = '<14id', '<3i2q', '<qb', '<?2q'


class Classifier:
  """Scores texts with a trained classifier file. Pickled by name: each process loads it once.

  Args:
    path: the file, local or remote.
    label: the label whose probability is the score. With '' the labels must be numbers, and the
      score is their mean under the predicted distribution.

  Raises:
    FileNotFoundError: the file does not exist.
    UserError: the file is not a fastText classifier, or has no such label.
  """

  def __init__(self, path: str, label: str = ''):
    self.path, self.label = path, label
    names = self._probabilities('')
    if label and label not in names:
      raise errors.unknown(f'label of {path}', label, names)
    if not label and not all(name.isdecimal() for name in names):
      raise UserError(
        field='config.quality.label',
        value=label,
        allowed=names,
        message=f'The labels of {path} are not numbers, so one of them must be named.',
      )

  def score(self, text: str) -> float:
    """Returns the score: in [0, 1] with a label, else between the lowest and highest label."""
    shares = self._probabilities(' '.join(words(text)))
    if self.label:
      return shares[self.label]
    return sum(int(name) * share for name, share in shares.items())

  def likeliest(self, text: str) -> str:
    """Returns the label with the highest probability."""
    shares = self._probabilities(' '.join(words(text)))
    return max(shares, key=shares.__getitem__)

  def _probabilities(self, line: str) -> dict[str, float]:
    labels, values = _load(self.path).predict(line, k=-1)
    return {
      label.removeprefix(LABEL): value / sum(values)
      for label, value in zip(labels, values, strict=True)
    }

  def check(self, text: str, min_score: float) -> Iterator[Check]:
    """Yields the score as a check of the web pipeline (data/web/rules.py)."""
    yield Check('quality', 'score', self.score(text), low=min_score)


def digest(path: str) -> str:
  """Returns the hex SHA-256 of a file's bytes."""
  system, name = inputs.filesystem(path)
  with system.open(name, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


@functools.cache
def _load(path: str):
  local = isinstance(inputs.filesystem(path)[0], LocalFileSystem)
  copy = fsspec.open_local(path if local else f'simplecache::{path}')
  if not _is_whole(copy):
    raise errors.invalid(path, 'a fastText model', 'it is cut off, or another kind of file')
  try:
    model = fasttext.load_model(copy)
    model.predict('')
  except ValueError as error:
    raise errors.invalid(path, 'a fastText classifier', error) from error
  return model


def _is_whole(path: str) -> bool:
  """Returns whether a file has everything that its headers announce.

  fastText reads a shorter file forever. Quantised matrices are not checked.
  """
  with open(path, 'rb') as file:
    size = os.fstat(file.fileno()).st_size
    # An empty file cannot be mapped.
    with contextlib.ExitStack() as stack:
      data = b''
      if size:
        data = stack.enter_context(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
      try:
        if struct.unpack_from('<i', data)[0] != MAGIC:
          return False
        entries, _, _, _, pruned = struct.unpack_from(WORDS, data, struct.calcsize(HEAD))
        place = struct.calcsize(HEAD) + struct.calcsize(WORDS)
        for _ in range(entries):
          end = data.find(b'\0', place)
          if end < 0:
            return False
          place = end + 1 + struct.calcsize(ENTRY)
        place += 8 * max(pruned, 0)
        for _ in range(2):
          quantised, rows, columns = struct.unpack_from(MATRIX, data, place)
          if quantised:
            return True
          place += struct.calcsize(MATRIX) + 4 * rows * columns
      except struct.error:
        return False
      return place == size


def words(text: str) -> list[str]:
  """Returns the whitespace-separated words of a text, as fastText splits it."""
  cut = text.replace('\0', ' ').encode(errors='replace').decode().split()
  return [word for word in cut if word != END and not word.startswith(LABEL)]


def features(
  words: Sequence[str], vocabulary: Mapping[str, int], ngrams: int, buckets: int
) -> np.ndarray:
  """Returns the input matrix rows that fastText sums for a text: int64 [n].

  The rows of the known words come first, then those of the 2- to n-grams. A word has its own row.
  An n-gram of words, known or not, has the row of the bucket that it is hashed to.
  """
  words = [*words, END]
  rows = [np.array([vocabulary[word] for word in words if word in vocabulary], np.int64)]
  # fastText extends the signed 32-bit hashes to 64 bits.
  hashes = np.array([_hash(word) for word in words], np.uint32).view(np.int32).astype(np.uint64)
  grams = hashes
  for n in range(1, ngrams):
    grams = grams[:-1] * np.uint64(116049371) + hashes[n:]
    rows.append((grams % np.uint64(buckets)).astype(np.int64) + len(vocabulary))
  return np.concatenate(rows)


@functools.lru_cache(1 << 20)
def _hash(word: str) -> int:
  """Returns 32-bit FNV-1a over the word's bytes, which fastText reads as signed."""
  value = 2166136261
  for byte in word.encode():
    value = (value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619 & 0xFFFFFFFF
  return value


def write(
  file: BinaryIO,
  counts: Mapping[str, int],
  labels: Mapping[str, int],
  ngrams: int,
  embeddings: np.ndarray,
  heads: np.ndarray,
) -> None:
  """Writes a classifier in version 12 of fastText's format.

  Args:
    file: the file to write to.
    counts: how often each word of the vocabulary occurred, in the order of its rows.
    labels: how often each label occurred, in the order of their rows.
    ngrams: length of the longest n-grams.
    embeddings: float [words + buckets, dim], one row for each feature (see `features`).
    heads: float [labels, dim].
  """
  buckets, (count, dim) = len(embeddings) - len(counts), heads.shape
  softmax, supervised, version, not_pruned = 3, 3, 12, -1
  file.write(
    struct.pack(
      HEAD, MAGIC, version, dim, 0, 0, 0, 0, ngrams, softmax, supervised, buckets, 0, 0, 0, 0.0
    )
  )
  file.write(
    struct.pack(WORDS, len(counts) + count, len(counts), count, sum(counts.values()), not_pruned)
  )
  for kind, entries in enumerate((counts, {LABEL + label: n for label, n in labels.items()})):
    for name, n in entries.items():
      file.write(name.encode() + b'\0' + struct.pack(ENTRY, n, kind))
  for matrix in (embeddings, heads):
    file.write(struct.pack(MATRIX, False, *matrix.shape) + matrix.astype('<f4').tobytes())
