"""Text to token ids and back, one interface whatever the tokenizer's file: `load(spec)`.

    'bytes'                         the 256 bytes
    'path/x.tiktoken:PATTERN'       a tiktoken rank file; PATTERN names how text is split first (see bpe.PATTERNS)
    'path/x.tiktoken:PATTERN:JSON'  with its special tokens, in a JSON file: {"<|endoftext|>":
    100257, ...}
    'path/tokenizer.json'           a Hugging Face tokenizers file
    'path/x.model'                  a SentencePiece model (needs the extra deepdive-lm[sentencepiece])
    'path'                          a folder that holds tokenizer.json or else tokenizer.model (what `save` writes)

Special tokens are never made from text: `encode('<|endoftext|>')` gives the tokens of those
characters.

A plain byte-level BPE is the same tokenizer in either file: it has one fingerprint, runs on
tiktoken (five times the speed of `tokenizers` a thread), and gives the same ids. Other
tokenizer.json files run on `tokenizers`, SentencePiece models on tensorflow-text.

    python -m data.tokenizer show --tokenizer=SPEC [--merges] "text"
    python -m data.bench tokenizer [--tokenizer=SPEC,...]
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
from data.tokenizers.interface import Specials, Tokenizer, place
from data.tokenizers.sentencepiece import SentencePiece
from lm.base import errors, files
from lm.base.errors import UserError

SPEC = (
  "'bytes', x.tiktoken:PATTERN[:SPECIALS.json], tokenizer.json, x.model, or the folder of "
  'one '
  'of the last two'
)


def load(spec: str, special_tokens: Specials = ()) -> Tokenizer:
  """Loads a tokenizer.

  Args:
    spec: see the module's first lines.
    special_tokens: names, which follow the largest id in this order unless the file has them
      already; or name -> id.

  Raises:
    FileNotFoundError: the file is missing.
    UserError: the spec, the pattern or the file's content is not one we know, or a package is
      missing; the message names it.
  """
  spec = os.fspath(spec)
  if spec == 'bytes':
    return BPE(None, bpe.BYTES, special_tokens)
  if ranks := re.fullmatch(r'(.*?\.tiktoken)(?::([^:]*))?(?::(.*))?', spec):
    return _load_ranks(*ranks.groups(''), special_tokens)
  path = files.as_path(spec)
  if path.is_dir():
    path = next(
      (p for p in (path / 'tokenizer.json', path / 'tokenizer.model') if p.exists()), None
    )
    if path is None:
      raise UserError(f'{spec} holds neither tokenizer.json nor tokenizer.model')
  if path.suffix == '.json':
    return _load_json(path, special_tokens)
  if path.suffix == '.model':
    with _named(path):
      return SentencePiece(path.read_bytes(), special_tokens)
  raise UserError(f'unknown tokenizer {spec!r}; allowed: {SPEC}')


@contextlib.contextmanager
def _named(path: files.Path) -> Iterator[None]:
  """An error inside names the file."""
  try:
    yield
  except UserError as error:
    raise UserError(f'{path}: {error}') from error


def _load_ranks(path: str, pattern: str, specials_path: str, special_tokens: Specials) -> BPE:
  if pattern not in bpe.PATTERNS:
    raise errors.unknown(f'split pattern of {path} (x.tiktoken:PATTERN)', pattern, bpe.PATTERNS)
  ranks, own = bpe.read_ranks(path), files.read_json(specials_path) if specials_path else {}
  if not isinstance(own, dict) or any(type(i) is not int or i < 0 for i in own.values()):
    raise UserError(
      f'{specials_path}: special tokens are a JSON object of names and ids; found {own!r:.80}'
    )
  taken = set(ranks.values())
  with _named(specials_path):
    own = place(own, {}, taken)
  with _named(path):
    return BPE(bpe.PATTERNS[pattern], ranks, place(special_tokens, own, taken | set(own.values())))


def _load_json(path: pathlib.Path, special_tokens: Specials) -> Tokenizer:
  value = files.read_json(path)
  if lacking := {'model', 'added_tokens', 'normalizer', 'pre_tokenizer', 'decoder'} - set(value):
    raise UserError(f'{path} is not a tokenizers file: no field {min(lacking)!r}')
  for token in value['added_tokens']:
    token['special'] |= token['content'] in special_tokens
  with _named(path):
    return bpe.from_json(value, special_tokens) or HuggingFace(json.dumps(value), special_tokens)
