"""Reads documents from spans of files: parts of JSONL files, or whole files."""

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from data.records import jsonl, rows, sources
from lm.base.errors import UserError

T = TypeVar('T')


class Span(NamedTuple):
  """A part of a JSONL file (the rows that begin in bytes [start, stop)), or a whole file.

  Attributes:
    path: local path or URL.
    name: the path relative to the folder that contains all input files.
    start, stop: bounds in bytes; `stop` is None for a whole file.
    size: bytes on disk.
  """

  path: str
  name: str
  start: int
  stop: int | None
  size: int


def spans(found: Sequence[sources.File], size: int) -> list[Span]:
  """Returns the files in order, divided into spans of about `size` bytes where possible.

  Only uncompressed JSONL files can be divided.
  """
  places = ['/' + file.path.split('://')[-1].lstrip('/') for file in found]
  root = os.path.commonpath([os.path.dirname(place) for place in places])
  result = []
  for file, place in zip(found, places, strict=True):
    name = os.path.relpath(place, root)
    if not file.path.endswith('.jsonl'):
      result.append(Span(file.path, name, 0, None, file.size))
    elif count := math.ceil(file.size / size):
      cuts = [file.size * i // count for i in range(count + 1)]
      result += [Span(file.path, name, a, b, b - a) for a, b in itertools.pairwise(cuts)]
  return result


def check_document(row: Any) -> dict:
  """Returns the row if it is a document or a conversation.

  Raises UserError that says what is wrong with any other row.
  """
  if not isinstance(row, dict) or not (isinstance(row.get('text'), str) or 'messages' in row):
    raise UserError(
      field='row',
      value=row,
      allowed='a document with "text" or a conversation with "messages"',
    )
  if not isinstance(row.get('metadata') or {}, dict):
    raise UserError(field='metadata', value=row['metadata'], allowed='an object')
  return row


def documents(
  all_spans: Iterable[Span],
  skipped: jsonl.Skipped,
  parse: Callable[[dict], T] = check_document,
  read: Callable[[Any], dict] | None = None,
) -> Iterator[T]:
  """Yields `parse(document)` for each document of the spans; unusable rows go to `skipped`.

  Args:
    all_spans: the parts of the input, from `spans`.
    skipped: receives rows and files that are not documents or for which `parse` raises UserError.
    parse: converts a document.
    read: makes a document of a row, or raises UserError; every file then has rows. With None, rows
      are documents as they are (`check_document`), and a file without rows is one document.
  """
  make = read or check_document
  for span in all_spans:
    if read or rows.is_rows(span.path):
      yield from rows.read(
        span.path, lambda row: parse(make(row)), skipped, start=span.start, stop=span.stop
      )
      continue
    try:
      yield parse({'id': span.name, 'text': jsonl.text(span.path)})
    except UserError as error:
      skipped.add(span.path, error)
