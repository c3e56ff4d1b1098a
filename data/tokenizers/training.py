"""Trains a byte-level BPE with the `tokenizers` library.

Ids 0 to 255 are the bytes. The merged tokens follow in the order in which they were learned, then
the special tokens.
"""

import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from data.records import jsonl, sources, spans, split
from data.tokenizers import bpe
from data.tokenizers.interface import valid
from lm.base import errors, files, progress
from lm.base.errors import UserError

SUFFIXES = ('.json', '.tiktoken')  # the two files of a tokenizer


def train(
  texts: Iterable[str],
  vocab_size: int,
  special_tokens: Sequence[str],
  out: files.Path,
  *,
  held_out: Iterable[str] = (),
  pattern: str = 'deepdive',
) -> dict:
  """Trains on texts and writes tokenizer.json, tokenizer.tiktoken and report.json.

  The same input gives the same bytes.

  Args:
    texts: the training texts, read once.
    vocab_size: number of tokens without the special ones: 256 bytes and vocab_size - 256 merges.
    special_tokens: names of the special tokens, whose ids follow.
    out: folder, replaced as a whole; or X.json or X.tiktoken, which writes only X.json and
      X.tiktoken.
    held_out: texts to measure on; if empty, nothing is measured.
    pattern: name in bpe.PATTERNS of how text is split before merging.

  Returns:
    The report: vocab_size (special tokens included), merges, pattern, fingerprint, train_bytes and,
      measured on the held-out texts, held_out_bytes and bytes_per_token.

  Raises:
    UserError: vocab_size is less than 256, or larger than the texts support.
  """
  if vocab_size < 256:
    raise UserError(
      field='--vocab-size',
      value=vocab_size,
      allowed='256, one token for each byte, or more',
    )
  if pattern not in bpe.PATTERNS:
    raise errors.unknown('split pattern', pattern, bpe.PATTERNS)
  size = 0

  def counted():
    nonlocal size
    for text in progress.bar(texts, desc='train tokenizer', unit=' texts', leave=False):
      size += len(valid(text).encode())
      yield text

  split = pre_tokenizers.Split(tokenizers.Regex(bpe.PATTERNS[pattern]), 'isolated')
  model = tokenizers.Tokenizer(models.BPE())
  model.pre_tokenizer = pre_tokenizers.Sequence(
    [split, pre_tokenizers.ByteLevel(False, use_regex=False)]
  )
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    initial_alphabet=alphabet,
    show_progress=False,  # the library's progress bar would go to stdout
  )
  model.train_from_iterator(counted(), trainer)
  learned = sorted((i, bpe.from_visible(token)) for token, i in model.get_vocab().items())
  if len(learned) < vocab_size:
    raise UserError(
      field='--vocab-size',
      value=vocab_size,
      allowed=f'at most {len(learned)}, as many tokens as this text of {size:,} bytes supports',
      message='Give more text or a smaller vocabulary.',
    )
  merged = [token for _, token in learned if len(token) > 1]
  ranks = {token: i for i, token in enumerate([*(bytes([b]) for b in range(256)), *merged])}
  tokenizer = bpe.BPE(bpe.PATTERNS[pattern], ranks, special_tokens)

  report = {
    'vocab_size': tokenizer.vocab_size,
    'merges': len(merged),
    'pattern': pattern,
    'fingerprint': tokenizer.fingerprint,
    'train_bytes': size,
  }
  texts = list(held_out)
  if texts:
    total = sum(len(valid(text).encode()) for text in texts)
    report |= {
      'held_out_bytes': total,
      'bytes_per_token': total / sum(map(len, tokenizer.encode_batch(texts))),
    }
  out = files.as_path(out)
  alone = out.suffix in SUFFIXES
  folder = tempfile.TemporaryDirectory() if alone else files.atomic_dir(out, last='report.json')
  with folder as path:
    folder = pathlib.Path(path)
    tokenizer.save(folder)
    bpe.write_ranks(folder / 'tokenizer.tiktoken', ranks)
    files.write_json(folder / 'report.json', report)
    for suffix in SUFFIXES if alone else ():
      files.write_bytes(out.with_suffix(suffix), (folder / f'tokenizer{suffix}').read_bytes())
  return report


def train_files(
  inputs: sources.Inputs,
  vocab_size: int,
  out: files.Path,
  *,
  held_out: float = 0.05,
  special_tokens: Sequence[str],
  pattern: str = 'deepdive',
) -> dict:
  """Trains on the documents of files, and measures on those that data.tokenize would hold out."""
  found = sources.find(inputs)
  whole, skipped = spans.spans(found, 1 << 40), jsonl.Skipped()
  hashes = [split_hash for split_hash, _ in _texts(whole, skipped)]
  if not hashes:
    raise skipped.nothing_left(f'document in {sources.names(found)}')
  skipped.report()
  cutoff, aside = split.cutoff(hashes, held_out), []

  def texts():
    for split_hash, text in _texts(whole, jsonl.Skipped()):
      if split_hash < cutoff:
        aside.append(text)
      else:
        yield text

  return train(texts(), vocab_size, special_tokens, out, held_out=aside, pattern=pattern)


def _texts(parts: Sequence[spans.Span], skipped: jsonl.Skipped) -> Iterator[tuple[float, str]]:
  """Yields (split hash, text) of the documents that data.tokenize makes shards of."""

  def parse(document):
    if 'text' not in document:
      raise UserError(field='text', allowed='a string, which a tokenizer is trained on')
    return split.split_hash(document), document['text']

  return ((split_hash, text) for split_hash, text in spans.documents(parts, skipped, parse) if text)
