"""What a training run reads: token shards that are there already, or made from text or
conversations when it starts.
"""

from typing import Any

from data import tasks
from data.chat import chat_formats
from data.shards import tokenization
from data.tasks import demonstrations
from lm.base import files
from lm.base.errors import UserError


def manifests(
  config: Any, chat_format: chat_formats.Format, folder: files.Path, layout: str
) -> tuple[str, str | None]:
  """Paths of the training manifest and of the held-out one (None if there is none).

  Args:
    config: of a pretrain or sft run; `config.data` says what to read.
    chat_format: the tokenizer, and how it writes conversations.
    folder: where shards go that have to be made; complete ones found there are used.
    layout: 'packed' for rows of whole conversations, 'windows' for documents.

  Raises:
    UserError: nothing to read is given, or it is not what the stage reads.
    FileNotFoundError: a file that is given is not there.
  """
  data, folder = config.data, files.as_path(folder)
  source = data.train
  if source.endswith('manifest.json'):  # one, or several between commas
    return source, data.val or None
  if not source:
    if layout != 'packed' or not data.tasks:
      raise UserError(
        "config.data.train is '': give a manifest.json or text files (or, for sft, "
        'config.data.tasks)'
      )
    source = str(folder / 'conversations.jsonl')
    _demonstrate(config, files.as_path(source))
  max_tokens = config.seq_len + 1 if layout == 'packed' else None  # what a row holds
  made = tokenization.tokenize(
    source, folder, chat_format, held_out=0.0 if data.val else data.held_out, max_tokens=max_tokens
  )
  val = (
    str(folder / 'val' / 'manifest.json') if 'val' in made and made['val']['documents'] else None
  )
  return str(folder / 'train' / 'manifest.json'), data.val or val


def _demonstrate(config: Any, path: files.AnyPath) -> None:
  """Writes the conversations that the tasks of a config make, unless they were made from the same
  before.

  What they were made from stands beside them, in NAME.json, and is written after them: a killed run
  makes them again.
  """
  data, origin = config.data, path.with_suffix('.json')
  weights, options = demonstrations.weighted(data.tasks), tasks.options(config.data)
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
    tasks.make(weights, **options),
    examples=data.examples,
    turns=data.turns,
    seed=config.seed,
    weights=weights,
  )
  files.write_json(origin, made_from)
