"""What a training run reads: token shards that are there already, or made from text or conversations when it starts."""

import pathlib
from typing import Any

from data import chat, conversations, tasks, tokenize
from lm import files
from lm.errors import UserError


def manifests(config: Any, chat_format: chat.Format, folder: files.Path) -> tuple[str, str | None]:
  """Paths of the training manifest and of the held-out one (None if there is none).

  Args:
    config: of a pretrain or sft run; `config.data` says what to read.
    chat_format: the tokenizer, and how it writes conversations.
    folder: where shards go that have to be made; complete ones found there are used.

  Raises:
    UserError: nothing to read is given, or it is not what the stage reads.
    FileNotFoundError: a file that is given is not there.
  """
  data, folder = config.data, pathlib.Path(folder)
  source = data.train
  if source.endswith('manifest.json'):  # one, or several between commas
    return source, data.val or None
  if not source:
    if config.stage != 'sft' or not data.tasks:
      raise UserError("config.data.train is '': give a manifest.json or text files (or, for sft, config.data.tasks)")
    source = str(folder / 'conversations.jsonl')
    if not pathlib.Path(source).exists():
      weights = conversations.weighted(data.tasks)
      made_by = tasks.make(weights, seed=data.task_seed, documents=data.documents, gsm8k=data.gsm8k,
                           gsm8k_test=data.gsm8k_test)
      conversations.write(source, made_by, examples=data.examples, seed=config.seed, weights=weights)
  tokenize.tokenize(source, folder, chat_format, held_out=0.0 if data.val else data.held_out)
  val = data.val or str(folder / 'val' / 'manifest.json')
  return str(folder / 'train' / 'manifest.json'), val if data.val or data.held_out else None
