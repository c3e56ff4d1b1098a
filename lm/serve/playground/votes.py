"""The arena file: blind votes between the answers of two models, one JSON object a line."""

import datetime
import fcntl
import json
import os
import threading
from typing import Literal

import pydantic

from lm.base import files
from lm.serve.schemas import Schema

Name = pydantic.constr(min_length=1, max_length=1000)
Text = pydantic.constr(max_length=200_000)


class Vote(Schema):
  """A vote, as the page sends it.

  Attributes:
    kind: whether the models answered a message, or continued a text.
    prompt: what both models got.
    models: their names.
    answers: what they wrote, in the same order.
    left: which of the two was shown on the left, 0 or 1.
    vote: what was chosen before the names were shown.
  """

  kind: Literal['chat', 'completion']
  prompt: Text
  models: list[Name] = pydantic.Field(min_length=2, max_length=2)
  answers: list[Text] = pydantic.Field(min_length=2, max_length=2)
  left: int = pydantic.Field(ge=0, le=1)
  vote: Literal['left', 'right', 'tie', 'both_bad']


class VoteFile:
  """A file that votes are appended to, by any number of threads and servers."""

  def __init__(self, path: files.Path):
    """Creates the file if there is none.

    Raises:
      UserError: the path is in a bucket, where nothing can be appended.
      OSError: the file cannot be written.
    """
    self._path = files.local_path(path, '--arena-file')
    files.make_dir(self._path.parent)
    self._lock = threading.Lock()
    self._path.touch()
    with open(self._path, 'ab'):
      pass

  def append(self, vote: Vote) -> None:
    """Appends a vote with the time, and returns when the disk has it.

    A line that another writer left unfinished, because it was killed, is ended first, so that it
    spoils no other.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    row = {'time': now} | vote.model_dump() | {'left': vote.models[vote.left]}
    line = json.dumps(row).encode() + b'\n'
    with self._lock, open(self._path, 'r+b', buffering=0) as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      end = file.seek(0, os.SEEK_END)
      if end:
        file.seek(end - 1)
        if file.read(1) != b'\n':
          line = b'\n' + line
      written = 0
      while written < len(line):
        written += file.write(line[written:])
      os.fsync(file.fileno())
