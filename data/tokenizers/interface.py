"""The interface of all kinds of tokenizers."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from data.tokenizers import merging
from lm.base import files
from lm.base.errors import UserError

Specials = Sequence[str] | Mapping[str, int]


class Tokenizer:
  """The interface of all tokenizers.

  Ids are 0 to vocab_size - 1. A few may be unused: cl100k has gaps.

  Attributes:
    special_tokens: id of each special token, by name.
    vocab_size: the largest id + 1, special tokens included.
    fingerprint: SHA-256 (hex) of what determines the ids (pattern, tokens, special tokens),
      whatever the file's format.
  """

  def __init__(self, special_tokens: dict[str, int], largest_id: int, content: str):
    self.special_tokens = special_tokens
    self.vocab_size = 1 + max(largest_id, *special_tokens.values(), 0)
    self.fingerprint = hashlib.sha256(content.encode()).hexdigest()
    self._names = {i: name for name, i in special_tokens.items()}

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text, never of a special token. A lone surrogate counts as U+FFFD."""
    raise NotImplementedError

  def encode_inside(self, text: str) -> list[int]:
    """Returns the ids of a text that follows other tokens.

    It omits the space that some tokenizers put before a first word.
    """
    return self.encode(text)

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Returns `encode` of each text; all kinds but 'bytes' use all cores."""
    return [self.encode(text) for text in texts]

  def token_bytes(self, index: int) -> bytes:
    """Returns the bytes of a token: b'' for a special token or an unused id."""
    raise NotImplementedError

  def trace(self, text: str) -> merging.Trace:
    """Returns the merges that make the tokens of a text, one after the other.

    Raises:
      UserError: this kind of tokenizer does not merge bytes, or not this text alone.
    """
    raise UserError(
      field='tokenizer', value=type(self).__name__, allowed='a byte-level byte-pair encoding'
    )

  def decode_bytes(self, ids: Sequence[int]) -> bytes:
    """Returns the bytes of ids, in which special tokens appear by name."""
    parts = []
    for i in map(int, ids):
      parts.append(self._names[i].encode() if i in self._names else self.token_bytes(i))
    return b''.join(parts)

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of ids; special tokens appear by name, and invalid UTF-8 as U+FFFD."""
    return self.decode_bytes(ids).decode('utf-8', errors='replace')

  def byte_lengths(self) -> np.ndarray:
    """Returns the UTF-8 bytes of each token, int32 [vocab_size], with 0 for special tokens.

    This is the denominator of bits per byte.
    """
    return np.array([len(self.token_bytes(i)) for i in range(self.vocab_size)], np.int32)

  def save(self, folder: files.Path) -> None:
    """Writes the tokenizer's file into a folder.

    `load(folder)` then gives the same ids and the same fingerprint.
    """
    files.write_text(files.as_path(folder) / 'tokenizer.json', self._json())

  def _json(self) -> str:
    raise NotImplementedError

  def refuse_forgery(self) -> None:
    """Raises UserError if encoding the name of a special token gives a special token."""
    made = set(itertools.chain(*self.encode_batch(list(self.special_tokens))))
    if forged := made & self._names.keys():
      raise UserError(
        field='special token',
        value=self._names[min(forged)],
        allowed='a name that the tokenizer does not read as this token in text',
      )


def assign_ids(special_tokens: Specials, own: dict[str, int], taken: set[int]) -> dict[str, int]:
  """Returns the ids of a file's own special tokens and of the requested ones.

  A requested token without an id, and not among the file's own, follows the largest id.

  Args:
    special_tokens: the requested names, or {name: id or None}.
    own: ids of the special tokens in the file.
    taken: ids of the vocabulary.

  Raises:
    UserError: a requested token conflicts with the vocabulary.
  """
  specials = dict(own)
  following = itertools.count(1 + max(taken, default=-1))
  if not isinstance(special_tokens, Mapping):
    special_tokens = dict.fromkeys(special_tokens)
  for name, index in special_tokens.items():
    if name in own and index in (None, own[name]):
      continue
    index = next(following) if index is None else index
    if name in own or index in taken or index in specials.values():
      raise UserError(
        field=f'id of special token {name!r}',
        value=index,
        allowed='a name and an id that the vocabulary does not have yet',
      )
    specials[name] = index
  return specials


def valid(text: str) -> str:
  """Returns the text to encode: lone surrogates, which UTF-8 cannot hold, become U+FFFD."""
  try:
    text.encode()
    return text
  except UnicodeEncodeError:
    return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
