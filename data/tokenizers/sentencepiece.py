"""Runs SentencePiece models (Kudo and Richardson 2018, arXiv 1808.06226) with tensorflow-text."""

import functools
import itertools
import os
from collections.abc import Sequence
from typing import Any

from data.tokenizers.interface import Specials, Tokenizer, assign_ids, valid
from lm.base import files
from lm.base.errors import UserError, invalid, missing_package


class SentencePiece(Tokenizer):
  """A SentencePiece model, run by tensorflow-text, with the ids of SentencePiece itself.

  Its control symbols are special tokens, and so are the user-defined symbols that are requested as
  such. Other requested special tokens are added to the model as control symbols. The other
  user-defined symbols are ordinary pieces, produced from text.

  Decoding restores the text to the byte if the model has byte fallback and does not alter text (no
  normalisation map, no remove_extra_whitespaces), with one exception: U+2581, SentencePiece's sign
  for a space, becomes a space. Other models lose what their settings say; for example, unknown
  characters become U+2047.

  With add_dummy_prefix a space is put before each text. It counts in `token_bytes`. Decoding drops
  it at the start and after a special token, because text between special tokens was encoded
  separately.
  """

  def __init__(self, data: bytes, special_tokens: Specials):
    tensorflow, tensorflow_text = _tensorflow_text()
    model = _read_model(data)
    pieces = {piece.piece: i for i, piece in enumerate(model.pieces)}
    for name in special_tokens:
      if name in pieces and (piece := model.pieces[pieces[name]]).type in (_USER_DEFINED, _UNUSED):
        piece.type = _CONTROL
    own = {piece.piece: i for i, piece in enumerate(model.pieces) if piece.type == _CONTROL}
    specials = assign_ids(special_tokens, own, taken=set(pieces.values()))
    for name, i in sorted(specials.items() - own.items(), key=lambda item: item[1]):
      if name in pieces or i != len(model.pieces):
        raise UserError(
          field=f'id of special token {name!r}',
          value=i,
          allowed='the next id, of a name that is no ordinary piece',
        )
      model.pieces.add(piece=name, type=_CONTROL)
    self._model = model.SerializeToString(deterministic=True)
    model.DiscardUnknownFields()  # such as how it was trained, which does not determine the ids
    content = model.SerializeToString(deterministic=True).hex()
    super().__init__(specials, len(model.pieces) - 1, content)
    self._bytes = [_piece_bytes(piece, model.trainer_spec.unk_surface) for piece in model.pieces]
    self._prefix = b' ' if model.normalizer_spec.add_dummy_prefix else b''
    try:
      self._tokenizer = tensorflow_text.SentencepieceTokenizer(
        self._model, out_type=tensorflow.int32
      )
      self.refuse_forgery()
    except tensorflow.errors.OpError as error:
      raise invalid('model', 'one that tensorflow-text runs', error.message) from error

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
    parts = []
    for special, run in runs:
      parts.append(join(run) if special else join(run).removeprefix(self._prefix))
    return b''.join(parts)

  def save(self, folder: files.Path) -> None:
    files.write_bytes(files.as_path(folder) / 'tokenizer.model', self._model)


# The kinds of pieces, and the fields of a .model file that are read, as in
# sentencepiece_model.proto: the number, the type and the default of each. Other fields are kept as
# they are.
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE_PIECE = 2, 3, 4, 5, 6
_MODEL_FIELDS = {
  'Piece': {'piece': (1, 'string', ''), 'score': (2, 'float', '0'), 'type': (3, 'int32', '1')},
  'Trainer': {
    'model_type': (3, 'int32', '1'),
    'treat_whitespace_as_suffix': (24, 'bool', 'false'),
    'byte_fallback': (35, 'bool', 'false'),
    'unk_surface': (44, 'string', ' \u2047 '),
  },
  'Normalizer': {
    'precompiled_charsmap': (2, 'bytes', ''),
    'add_dummy_prefix': (3, 'bool', 'true'),
    'remove_extra_whitespaces': (4, 'bool', 'true'),
    'escape_whitespaces': (5, 'bool', 'true'),
  },
  'Model': {
    'pieces': (1, 'Piece', None),
    'trainer_spec': (2, 'Trainer', None),
    'normalizer_spec': (3, 'Normalizer', None),
    'denormalizer_spec': (5, 'Normalizer', None),
  },
}


@functools.cache
def _model_class() -> type:
  """Returns the protobuf class of a .model file."""
  from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

  kinds = descriptor_pb2.FieldDescriptorProto
  file = descriptor_pb2.FileDescriptorProto(
    name='deepdive/sentencepiece.proto', package='deepdive', syntax='proto2'
  )
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
  """Returns a .model file as a protobuf message. Raises UserError if it is not supported."""
  from google.protobuf import message

  try:
    model = _model_class().FromString(data)
  except message.DecodeError as error:
    raise invalid('model', 'a SentencePiece model', error) from error
  if not model.pieces:
    raise invalid('model', 'a SentencePiece model', 'it has no pieces')
  if model.trainer_spec.treat_whitespace_as_suffix:
    raise UserError(field='trainer_spec.treat_whitespace_as_suffix', value=True, allowed='false')
  if model.denormalizer_spec.precompiled_charsmap:
    raise UserError(field='denormalizer_spec.precompiled_charsmap', value='a table', allowed='none')
  return model


def _piece_bytes(piece: Any, unknown: str) -> bytes:
  """Returns the bytes that a piece stands for."""
  if piece.type == _CONTROL:
    return b''
  if piece.type == _BYTE_PIECE:  # written as <0x0A>
    return bytes.fromhex(piece.piece[3:5])
  return (unknown if piece.type == _UNKNOWN else piece.piece.replace('\u2581', ' ')).encode()


def _tensorflow_text() -> tuple[Any, Any]:
  """Returns the modules tensorflow and tensorflow_text, whose import takes seconds."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  try:
    import tensorflow
    import tensorflow_text
  except ModuleNotFoundError as error:
    raise missing_package(error.name, 'sentencepiece', 'A SentencePiece model') from error
  tensorflow.config.set_visible_devices([], 'GPU')  # JAX uses the GPUs
  return tensorflow, tensorflow_text
