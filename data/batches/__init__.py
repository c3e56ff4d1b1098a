"""What a training stage reads, opened by name: `open_source('windows', config, ...)`.

This room may import data.shards, data.tasks, data.preferences and what they import. Start reading
at readers.py. To add a kind of batch, write a file with a function that opens it, and add a line to
`READERS`.
"""

import dataclasses
import importlib
from typing import Any

from lm.base.errors import UserError, unknown


@dataclasses.dataclass(frozen=True)
class Reader:
  """The functions that open what a stage reads (`lm.stages.stage.Stage.reads`).

  Attributes:
    training: MODULE:FUNCTION that opens training and held-out data, as `open_source` says.
    held_out: MODULE:FUNCTION that opens `config.data.val` alone, as `open_held_out` says; '' where
      nothing is held out.
  """

  training: str
  held_out: str = ''


READERS = {
  'windows': Reader(
    'data.batches.readers:open_windows', 'data.batches.readers:open_held_out_windows'
  ),
  'packed': Reader('data.batches.readers:open_packed', 'data.batches.readers:open_held_out_packed'),
  'pairs': Reader('data.batches.pairs:open_pairs', 'data.batches.pairs:open_held_out'),
  'answer_groups': Reader(
    'data.batches.answer_groups:open_groups', 'data.batches.answer_groups:open_held_out'
  ),
  'questions': Reader('data.batches.questions:open_questions'),
}


def open_source(kind: str, config: Any, chat_format: Any, folder: Any) -> Any:
  """Returns what a stage reads: an object with a `fingerprint`, and with `val` for held-out data.

  Args:
    kind: a name in READERS.
    config: the config of a training run.
    chat_format: how text and conversations become tokens.
    folder: folder for data that has to be made first.

  Raises:
    UserError: there is nothing to read, or it is not what the stage reads.
  """
  return _imported(_reader(kind).training)(config, chat_format, folder)


def open_held_out(kind: str, config: Any, chat_format: Any, folder: Any) -> Any:
  """Returns batches with each row of `config.data.val` once, for evaluation without training.

  Args:
    kind, config, chat_format, folder: as of `open_source`.

  Raises:
    UserError: `config.data.val` is not what the stage reads, or the stage holds nothing out.
  """
  reader = _reader(kind)
  if not reader.held_out:
    raise UserError(
      field='config.data.val',
      value=config.data.val,
      allowed=f"'', since stage {config.stage} reads no held-out rows",
    )
  return _imported(reader.held_out)(config, chat_format, folder)


def _reader(kind: str) -> Reader:
  if kind not in READERS:
    raise unknown('reader', kind, READERS)
  return READERS[kind]


def _imported(name: str) -> Any:
  """Returns the function MODULE:FUNCTION, whose module is imported only now."""
  module, _, function = name.partition(':')
  return getattr(importlib.import_module(module), function)
