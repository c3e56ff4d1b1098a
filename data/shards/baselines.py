"""Computes what a language model must beat: unigram, bigram, gzip and xz, in bits per byte.

The n-gram models count the very tokens that the model was trained on. All results are bits per
UTF-8 byte of the same held-out text. These baselines have nothing to do with those of reinforcement
learning.
"""

import gzip
import hashlib
import lzma
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from data.shards import token_shards
from data.tokenizers.loading import Tokenizer
from lm.base import files
from lm.base.errors import UserError

_FOLDS = 10  # one row in this many is kept aside to choose the discounts on
_COMPACT = 1 << 22  # number of pairs in memory at which equal ones are merged
_FIT_ROUNDS = 3


class Pairs(NamedTuple):
  """Distinct (input, target) pairs, sorted, and the summed weights of their occurrences.

  Attributes:
    inputs, targets: int64 [n].
    counts: float64 [n].
  """

  inputs: np.ndarray
  targets: np.ndarray
  counts: np.ndarray


class Counts(NamedTuple):
  """The pairs of a run's batches.

  Attributes:
    all: the pairs of all rows.
    most: the pairs of most rows.
    aside: the pairs of the rows that are kept aside; equal rows are on one side.
    repeats: how often an average row occurred.
  """

  all: Pairs
  most: Pairs
  aside: Pairs
  repeats: float


def compare(
  consumed: Iterable[Mapping[str, np.ndarray]],
  held_out: Iterable[Mapping[str, np.ndarray]],
  manifests: Iterable[files.Path],
  tokenizer: Tokenizer,
) -> dict[str, float]:
  """Returns all four baselines, in bits per byte of the held-out text.

  Args:
    consumed: all batches that a run was trained on.
    held_out: batches that contain the held-out text once.
    manifests: manifests of the held-out text.
    tokenizer: tokenizer of both.
  """
  train, evaluation = count(consumed), count(held_out)
  text = b''.join(read_text(manifest, tokenizer) for manifest in manifests)
  size, vocab = len(text), tokenizer.vocab_size
  return {
    'unigram_bpb': unigram_bpb(train, evaluation, vocab, size),
    'bigram_bpb': bigram_bpb(train, evaluation, vocab, size),
    'gzip_bpb': gzip_bpb(text),
    'xz_bpb': xz_bpb(text),
  }


def count(batches: Iterable[Mapping[str, np.ndarray]]) -> Counts:
  """Returns the counts of all pairs in batches whose weight is not 0.

  Raises UserError if there is none.
  """
  rows = {}
  parts = {False: [], True: []}
  held = 0
  for batch in batches:
    aside = np.zeros(len(batch['inputs']), bool)
    for i, row in enumerate(zip(batch['inputs'], batch['targets'], strict=True)):
      digest = hashlib.blake2b(b''.join(a.tobytes() for a in row), digest_size=8).digest()
      aside[i] = digest[0] % _FOLDS == 0
      rows[digest] = rows.get(digest, 0) + 1
    for where in (False, True):
      use = (batch['weights'] > 0) & (aside == where)[:, None]
      keys = batch['inputs'][use].astype(np.int64) << 32 | batch['targets'][use]
      parts[where].append((keys, batch['weights'][use].astype(np.float64)))
      held += len(keys)
    if held > _COMPACT:
      parts = {where: [_add_up(part)] for where, part in parts.items()}
      held = sum(len(part[0][0]) for part in parts.values())
  if not held:
    raise UserError(field='target with a weight in these batches')
  return Counts(
    all=_pairs(_add_up(parts[False] + parts[True])),
    most=_pairs(_add_up(parts[False])),
    aside=_pairs(_add_up(parts[True])),
    repeats=sum(rows.values()) / len(rows),
  )


def unigram_bpb(train: Counts, evaluation: Counts, vocab_size: int, num_bytes: int) -> float:
  """Returns bits per byte of the evaluation's targets, predicted by their training frequency.

  One discount, chosen on the rows kept aside, is subtracted from each token's count and divided
  equally among all tokens.
  """

  def model(pairs, discounts):
    counts = np.bincount(pairs.targets, pairs.counts, vocab_size)
    return _discounted(counts, discounts[0] * train.repeats)

  def bits(pairs, on, discounts):
    return -float(on.counts @ np.log2(model(pairs, discounts)[on.targets]))

  best = _fit(train, bits, [1.0])
  return bits(train.all, evaluation.all, best) / num_bytes


def bigram_bpb(train: Counts, evaluation: Counts, vocab_size: int, num_bytes: int) -> float:
  """Returns bits per byte of the evaluation's targets under `bigram`.

  The discounts are chosen on the rows kept aside.
  """

  def bits(pairs, on, discounts):
    return -float(on.counts @ np.log2(bigram(pairs, on, vocab_size, discounts, train.repeats)))

  best = _fit(train, bits, [1.0, 1.0, 2.0, 3.0])
  return bits(train.all, evaluation.all, best) / num_bytes


def bigram(
  train: Pairs, on: Pairs, vocab_size: int, discounts: list[float], repeats: float = 1.0
) -> np.ndarray:
  """Returns probabilities of target after input by modified Kneser-Ney smoothing.

  The method is that of Chen and Goodman 1998, section 4.1.6. With n(a, b) the count of a pair, D
  its discount, and Q(b) computed from the number of distinct inputs that b follows,

    P(b | a) = max(n(a, b) - D, 0) / n(a) + (sum of the discounts of a's pairs) / n(a) * Q(b)

  Args:
    train: pairs to estimate from.
    on: pairs whose probabilities to compute.
    vocab_size: number of tokens among which the discounts of Q are divided equally.
    discounts: discounts of Q's counts, and of pairs seen once, twice and more often. They are
      multiplied by `repeats`.
    repeats: the unit of counts: how often the run read each row.

  Returns:
    float64 [pairs of `on`].
  """
  follows = _discounted(np.bincount(train.targets, minlength=vocab_size), discounts[0])
  times = np.clip(np.rint(train.counts / repeats).astype(int), 1, 3)
  left = np.maximum(train.counts - np.array([0.0, *discounts[1:]])[times] * repeats, 0)
  total = np.bincount(train.inputs, train.counts, vocab_size)
  taken = total - np.bincount(train.inputs, left, vocab_size)
  keys, wanted = train.inputs << 32 | train.targets, on.inputs << 32 | on.targets
  at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
  seen = np.where(keys[at] == wanted, left[at], 0)
  known = total[on.inputs] > 0
  scale = np.where(known, total[on.inputs], 1)
  return seen / scale + np.where(known, taken[on.inputs] / scale, 1) * follows[on.targets]


def gzip_bpb(text: bytes) -> float:
  """Returns the bits per byte of `gzip -9`."""
  return 8 * len(gzip.compress(text, 9)) / len(text)


def xz_bpb(text: bytes) -> float:
  """Returns the bits per byte of `xz -9`."""
  return 8 * len(lzma.compress(text, preset=9)) / len(text)


def read_text(manifest: files.Path, tokenizer: Tokenizer) -> bytes:
  """Returns the text of a manifest's stream, without special tokens.

  Raises UserError if the tokenizer is not the manifest's.
  """
  value = token_shards.read_manifest(manifest)
  if value['tokenizer']['fingerprint'] != tokenizer.fingerprint:
    raise UserError(
      field=f'tokenizer of {manifest}',
      value=value['tokenizer']['fingerprint'],
      allowed=f'the one that is given, {tokenizer.fingerprint}',
    )
  stream = token_shards.Stream(files.as_path(manifest).parent, value)
  table = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
  return b''.join(map(table.__getitem__, stream.read([(0, stream.tokens)])[0].tolist()))


def _add_up(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
  """Returns distinct keys, sorted, and the summed weights of each."""
  keys, index = np.unique(np.concatenate([k for k, _ in parts]), return_inverse=True)
  return keys, np.bincount(index, np.concatenate([w for _, w in parts]), len(keys))


def _pairs(added: tuple[np.ndarray, np.ndarray]) -> Pairs:
  keys, counts = added
  return Pairs(keys >> 32, keys & 0xFFFFFFFF, counts)


def _discounted(counts: np.ndarray, discount: float) -> np.ndarray:
  """Returns probabilities from counts, each less a discount that is divided equally among all."""
  left = np.maximum(counts - discount, 0)
  return (left + (counts.sum() - left.sum()) / len(counts)) / counts.sum()


def _fit(
  train: Counts, bits: Callable[[Pairs, Pairs, list[float]], float], limits: list[float]
) -> list[float]:
  """Returns the discounts, from 0 to their limits, with which `most` best predicts `aside`.

  They are found by golden-section search on one at a time. With too few rows to keep any aside, the
  result is half of each limit.
  """
  golden = (5**0.5 - 1) / 2
  best = [limit / 2 for limit in limits]
  if not len(train.most.counts) or not len(train.aside.counts):
    return best

  def at(i, value):
    return bits(train.most, train.aside, [*best[:i], value, *best[i + 1 :]])

  for i in list(range(len(limits))) * _FIT_ROUNDS:
    low, high = 0.0, limits[i]
    a, b = high - golden * (high - low), low + golden * (high - low)
    bits_a, bits_b = at(i, a), at(i, b)
    while high - low > 0.01 * limits[i]:
      if bits_a < bits_b:
        high, b, bits_b = b, a, bits_a
        a = high - golden * (high - low)
        bits_a = at(i, a)
      else:
        low, a, bits_a = a, b, bits_b
        b = low + golden * (high - low)
        bits_b = at(i, b)
    best[i] = (low + high) / 2
  return best
