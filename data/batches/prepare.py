"""Prepares what a training run reads: existing token shards, or new ones from its input."""

from typing import Any

from data import tasks
from data.chat import chat_formats
from data.shards import tokenization
from data.tasks import conversation_rows, demonstrations
from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError


def prepare_training_data(
  config: Any, chat_format: chat_formats.Format, folder: files.Path, layout: str
) -> tuple[str, str | None]:
  """Returns the paths of the training manifests and of the held-out ones.

  Both are joined by commas; the second is None if there are none. There is one of each, or with
  `config.data.weights` or `config.data.epochs` one for each input of `config.data.train`.

  Args:
    config: config of a training run; `config.data` says what to read.
    chat_format: the tokenizer and its format of conversations.
    folder: folder for new shards; complete ones that are found there are used.
    layout: 'packed' for rows of whole conversations, 'windows' for documents.

  Raises:
    UserError: there is nothing to read, or it is not what the stage reads.
    FileNotFoundError: an input file does not exist.
  """
  data, folder = config.data, files.as_path(folder)
  source = data.train
  if not source:
    if layout != 'packed' or not data.tasks:
      raise UserError(
        field='config.data.train',
        value='',
        allowed="a manifest.json, text files, or for sft '' with config.data.tasks",
      )
    source = str(folder / 'conversations.jsonl')
    _demonstrate(config, files.as_path(source))
  names = config_lib.names(source)
  inputs = {folder: source}
  if data.weights or data.epochs or any(map(_is_manifest, names)):
    inputs = {folder / str(i): name for i, name in enumerate(names)}
  held_out = 0.0 if data.val else data.held_out
  train, val = [], []
  for out, given in inputs.items():
    if _is_manifest(given):
      train.append(given)
      continue
    manifests = _tokenize(config, given, out, chat_format, layout, held_out)
    train.append(str(out / 'train' / 'manifest.json'))
    if 'val' in manifests and manifests['val']['documents']:
      val.append(str(out / 'val' / 'manifest.json'))
  if data.val:
    return ','.join(train), prepare_held_out(config, chat_format, folder / 'held_out', layout)
  return ','.join(train), ','.join(val) or None


def prepare_held_out(
  config: Any, chat_format: chat_formats.Format, folder: files.Path, layout: str
) -> str:
  """Returns the manifests of `config.data.val`, joined by commas.

  Manifests are taken as they are; other files are tokenized into `folder` together.

  Args:
    config, chat_format, folder, layout: as of `prepare_training_data`.

  Raises:
    UserError, FileNotFoundError: as of `prepare_training_data`.
  """
  names = config_lib.names(config.data.val)
  manifests = [name for name in names if _is_manifest(name)]
  if others := [name for name in names if not _is_manifest(name)]:
    folder = files.as_path(folder)
    _tokenize(config, ','.join(others), folder, chat_format, layout, held_out=0.0)
    manifests.append(str(folder / 'train' / 'manifest.json'))
  return ','.join(manifests)


def _is_manifest(name: str) -> bool:
  return name.endswith('manifest.json')


def _tokenize(
  config: Any,
  inputs: str,
  folder: files.AnyPath,
  chat_format: chat_formats.Format,
  layout: str,
  held_out: float,
) -> dict[str, dict]:
  """Tokenizes files, those of conversations in any form that `conversation_rows` reads."""
  is_packed = layout == 'packed'
  return tokenization.tokenize(
    inputs,
    folder,
    chat_format,
    held_out=held_out,
    max_tokens=config.seq_len + 1 if is_packed else None,  # the length of a row
    read=_conversation if is_packed else None,
  )


def _conversation(row: Any) -> dict:
  """Returns the conversation of a row of any form, with what decides whether it is held out."""
  conversation = conversation_rows.conversation(row)
  return conversation | {name: row[name] for name in ('id', 'metadata') if row.get(name)}


def _demonstrate(config: Any, path: files.AnyPath) -> None:
  """Writes the conversations that a config's tasks make, unless they exist already.

  What they were made from is written beside them afterwards, in NAME.json, so a killed run makes
  them again.
  """
  data, origin = config.data, path.with_suffix('.json')
  weights, options = demonstrations.weighted(data.tasks), tasks.options(config.data)
  made_by = tasks.make(weights, **options)
  made_from = {
    'weights': weights,
    'examples': data.examples,
    'turns': data.turns,
    'seed': config.seed,
    'tasks': tasks.fingerprint(weights, **options),
  }
  if path.exists() and origin.exists() and files.read_json(origin) == made_from:
    return
  origin.unlink(missing_ok=True)
  demonstrations.write(
    path,
    made_by,
    examples=data.examples,
    turns=data.turns,
    seed=config.seed,
    weights=weights,
  )
  files.write_json(origin, made_from)
