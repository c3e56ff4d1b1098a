"""Prepares what a training run reads: existing token shards, or new ones from its input."""

from typing import Any

from data import tasks
from data.chat import chat_formats
from data.shards import tokenization
from data.tasks import demonstrations
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
  if source.endswith('manifest.json'):  # one manifest, or several separated by commas
    return source, data.val or None
  if not source:
    if layout != 'packed' or not data.tasks:
      raise UserError(
        field='config.data.train',
        value='',
        allowed="a manifest.json, text files, or for sft '' with config.data.tasks",
      )
    source = str(folder / 'conversations.jsonl')
    _demonstrate(config, files.as_path(source))
  inputs = {folder: source}
  if data.weights or data.epochs:
    inputs = {folder / str(i): name for i, name in enumerate(config_lib.names(source))}
  train, val = [], []
  for out, given in inputs.items():
    manifests = tokenization.tokenize(
      given,
      out,
      chat_format,
      held_out=0.0 if data.val else data.held_out,
      max_tokens=config.seq_len + 1 if layout == 'packed' else None,  # the length of a row
    )
    train.append(str(out / 'train' / 'manifest.json'))
    if 'val' in manifests and manifests['val']['documents']:
      val.append(str(out / 'val' / 'manifest.json'))
  return ','.join(train), data.val or ','.join(val) or None


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
