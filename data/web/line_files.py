"""The files that the steps of the pipeline write: JSON lines of a task, and whole files."""

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator

from datatrove.io import DataFolder


@contextlib.contextmanager
def open_lines(folder: DataFolder, name: str) -> Iterator[Callable[[dict], object]]:
  """Yields a function that appends a JSON line to a file, which is gzipped if its name ends in .gz.

  The file's bytes do not depend on the time of writing.
  """
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(folder.open(name, 'wb'))
    if name.endswith('.gz'):
      file = stack.enter_context(gzip.GzipFile('', 'wb', 6, file, mtime=0))
    yield lambda line: file.write(
      json.dumps(line, ensure_ascii=False).encode(errors='replace') + b'\n'
    )


def read_lines(folder: DataFolder, name: str) -> Iterator[dict]:
  """Yields the objects of a file that `open_lines` wrote."""
  with folder.open(name, 'rb') as raw, gzip.open(raw) if name.endswith('.gz') else raw as file:
    yield from map(json.loads, file)


def write_text(folder: DataFolder, name: str, text: str) -> None:
  """Writes a UTF-8 file, completely or not at all."""
  with folder.open(f'part-{name}', 'wb') as file:
    file.write(text.encode())
  folder.mv(f'part-{name}', name)


def write_json(folder: DataFolder, name: str, value: dict) -> None:
  """Writes a JSON file, completely or not at all."""
  write_text(folder, name, json.dumps(value, indent=2))


def shard(rank: int) -> str:
  """Returns the name of a task's file within a folder."""
  return f'{rank:05d}.jsonl.gz'


def documents_name(rank: int, tasks: int) -> str:
  """Returns the file name of a task's clean documents.

  `documents*.jsonl*` matches these files and no others.
  """
  return 'documents.jsonl' if tasks == 1 else f'documents-{rank:05d}-of-{tasks:05d}.jsonl.gz'
