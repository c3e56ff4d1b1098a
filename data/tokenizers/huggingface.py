"""Tokenizers of the `tokenizers` library."""

import json
import re
from collections.abc import Sequence

import tokenizers

from data.tokenizers import bpe
from data.tokenizers.interface import Specials, Tokenizer, place, valid
from lm.base.errors import UserError


class HuggingFace(Tokenizer):
  """A tokenizer.json of any other kind, run by the `tokenizers` library; decoding is the library's.

  The token for unknown characters, if it has one, is not special: text yields it.
  """

  def __init__(self, text: str, special_tokens: Specials):
    try:
      self._tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises no narrower one
      raise UserError(f'not a tokenizers file: {error}') from error
    self._tokenizer.no_truncation()
    self._tokenizer.no_padding()
    self._tokenizer.encode_special_tokens = True  # as plain text, that is
    value = json.loads(text)
    model = value['model']
    unknown = (
      model['vocab'][model['unk_id']][0]
      if model.get('unk_id') is not None
      else model.get('unk_token')
    )
    added = self._tokenizer.get_added_tokens_decoder().items()
    own = {t.content: i for i, t in added if t.special and t.content != unknown}
    specials = place(special_tokens, own, taken=set(self._tokenizer.get_vocab().values()))
    self._tokenizer.add_special_tokens(sorted(specials.keys() - own, key=specials.__getitem__))
    if placed := [n for n, i in specials.items() if self._tokenizer.token_to_id(n) != i]:
      raise UserError(
        f'special token {placed[0]!r} cannot have id {specials[placed[0]]} in a tokenizer.json'
      )
    vocab = self._tokenizer.get_vocab()
    content = json.dumps(json.loads(self._tokenizer.to_str()), sort_keys=True)
    super().__init__(specials, max(vocab.values()), content)
    self._decoders = set(re.findall(r'"type":\s*"(\w+)"', json.dumps(value['decoder'])))
    self._tokens = {i: token for token, i in vocab.items()}
    self._inside = self._tokenizer
    if '"prepend_scheme":"first"' in (text := self._tokenizer.to_str()):
      self._inside = tokenizers.Tokenizer.from_str(
        text.replace('"prepend_scheme":"first"', '"prepend_scheme":"never"')
      )
      self._inside.encode_special_tokens = True
    self.refuse_forgery()

  def __reduce__(self):  # a pickled tokenizers.Tokenizer forgets encode_special_tokens
    return HuggingFace, (self._json(), ())

  def encode(self, text: str) -> list[int]:
    return self._tokenizer.encode(valid(text), add_special_tokens=False).ids

  def encode_inside(self, text: str) -> list[int]:
    return self._inside.encode(valid(text), add_special_tokens=False).ids

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    encodings = self._tokenizer.encode_batch_fast(
      [valid(t) for t in texts], add_special_tokens=False
    )
    return [e.ids for e in encodings]

  def decode(self, ids: Sequence[int]) -> str:
    return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

  def token_bytes(self, index: int) -> bytes:
    token = self._tokens.get(index)
    if token is None or index in self._names:
      return b''
    if 'ByteLevel' in self._decoders:
      return bpe.from_visible(token) if all(c in bpe.BYTE for c in token) else token.encode()
    if 'ByteFallback' in self._decoders and (byte := re.fullmatch(r'<0x([0-9A-F]{2})>', token)):
      return bytes.fromhex(byte[1])
    if {'Metaspace', 'Replace'} & self._decoders:
      return token.replace('▁', ' ').encode()
    raise UserError(
      f'token bytes are not known for decoder {sorted(self._decoders)}; a byte-level one is needed'
    )

  def _json(self) -> str:
    return self._tokenizer.to_str(pretty=True)
