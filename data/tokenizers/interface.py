"""What all kinds of tokenizers share."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from lm.base import files
from lm.base.errors import UserError

Specials = Sequence[str] | Mapping[str, int]


class Tokenizer:
  """What all tokenizers share. Ids 0..vocab_size-1; a few may be unused (cl100k has gaps).

  Attributes:
    special_tokens: id of each special token's name.
    vocab_size: the largest id + 1, special tokens included.
    fingerprint: SHA-256 (hex) of what decides the ids (pattern, tokens, special tokens), whatever
      the file's format.
  """

  def __init__(self, special_tokens: dict[str, int], largest_id: int, content: str):
    self.special_tokens = special_tokens
    self.vocab_size = 1 + max(largest_id, *special_tokens.values(), 0)
    self.fingerprint = hashlib.sha256(content.encode()).hexdigest()
    self._names = {i: name for name, i in special_tokens.items()}

  def encode(self, text: str) -> list[int]:
    """Ids of a text, never of a special token. A lone surrogate counts as U+FFFD."""
    raise NotImplementedError

  def encode_inside(self, text: str) -> list[int]:
    """Ids of a text that goes on after other tokens: without the space that some tokenizers put
    before a first word.
    """
    return self.encode(text)

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """`encode` of each text; all kinds but bytes use all cores."""
    return [self.encode(text) for text in texts]

  def token_bytes(self, index: int) -> bytes:
    """The bytes a token stands for: b'' for a special token or an unused id."""
    raise NotImplementedError

  def decode_bytes(self, ids: Sequence[int]) -> bytes:
    """The bytes of ids, special tokens by name."""
    return b''.join(
      self._names[i].encode() if i in self._names else self.token_bytes(i) for i in map(int, ids)
    )

  def decode(self, ids: Sequence[int]) -> str:
    """The text of ids, special tokens by name; bytes that are not UTF-8 become U+FFFD."""
    return self.decode_bytes(ids).decode('utf-8', errors='replace')

  def byte_lengths(self) -> np.ndarray:
    """int32 [vocab_size]: UTF-8 bytes of each token, 0 for special tokens; the denominator of bits
    per byte.
    """
    return np.array([len(self.token_bytes(i)) for i in range(self.vocab_size)], np.int32)

  def save(self, folder: files.Path) -> None:
    """Writes the tokenizer's file into a folder: `load(folder)` then gives the same ids and the
    same fingerprint.
    """
    files.write_text(files.as_path(folder) / 'tokenizer.json', self._json())

  def _json(self) -> str:
    raise NotImplementedError

  def refuse_forgery(self) -> None:
    made = set(itertools.chain(*self.encode_batch(list(self.special_tokens))))
    if forged := made & self._names.keys():
      raise UserError(
        f'text can forge special token {self._names[min(forged)]!r} of this tokenizer'
      )


def place(special_tokens: Specials, own: dict[str, int], taken: set[int]) -> dict[str, int]:
  """Ids of the special tokens: those of the file, then the asked for ones, behind the largest id
  unless given.
  """
  specials = dict(own)
  following = itertools.count(1 + max(taken, default=-1))
  asked = special_tokens if isinstance(special_tokens, Mapping) else dict.fromkeys(special_tokens)
  for name, index in asked.items():
    if name in own and index in (None, own[name]):
      continue
    index = next(following) if index is None else index
    if name in own or index in taken or index in specials.values():
      raise UserError(
        f'special token {name!r} cannot have id {index}: it or the id is in the vocabulary already'
      )
    specials[name] = index
  return specials


def valid(text: str) -> str:
  """The text that is encoded: lone surrogates, which UTF-8 cannot hold, become U+FFFD."""
  try:
    text.encode()
    return text
  except UnicodeEncodeError:
    return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
