"""Text to token ids and back, one interface whatever the tokenizer's file: `load(spec)`.

    'bytes'                         the 256 bytes
    'path/x.tiktoken:PATTERN'       a tiktoken rank file; PATTERN names how text is split first (see PATTERNS)
    'path/x.tiktoken:PATTERN:JSON'  with its special tokens, in a JSON file: {"<|endoftext|>": 100257, ...}
    'path/tokenizer.json'           a Hugging Face tokenizers file
    'path/x.model'                  a SentencePiece model (needs the extra deepdive-lm[sentencepiece])
    'path'                          a folder that holds tokenizer.json or else tokenizer.model (what `save` writes)

Special tokens are never made from text: `encode('<|endoftext|>')` gives the tokens of those characters.

A plain byte-level BPE is the same tokenizer in either file: it has one fingerprint, runs on tiktoken (five times the
speed of `tokenizers` a thread), and gives the same ids. Other tokenizer.json files run on `tokenizers`, SentencePiece
models on tensorflow-text.

    python -m data.tokenizer show --tokenizer=SPEC [--merges] "text"
    python -m data.bench tokenizer [--tokenizer=SPEC,...]
"""

import argparse
import base64
import binascii
import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tiktoken
import tokenizers

from lm import errors, files
from lm.errors import UserError

_SPACES = r'\s*[\r\n]+|\s+(?!\S)|\s+'
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
_UPPER, _LOWER = r'[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]', r'[\p{Ll}\p{Lm}\p{Lo}\p{M}]'
_TAIL = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K = (
  rf'[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_TAIL}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_TAIL}|'
  r'\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|' + _SPACES
)
# How text is cut before merging; no token crosses a cut. The first four as published by their authors (in the plain
# form, which both regex engines read alike). Ours: llama3's with one digit a token, for arithmetic, and combining marks
# kept with their letters.
PATTERNS = {
  'gpt2': r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
  'cl100k': _LLAMA3 + r'\s++\z|' + _SPACES,  # white space at the end of a text stays in one piece
  'o200k': _O200K,
  'llama3': _LLAMA3 + _SPACES,
  'deepdive': r"'(?:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}[\p{L}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES,
}
_BYTES = {bytes([b]): b for b in range(256)}
# GPT-2's way to write any bytes as visible characters, used by every byte-level tokenizer.json.
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_CHAR = dict(zip(_PRINTABLE, map(chr, _PRINTABLE), strict=True))
_CHAR |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in _CHAR)}
_BYTE = {c: b for b, c in _CHAR.items()}
# The regex engine of tiktoken overflows its stack on a million white-space characters in a row.
_MAX_SPACES = 500_000
_LONG_SPACES = re.compile(rf'\s{{{_MAX_SPACES}}}(?=\s)')

SPEC = "'bytes', x.tiktoken:PATTERN[:SPECIALS.json], tokenizer.json, x.model, or the folder of one of the last two"
Specials = Sequence[str] | Mapping[str, int]


class Tokenizer:
  """What all tokenizers share. Ids 0..vocab_size-1; a few may be unused (cl100k has gaps).

  Attributes:
    special_tokens: id of each special token's name.
    vocab_size: the largest id + 1, special tokens included.
    fingerprint: SHA-256 (hex) of what decides the ids (pattern, tokens, special tokens), whatever the file's format.
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
    """Ids of a text that goes on after other tokens: without the space that some tokenizers put before a first word."""
    return self.encode(text)

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """`encode` of each text; all kinds but bytes use all cores."""
    return [self.encode(text) for text in texts]

  def token_bytes(self, index: int) -> bytes:
    """The bytes a token stands for: b'' for a special token or an unused id."""
    raise NotImplementedError

  def decode_bytes(self, ids: Sequence[int]) -> bytes:
    """The bytes of ids, special tokens by name."""
    return b''.join(self._names[i].encode() if i in self._names else self.token_bytes(i) for i in map(int, ids))

  def decode(self, ids: Sequence[int]) -> str:
    """The text of ids, special tokens by name; bytes that are not UTF-8 become U+FFFD."""
    return self.decode_bytes(ids).decode('utf-8', errors='replace')

  def byte_lengths(self) -> np.ndarray:
    """int32 [vocab_size]: UTF-8 bytes of each token, 0 for special tokens; the denominator of bits per byte."""
    return np.array([len(self.token_bytes(i)) for i in range(self.vocab_size)], np.int32)

  def save(self, folder: files.Path) -> None:
    """Writes the tokenizer's file into a folder: `load(folder)` then gives the same ids and the same fingerprint."""
    files.write_text(pathlib.Path(folder) / 'tokenizer.json', self._json())

  def _json(self) -> str:
    raise NotImplementedError

  def _refuse_forgery(self) -> None:
    made = set(itertools.chain(*self.encode_batch(list(self.special_tokens))))
    if forged := made & self._names.keys():
      raise UserError(f'text can forge special token {self._names[min(forged)]!r} of this tokenizer')


class BPE(Tokenizer):
  """Byte-level byte-pair encoding (Sennrich et al. 2016, in GPT-2's form over bytes), run by tiktoken.

  Attributes:
    ranks: id of each token's bytes; the pair whose joined bytes have the lowest id merges first.
    pattern: regular expression that cuts the text before merging; None for a vocabulary of bytes alone.
  """

  def __init__(self, pattern: str | None, ranks: dict[bytes, int], special_tokens: Specials):
    missing = [b for b in _BYTES if b not in ranks]
    if missing:
      raise UserError(f'{len(missing)} of the 256 bytes are not in the vocabulary, the first {missing[0]!r}')
    self.pattern = pattern if len(ranks) > 256 else None  # nothing merges: cuts change nothing
    self.ranks = ranks
    specials = _place(special_tokens, {}, taken=set(ranks.values()))
    if ordinary := [name for name in specials if set(name) <= _BYTE.keys() and from_visible(name) in ranks]:
      raise UserError(f'special token {ordinary[0]!r} is an ordinary token of the vocabulary')
    tokens = sorted((i, token.hex()) for token, i in ranks.items())
    super().__init__(specials, max(ranks.values()), json.dumps([self.pattern, tokens, sorted(specials.items())]))
    self._bytes = {i: token for token, i in ranks.items()}
    self._plain = ranks == _BYTES
    self._encoding = tiktoken.Encoding(
      'deepdive', pat_str=self.pattern or PATTERNS['gpt2'], mergeable_ranks=ranks, special_tokens=specials
    )

  def encode(self, text: str) -> list[int]:
    if self._plain:
      return list(valid(text).encode())
    if len(text) <= _MAX_SPACES:
      return self._encoding.encode_ordinary(text)
    first, *rest = map(self._encoding.encode_ordinary, _pieces(text))
    return first + list(itertools.chain(*rest)) if rest else first

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    if self._plain:
      return super().encode_batch(texts)
    cores = os.cpu_count()
    size = min(64, 1 + len(texts) // (8 * cores))  # texts a task: many short ones, or few enough to keep all cores busy
    tasks = [texts[i : i + size] for i in range(0, len(texts), size)]
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
      return [ids for part in pool.map(super().encode_batch, tasks) for ids in part]

  def token_bytes(self, index: int) -> bytes:
    return self._bytes.get(index, b'')

  def merge_steps(self, piece: bytes, below: int | None = None) -> Iterator[list[bytes]]:
    """The parts of one piece after each merge, lowest id first; `below` leaves out tokens from that id on."""
    limit = below if below is not None else self.vocab_size
    parts = [piece[i : i + 1] for i in range(len(piece))]
    yield list(parts)
    while len(parts) > 1:
      rank, at = min((self.ranks.get(a + b, limit), i) for i, (a, b) in enumerate(itertools.pairwise(parts)))
      if rank >= limit:
        return
      parts[at : at + 2] = [parts[at] + parts[at + 1]]
      yield list(parts)

  def merges(self) -> list[tuple[bytes, bytes]]:
    """The two parts of each longer token, in id order: what merging with only the ids below it leaves.

    A merge list with exactly these pairs gives the same ids as the ranks: when a token's turn comes, all lower merges
    inside its bytes are done and none has crossed its ends, so its parts are the same in every text. A token that has
    no two parts is reached only as a whole piece ("ignore_merges").
    """
    tokens = sorted((i, token) for token, i in self.ranks.items() if len(token) > 1)
    parts = (list(self.merge_steps(token, below=i))[-1] for i, token in tokens)
    return [tuple(p) for p in parts if len(p) == 2]

  def _json(self) -> str:
    byte_level = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': False}
    split = {'type': 'Split', 'pattern': {'Regex': self.pattern}, 'behavior': 'Isolated', 'invert': False}
    flags = {'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False, 'special': True}
    specials = sorted(self.special_tokens.items(), key=lambda item: item[1])
    vocab = {_visible(token): i for token, i in sorted(self.ranks.items(), key=lambda item: item[1])}
    if [i for _, i in specials] != [*range(len(vocab), len(vocab) + len(specials))]:
      vocab |= specials  # `tokenizers` numbers added tokens from len(vocab) on, unless they are in it
    merges = self.merges()
    value = {
      'version': '1.0',
      **dict.fromkeys(('truncation', 'padding', 'normalizer', 'post_processor')),
      'added_tokens': [{'id': i, 'content': name, **flags} for name, i in specials],
      'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [split, byte_level]} if self.pattern else byte_level,
      'decoder': byte_level,
      'model': {
        'type': 'BPE',
        **dict.fromkeys(('dropout', 'unk_token', 'continuing_subword_prefix', 'end_of_word_suffix')),
        **{'fuse_unk': False, 'byte_fallback': False, 'ignore_merges': len(merges) < len(self.ranks) - 256},
        'vocab': vocab,
        'merges': [[_visible(a), _visible(b)] for a, b in merges],
      },
    }
    return json.dumps(value, ensure_ascii=False, indent=1) + '\n'


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
    unknown = model['vocab'][model['unk_id']][0] if model.get('unk_id') is not None else model.get('unk_token')
    added = self._tokenizer.get_added_tokens_decoder().items()
    own = {t.content: i for i, t in added if t.special and t.content != unknown}
    specials = _place(special_tokens, own, taken=set(self._tokenizer.get_vocab().values()))
    self._tokenizer.add_special_tokens(sorted(specials.keys() - own, key=specials.__getitem__))
    if placed := [n for n, i in specials.items() if self._tokenizer.token_to_id(n) != i]:
      raise UserError(f'special token {placed[0]!r} cannot have id {specials[placed[0]]} in a tokenizer.json')
    vocab = self._tokenizer.get_vocab()
    content = json.dumps(json.loads(self._tokenizer.to_str()), sort_keys=True)
    super().__init__(specials, max(vocab.values()), content)
    self._decoders = set(re.findall(r'"type":\s*"(\w+)"', json.dumps(value['decoder'])))
    self._tokens = {i: token for token, i in vocab.items()}
    self._inside = self._tokenizer
    if '"prepend_scheme":"first"' in (text := self._tokenizer.to_str()):
      self._inside = tokenizers.Tokenizer.from_str(text.replace('"prepend_scheme":"first"', '"prepend_scheme":"never"'))
      self._inside.encode_special_tokens = True
    self._refuse_forgery()

  def __reduce__(self):  # a pickled tokenizers.Tokenizer forgets encode_special_tokens
    return HuggingFace, (self._json(), ())

  def encode(self, text: str) -> list[int]:
    return self._tokenizer.encode(valid(text), add_special_tokens=False).ids

  def encode_inside(self, text: str) -> list[int]:
    return self._inside.encode(valid(text), add_special_tokens=False).ids

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    encodings = self._tokenizer.encode_batch_fast([valid(t) for t in texts], add_special_tokens=False)
    return [e.ids for e in encodings]

  def decode(self, ids: Sequence[int]) -> str:
    return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

  def token_bytes(self, index: int) -> bytes:
    token = self._tokens.get(index)
    if token is None or index in self._names:
      return b''
    if 'ByteLevel' in self._decoders:
      return from_visible(token) if all(c in _BYTE for c in token) else token.encode()
    if 'ByteFallback' in self._decoders and (byte := re.fullmatch(r'<0x([0-9A-F]{2})>', token)):
      return bytes.fromhex(byte[1])
    if {'Metaspace', 'Replace'} & self._decoders:
      return token.replace('▁', ' ').encode()
    raise UserError(f'token bytes are not known for decoder {sorted(self._decoders)}; a byte-level one is needed')

  def _json(self) -> str:
    return self._tokenizer.to_str(pretty=True)


class SentencePiece(Tokenizer):
  """A SentencePiece .model, run by tensorflow-text, with the ids that the library gives.

  Its control symbols are the special tokens, as are the user-defined symbols that are asked for as such; others are
  added to the model as control symbols. The other user-defined symbols are pieces like any, made from text.

  Decoding gives the text back to the byte if the model has byte fallback and leaves text as it is (no normalisation
  map, no remove_extra_whitespaces), with one exception: U+2581, SentencePiece's sign for a space, becomes a space.
  Other models lose what their settings say: unknown characters become U+2047, for one.

  With add_dummy_prefix a space is put before each text: it counts in `token_bytes`, and decoding drops it at the
  start and after a special token, since what is between special tokens was encoded by itself.
  """

  def __init__(self, data: bytes, special_tokens: Specials):
    tensorflow, tensorflow_text = _tensorflow_text()
    model = _read_model(data)
    pieces = {piece.piece: i for i, piece in enumerate(model.pieces)}
    for name in special_tokens:
      if name in pieces and (piece := model.pieces[pieces[name]]).type in (_USER_DEFINED, _UNUSED):
        piece.type = _CONTROL
    own = {piece.piece: i for i, piece in enumerate(model.pieces) if piece.type == _CONTROL}
    specials = _place(special_tokens, own, taken=set(pieces.values()))
    for name, i in sorted(specials.items() - own.items(), key=lambda item: item[1]):
      if name in pieces or i != len(model.pieces):
        raise UserError(f'special token {name!r} cannot have id {i}: it is an ordinary piece, or ids have a gap before it')
      model.pieces.add(piece=name, type=_CONTROL)
    self._model = model.SerializeToString(deterministic=True)
    model.DiscardUnknownFields()  # how it was trained, and the like
    content = model.SerializeToString(deterministic=True).hex()
    super().__init__(specials, len(model.pieces) - 1, content)
    self._bytes = [_piece_bytes(piece, model.trainer_spec.unk_surface) for piece in model.pieces]
    self._prefix = b' ' if model.normalizer_spec.add_dummy_prefix else b''
    try:
      self._tokenizer = tensorflow_text.SentencepieceTokenizer(self._model, out_type=tensorflow.int32)
      self._refuse_forgery()
    except tensorflow.errors.OpError as error:
      raise UserError(f'tensorflow-text cannot run this model: {error.message}') from error

  def __reduce__(self):
    return SentencePiece, (self._model, ())

  def encode(self, text: str) -> list[int]:
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
      return []
    ragged = self._tokenizer.tokenize([valid(text).encode() for text in texts])
    ids, ends = ragged.flat_values.numpy().tolist(), ragged.row_splits.numpy().tolist()
    return [ids[start:end] for start, end in itertools.pairwise(ends)]

  def token_bytes(self, index: int) -> bytes:
    return self._bytes[index] if 0 <= index < len(self._bytes) else b''

  def decode_bytes(self, ids: Sequence[int]) -> bytes:
    runs = itertools.groupby(map(int, ids), key=self._names.get)
    join = super().decode_bytes
    return b''.join(join(run) if name else join(run).removeprefix(self._prefix) for name, run in runs)

  def save(self, folder: files.Path) -> None:
    with files.atomic_path(pathlib.Path(folder) / 'tokenizer.model') as temporary:
      temporary.write_bytes(self._model)


# The kinds of pieces, and what of a .model file we read, by the names and numbers of sentencepiece_model.proto: of each
# field its number, its type and what it is if absent. All other fields are kept as they are.
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE_PIECE = 2, 3, 4, 5, 6
_MODEL_FIELDS = {
  'Piece': {'piece': (1, 'string', ''), 'score': (2, 'float', '0'), 'type': (3, 'int32', '1')},
  'Trainer': {
    'model_type': (3, 'int32', '1'), 'treat_whitespace_as_suffix': (24, 'bool', 'false'),
    'byte_fallback': (35, 'bool', 'false'), 'unk_surface': (44, 'string', ' \u2047 '),
  },
  'Normalizer': {
    'precompiled_charsmap': (2, 'bytes', ''), 'add_dummy_prefix': (3, 'bool', 'true'),
    'remove_extra_whitespaces': (4, 'bool', 'true'), 'escape_whitespaces': (5, 'bool', 'true'),
  },
  'Model': {
    'pieces': (1, 'Piece', None), 'trainer_spec': (2, 'Trainer', None), 'normalizer_spec': (3, 'Normalizer', None),
    'denormalizer_spec': (5, 'Normalizer', None),
  },
}  # fmt: skip


@functools.cache
def _model_class() -> type:
  from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

  kinds = descriptor_pb2.FieldDescriptorProto
  file = descriptor_pb2.FileDescriptorProto(name='deepdive/sentencepiece.proto', package='deepdive', syntax='proto2')
  for message, fields in _MODEL_FIELDS.items():
    described = file.message_type.add(name=message)
    for name, (number, kind, default) in fields.items():
      label = kinds.LABEL_REPEATED if name == 'pieces' else kinds.LABEL_OPTIONAL
      field = described.field.add(name=name, number=number, label=label)
      if kind in _MODEL_FIELDS:
        field.type, field.type_name = kinds.TYPE_MESSAGE, f'.deepdive.{kind}'
      else:
        field.type, field.default_value = kinds.Type.Value(f'TYPE_{kind.upper()}'), default
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return message_factory.GetMessageClass(pool.FindMessageTypeByName('deepdive.Model'))


def _read_model(data: bytes) -> Any:
  from google.protobuf import message

  try:
    model = _model_class().FromString(data)
  except message.DecodeError as error:
    raise UserError(f'not a SentencePiece model: {error}') from error
  if not model.pieces:
    raise UserError('not a SentencePiece model: it has no pieces')
  if model.trainer_spec.treat_whitespace_as_suffix or model.denormalizer_spec.precompiled_charsmap:
    raise UserError('treat_whitespace_as_suffix and denormalizer_spec are not supported in a SentencePiece model')
  return model


def _piece_bytes(piece: Any, unknown: str) -> bytes:
  if piece.type == _CONTROL:
    return b''
  if piece.type == _BYTE_PIECE:  # <0x0A>
    return bytes.fromhex(piece.piece[3:5])
  return (unknown if piece.type == _UNKNOWN else piece.piece.replace('\u2581', ' ')).encode()


def _tensorflow_text() -> tuple[Any, Any]:
  """The modules tensorflow and tensorflow_text: imported here since that takes seconds."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  try:
    import tensorflow
    import tensorflow_text
  except ModuleNotFoundError as error:
    need = "pip install 'deepdive-lm[sentencepiece]'"
    raise UserError(f'a SentencePiece model needs the package {error.name}: {need}') from error
  tensorflow.config.set_visible_devices([], 'GPU')  # they are jax's
  return tensorflow, tensorflow_text


def load(spec: str, special_tokens: Specials = ()) -> Tokenizer:
  """Loads a tokenizer.

  Args:
    spec: see the module's first lines.
    special_tokens: names, which follow the largest id in this order unless the file has them already; or name -> id.

  Raises:
    FileNotFoundError: the file is missing.
    UserError: the spec, the pattern or the file's content is not one we know, or a package is missing; the message
      names it.
  """
  spec = os.fspath(spec)
  if spec == 'bytes':
    return BPE(None, _BYTES, special_tokens)
  if ranks := re.fullmatch(r'(.*?\.tiktoken)(?::([^:]*))?(?::(.*))?', spec):
    return _load_ranks(*ranks.groups(''), special_tokens)
  path = pathlib.Path(spec)
  if path.is_dir():
    path = next((p for p in (path / 'tokenizer.json', path / 'tokenizer.model') if p.exists()), None)
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
  if pattern not in PATTERNS:
    raise errors.unknown(f'split pattern of {path} (x.tiktoken:PATTERN)', pattern, PATTERNS)
  ranks, own = read_ranks(path), files.read_json(specials_path) if specials_path else {}
  if not isinstance(own, dict) or any(type(i) is not int or i < 0 for i in own.values()):
    raise UserError(f'{specials_path}: special tokens are a JSON object of names and ids; found {own!r:.80}')
  taken = set(ranks.values())
  with _named(specials_path):
    own = _place(own, {}, taken)
  with _named(path):
    return BPE(PATTERNS[pattern], ranks, _place(special_tokens, own, taken | set(own.values())))


def _load_json(path: pathlib.Path, special_tokens: Specials) -> Tokenizer:
  value = files.read_json(path)
  if lacking := {'model', 'added_tokens', 'normalizer', 'pre_tokenizer', 'decoder'} - set(value):
    raise UserError(f'{path} is not a tokenizers file: no field {min(lacking)!r}')
  for token in value['added_tokens']:
    token['special'] |= token['content'] in special_tokens
  with _named(path):
    return _plain_bpe(value, special_tokens) or HuggingFace(json.dumps(value), special_tokens)


def read_ranks(path: files.Path) -> dict[bytes, int]:
  """Reads a tiktoken rank file: lines of a token's bytes in base64, a space, and its id."""
  ranks = {}
  for number, line in enumerate(pathlib.Path(path).read_bytes().splitlines(), 1):
    try:
      token, rank = line.split()
      ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (ValueError, binascii.Error) as error:
      raise UserError(f'{path}:{number}: not a line of base64 and a number: {line[:40]!r}') from error
  if len(set(ranks.values())) < len(ranks) or not ranks:
    raise UserError(f'{path}: {len(ranks)} tokens with {len(set(ranks.values()))} different ids')
  return ranks


def write_ranks(path: files.Path, ranks: Mapping[bytes, int]) -> None:
  """Writes a tiktoken rank file, in the order of ids."""
  lines = (f'{base64.b64encode(token).decode()} {i}\n' for token, i in sorted(ranks.items(), key=lambda item: item[1]))
  files.write_text(path, ''.join(lines))


def _plain_bpe(value: dict, special_tokens: Specials) -> BPE | None:
  """The byte-level BPE in a tokenizer.json if ranks say all of it (see BPE.merges), else None."""
  model, added = value['model'], value['added_tokens']
  steps = value['pre_tokenizer'] or {'type': None}
  steps = steps['pretokenizers'] if steps['type'] == 'Sequence' else [steps]
  pattern = PATTERNS['gpt2'] if len(steps) == 1 else steps[0].get('pattern', {}).get('Regex')
  plain = (
    model.get('type') == 'BPE'
    and not any(model.get(k) for k in ('dropout', 'continuing_subword_prefix', 'end_of_word_suffix', 'byte_fallback'))
    and value['normalizer'] is None
    and pattern in PATTERNS.values()
    and (len(steps) == 1 or (steps[0]['behavior'], steps[0]['invert'], len(steps)) == ('Isolated', False, 2))
    and (steps[-1]['type'], steps[-1].get('add_prefix_space')) == ('ByteLevel', False)
    and (steps[-1]['use_regex'] == (len(steps) == 1) or not model['merges'])
    and all(token['special'] for token in added)
  )
  if not plain:
    return None
  specials = {token['content']: token['id'] for token in added}
  vocab = {token: i for token, i in model['vocab'].items() if token not in specials}
  if not all(c in _BYTE for token in vocab for c in token):
    return None
  ranks = {from_visible(token): i for token, i in vocab.items()}
  taken = set(ranks.values()) | set(specials.values())
  bpe = BPE(pattern, ranks, _place(special_tokens, specials, taken=taken))
  merges = [tuple(m.split(' ') if isinstance(m, str) else m) for m in model['merges']]
  reached = len(merges) == len(ranks) - 256 or model.get('ignore_merges')
  return bpe if reached and merges == [(_visible(a), _visible(b)) for a, b in bpe.merges()] else None


def _place(special_tokens: Specials, own: dict[str, int], taken: set[int]) -> dict[str, int]:
  """Ids of the special tokens: those of the file, then the asked for ones, behind the largest id unless given."""
  specials = dict(own)
  following = itertools.count(1 + max(taken, default=-1))
  asked = special_tokens if isinstance(special_tokens, Mapping) else dict.fromkeys(special_tokens)
  for name, index in asked.items():
    if name in own and index in (None, own[name]):
      continue
    index = next(following) if index is None else index
    if name in own or index in taken or index in specials.values():
      raise UserError(f'special token {name!r} cannot have id {index}: it or the id is in the vocabulary already')
    specials[name] = index
  return specials


def from_visible(token: str) -> bytes:
  """The bytes that a token of a byte-level tokenizer.json stands for."""
  return bytes(map(_BYTE.__getitem__, token))


def _visible(token: bytes) -> str:
  return ''.join(map(_CHAR.__getitem__, token))


def valid(text: str) -> str:
  """The text that is encoded: lone surrogates, which UTF-8 cannot hold, become U+FFFD."""
  try:
    text.encode()
    return text
  except UnicodeEncodeError:
    return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')


def _pieces(text: str) -> Iterator[str]:
  """The text cut inside runs of white space that are too long for the regex engine."""
  if not re.search(r'\s{7}', text[:: _MAX_SPACES // 8]):  # a glance: a run that long has at least seven of these
    yield text
    return
  start = 0
  for match in _LONG_SPACES.finditer(text):
    yield text[start : match.end()]
    start = match.end()
  yield text[start:]


def show(tokenizer: Tokenizer, text: str, merges: bool = False) -> str:
  """The pieces of a text on alternating colours, their ids, and with `merges` how each was put together."""
  ids = tokenizer.encode(text)
  tokens = [tokenizer.token_bytes(i) for i in ids]
  pieces = [token.decode('utf-8', errors='backslashreplace') for token in tokens]  # a token may be part of a character
  lines = [''.join(f'\x1b[{42 + n % 5};30m{piece}\x1b[0m' for n, piece in enumerate(pieces))]
  for i, token, piece in zip(ids, tokens, pieces, strict=True):
    lines.append(f'{i:>8} {piece if piece.encode() == token else token!r}')
  if merges:
    if not isinstance(tokenizer, BPE):
      raise UserError('merge steps are shown of byte-level BPE only (bytes, rank files and most tokenizer.json files)')
    for i in dict.fromkeys(ids):
      steps = (' '.join(map(_visible, parts)) for parts in tokenizer.merge_steps(tokenizer.token_bytes(i)))
      lines.append(f'{i:>8} ' + ' -> '.join(steps))
  if (decoded := tokenizer.decode(ids)) != text:
    lines.append(f'decodes to {decoded!r}')
  size = len(valid(text).encode())
  return '\n'.join([*lines, f'{len(ids)} tokens, {size} bytes, {size / max(len(ids), 1):.2f} bytes per token'])


def main() -> None:
  parser = argparse.ArgumentParser(prog='python -m data.tokenizer', description='Shows how a text is cut into tokens.')
  parser.add_argument('command', choices=['show'])
  parser.add_argument('text')
  parser.add_argument('--tokenizer', required=True, help=SPEC)
  parser.add_argument('--merges', action='store_true', help='also show the merge steps of each token')
  args = parser.parse_args()
  print(show(load(args.tokenizer), args.text, args.merges))


if __name__ == '__main__':
  errors.run(main)
