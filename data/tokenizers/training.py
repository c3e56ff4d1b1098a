"""Training of a byte-level BPE by the `tokenizers` library, exported as tokenizer.json and as a
tiktoken rank file.

    python -m data.train_tokenizer --input='clean/*.jsonl' --vocab-size=4096 --out=DIR_OR_FILE

Ids 0 to 255 are the bytes; the merged tokens follow, in the order in which they were learned; then
the special tokens. Both files give identical ids and load as the same tokenizer
(data/tokenizers/loading.py).
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

SUFFIXES = ('.json', '.tiktoken')  # of a tokenizer's two files


def train(
  texts: Iterable[str],
  vocab_size: int,
  special_tokens: Sequence[str],
  out: files.Path,
  *,
  held_out: Iterable[str] = (),
  pattern: str = 'deepdive',
) -> dict:
  """Trains on texts and writes tokenizer.json, tokenizer.tiktoken and report.json: same input, same
  bytes.

  Args:
    texts: read once.
    vocab_size: tokens to have before the special ones: 256 bytes and vocab_size - 256 merges.
    special_tokens: names; their ids follow.
    out: folder, replaced whole; or X.json or X.tiktoken, which writes X.json and X.tiktoken alone.
    held_out: texts to measure on; none: no measurement.
    pattern: name in bpe.PATTERNS of the cut before merging.

  Returns:
    The report: vocab_size (special tokens included), merges, pattern, fingerprint, training bytes
    and, measured on the held-out texts, held_out_bytes and bytes_per_token.

  Raises:
    UserError: vocab_size is under 256, or the texts have fewer pairs to merge than it asks for.
  """
  if vocab_size < 256:
    raise UserError(f'vocab_size is {vocab_size}; the 256 bytes are always in it')
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
  # it would print to stdout
  options = {'vocab_size': vocab_size, 'initial_alphabet': alphabet, 'show_progress': False}
  model.train_from_iterator(counted(), trainers.BpeTrainer(**options))
  learned = sorted((i, bpe.from_visible(token)) for token, i in model.get_vocab().items())
  if len(learned) < vocab_size:
    raise UserError(
      f'{size:,} bytes of text give a vocabulary of {len(learned)}, not {vocab_size}: more text or '
      'fewer'
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
  with (
    tempfile.TemporaryDirectory() if alone else files.atomic_dir(out, last='report.json') as folder
  ):
    folder = pathlib.Path(folder)
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
  """`train` on the documents of files, measured on those that data.tokenize holds out of them."""
  found = sources.find(inputs)
  whole, skipped = spans.spans(found, 1 << 40), jsonl.Skipped()
  hashes = [split_hash for split_hash, _ in _texts(whole, skipped)]
  if not hashes:
    raise skipped.nothing_left(f'no document in {sources.names(found)}')
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
      raise UserError('no "text"; a tokenizer learns from text')
    return split.split_hash(document), document['text']

  return ((split_hash, text) for split_hash, text in spans.documents(parts, skipped, parse) if text)
