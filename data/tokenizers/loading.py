"""Loads any kind of tokenizer from one string: `load(spec)`. A spec is one of these:

  'bytes': the 256 bytes.
  'path/x.tiktoken:PATTERN': a tiktoken rank file. PATTERN names how text is split (bpe.PATTERNS).
  'path/x.tiktoken:PATTERN:JSON': the same with special tokens, in a JSON file of names and ids such
  as {"<|endoftext|>": 100257}.
  'path/tokenizer.json': a file of Hugging Face's `tokenizers`.
  'path/x.model': a SentencePiece model, which needs the extra deepdive-lm[sentencepiece].
  'path': a folder with tokenizer.json or else tokenizer.model, as `Tokenizer.save` writes.

Text never produces special tokens: `encode('<|endoftext|>')` gives the tokens of those characters.

A plain byte-level BPE is the same tokenizer in either file: it has one fingerprint, gives the same
ids and runs on tiktoken, which is five times as fast per thread as `tokenizers`. Other
tokenizer.json files run on `tokenizers`, and SentencePiece models on tensorflow-text.

To add a kind, write a subclass of `interface.Tokenizer` in a file of its own and choose it in
`load`.
"""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterator

from data.tokenizers import bpe
from data.tokenizers.bpe import BPE
from data.tokenizers.huggingface import HuggingFace
from data.tokenizers.interface import Specials, Tokenizer, assign_ids
from data.tokenizers.sentencepiece import SentencePiece
from lm.base import errors, files
from lm.base.errors import UserError

SPEC = (
  "'bytes', x.tiktoken:PATTERN[:SPECIALS.json], tokenizer.json, x.model, or a folder with one of "
  'the last two'
)


def load(spec: str, special_tokens: Specials = ()) -> Tokenizer:
  """Returns the tokenizer of a spec.

  Args:
    spec: see the first lines of this module.
    special_tokens: names, which follow the largest id in this order unless the file has them
      already; or {name: id}.

  Raises:
    FileNotFoundError: the file does not exist.
    UserError: the spec, the pattern or the file's content is unknown, or a package is missing; the
      error names it.
  """
  spec = os.fspath(spec)
  if spec == 'bytes':
    return BPE(None, bpe.BYTES, special_tokens)
  if ranks := re.fullmatch(r'(.*?\.tiktoken)(?::([^:]*))?(?::(.*))?', spec):
    return _load_ranks(*ranks.groups(''), special_tokens)
  path = files.as_path(spec)
  if path.is_dir():
    found = [path / name for name in ('tokenizer.json', 'tokenizer.model')]
    found = [file for file in found if file.exists()]
    if not found:
      raise UserError(
        field='tokenizer',
        value=spec,
        allowed='a folder with tokenizer.json or tokenizer.model',
      )
    path = found[0]
  if path.suffix == '.json':
    return _load_json(path, special_tokens)
  if path.suffix == '.model':
    with _named(path):
      return SentencePiece(path.read_bytes(), special_tokens)
  raise UserError(field='tokenizer', value=spec, allowed=SPEC)


@contextlib.contextmanager
def _named(path: files.Path) -> Iterator[None]:
  """Prefixes the file's name to a UserError raised inside."""
  try:
    yield
  except UserError as error:
    raise error.at(path) from error


def _load_ranks(path: str, pattern: str, specials_path: str, special_tokens: Specials) -> BPE:
  if pattern not in bpe.PATTERNS:
    raise errors.unknown(f'split pattern of {path} (x.tiktoken:PATTERN)', pattern, bpe.PATTERNS)
  ranks, own = bpe.read_ranks(path), files.read_json(specials_path) if specials_path else {}
  if not isinstance(own, dict) or any(type(i) is not int or i < 0 for i in own.values()):
    raise UserError(field='special tokens', value=own, allowed='a JSON object of names and ids').at(
      specials_path
    )
  taken = set(ranks.values())
  with _named(specials_path):
    own = assign_ids(own, {}, taken)
  with _named(path):
    specials = assign_ids(special_tokens, own, taken | set(own.values()))
    return BPE(bpe.PATTERNS[pattern], ranks, specials)


def _load_json(path: pathlib.Path, special_tokens: Specials) -> Tokenizer:
  value = files.read_json(path)
  if lacking := {'model', 'added_tokens', 'normalizer', 'pre_tokenizer', 'decoder'} - set(value):
    raise UserError(
      field=min(lacking), allowed='a field of every file of the library tokenizers'
    ).at(path)
  for token in value['added_tokens']:
    token['special'] |= token['content'] in special_tokens
  with _named(path):
    return bpe.from_json(value, special_tokens) or HuggingFace(json.dumps(value), special_tokens)
