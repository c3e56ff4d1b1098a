"""What a training stage reads, opened by name: `open_source('windows', config, ...)`.

This room may import data.shards, data.tasks, data.preferences and what they import. Start reading
at readers.py. To add a kind of batch, write a file with a function that opens it, and add a line to
`READERS`.
"""

import importlib
from typing import Any

from lm.base.errors import unknown

# The function that opens what a stage reads (`lm.stages.stage.Stage.reads`), as MODULE:FUNCTION.
READERS = {
  'windows': 'data.batches.readers:open_windows',
  'packed': 'data.batches.readers:open_packed',
  'pairs': 'data.batches.pairs:open_pairs',
  'answer_groups': 'data.batches.answer_groups:open_groups',
  'questions': 'data.batches.questions:open_questions',
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
  if kind not in READERS:
    raise unknown('reader', kind, READERS)
  module, _, name = READERS[kind].partition(':')
  return getattr(importlib.import_module(module), name)(config, chat_format, folder)
