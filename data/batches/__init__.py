"""What a stage of training reads, opened by name: `open_source('windows', config, ...)`.

May import the rooms of data/ that hold tokens, conversations and tasks. Start reading at
readers.py; a new kind of batch is one file and one line of READERS.
"""

import importlib
from typing import Any

from lm.base.errors import unknown

# The function that opens what a stage reads (`lm.stages.stage.Stage.reads`), as MODULE:FUNCTION.
READERS = {
  'windows': 'data.batches.readers:open_windows',
  'packed': 'data.batches.readers:open_packed',
  'pairs': 'data.batches.pairs:open_pairs',
  'questions': 'data.batches.questions:open_questions',
}


def open_source(kind: str, config: Any, chat_format: Any, folder: Any) -> Any:
  """Returns what a stage reads, an object with a `fingerprint`, and `val` if something is held out.

  Args:
    kind: of READERS.
    config: a training config.
    chat_format: how text and conversations become tokens.
    folder: where data goes that has to be made first.

  Raises:
    UserError: nothing to read is given, or it is not what the stage reads.
  """
  if kind not in READERS:
    raise unknown('reader', kind, READERS)
  module, _, name = READERS[kind].partition(':')
  return getattr(importlib.import_module(module), name)(config, chat_format, folder)
