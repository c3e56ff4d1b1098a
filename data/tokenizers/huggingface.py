"""Runs tokenizer.json files that are not plain byte-level BPE with the `tokenizers` library."""

import functools
import json
import re
from collections.abc import Sequence

import tokenizers

from data.tokenizers import bpe, merging
from data.tokenizers.interface import Specials, Tokenizer, assign_ids, valid
from lm.base.errors import UserError, invalid


class HuggingFace(Tokenizer):
  """A tokenizer of the `tokenizers` library, which also decodes.

  The token for unknown characters, if there is one, is not special, because text produces it.
  """

  def __init__(self, text: str, special_tokens: Specials):
    try:
      self._tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises no narrower type
      raise invalid('tokenizer', 'one of the library tokenizers', error) from error
    self._tokenizer.no_truncation()
    self._tokenizer.no_padding()
    # Despite its name, this setting encodes the names of special tokens as plain text.
    self._tokenizer.encode_special_tokens = True
    value = json.loads(text)
    model = value['model']
    unknown = model.get('unk_token')
    if model.get('unk_id') is not None:
      unknown, _ = model['vocab'][model['unk_id']]
    added = self._tokenizer.get_added_tokens_decoder().items()
    own = {t.content: i for i, t in added if t.special and t.content != unknown}
    specials = assign_ids(special_tokens, own, taken=set(self._tokenizer.get_vocab().values()))
    self._tokenizer.add_special_tokens(sorted(specials.keys() - own, key=specials.__getitem__))
    for name, index in specials.items():
      if self._tokenizer.token_to_id(name) != index:
        raise UserError(
          field=f'id of special token {name!r}',
          value=index,
          allowed='the next id, which is the only one that a tokenizer.json can add',
        )
    vocab = self._tokenizer.get_vocab()
    content = json.dumps(json.loads(self._tokenizer.to_str()), sort_keys=True)
    super().__init__(specials, max(vocab.values()), content)
    self._decoders = set(re.findall(r'"type":\s*"(\w+)"', json.dumps(value['decoder'])))
    self._tokens = {i: token for token, i in vocab.items()}
    self._inside = self._tokenizer
    text = self._tokenizer.to_str()
    if '"prepend_scheme":"first"' in text:
      inside = text.replace('"prepend_scheme":"first"', '"prepend_scheme":"never"')
      self._inside = tokenizers.Tokenizer.from_str(inside)
      self._inside.encode_special_tokens = True
    self.refuse_forgery()

  def __reduce__(self):  # pickling a tokenizers.Tokenizer loses encode_special_tokens
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
      field='decoder',
      value=sorted(self._decoders),
      allowed='a byte-level one',
      message='The bytes of the tokens are not known.',
    )

  def trace(self, text: str) -> merging.Trace:
    order, splits = self._merge_order, self._tokenizer.pre_tokenizer
    if order is None or splits is None:
      return super().trace(text)
    normal, normalizer = valid(text), self._tokenizer.normalizer
    if normalizer is not None:
      normal = normalizer.normalize_str(normal)
    pieces = [bpe.from_visible(piece) for piece, _ in splits.pre_tokenize_str(normal)]
    found = merging.trace(pieces, lambda *pair: order.get(pair), self._whole_tokens.__contains__)
    if found.tokens() != [self.token_bytes(i) for i in self.encode(text)]:
      raise UserError(
        field='text',
        value=text,
        allowed='text without tokens that no merge makes, such as names that are looked for first',
      )
    return found

  @functools.cached_property
  def _merge_order(self) -> dict[tuple[bytes, bytes], int] | None:
    """The place of each pair in the list of merges; None if the model does not merge bytes."""
    model = json.loads(self._tokenizer.to_str())['model']
    if model['type'] != 'BPE' or 'ByteLevel' not in self._decoders:
      return None
    return {tuple(map(bpe.from_visible, pair)): n for n, pair in enumerate(model['merges'])}

  @functools.cached_property
  def _whole_tokens(self) -> set[bytes]:
    """The pieces of text that are one token, whatever the merges; empty for most tokenizers."""
    model = json.loads(self._tokenizer.to_str())['model']
    return {self.token_bytes(i) for i in self._tokens} if model.get('ignore_merges') else set()

  def _json(self) -> str:
    return self._tokenizer.to_str(pretty=True)
