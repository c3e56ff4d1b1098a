"""Documents of files, read in spans: parts of JSONL files, or whole files of plain text."""

import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from data.records import jsonl, sources
from lm.base.errors import UserError

T = TypeVar('T')


class Span(NamedTuple):
  """A part of a file: the rows that begin in bytes [start, stop) of a JSONL file, or a whole file
  (`stop` is None).

  Attributes:
    path: local path or URL.
    name: its path below the folder that all input files share.
    start, stop: see above.
    size: bytes on disk.
  """

  path: str
  name: str
  start: int
  stop: int | None
  size: int


def spans(found: Sequence[sources.File], size: int) -> list[Span]:
  """The files in order, in spans of at most about `size` bytes where the format allows a cut."""
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
  """Returns a row that is a document or a conversation. Raises UserError that says what is wrong
  with another.
  """
  if not isinstance(row, dict) or not (isinstance(row.get('text'), str) or 'messages' in row):
    raise UserError('neither a document with "text" nor a conversation with "messages"')
  if not isinstance(row.get('metadata') or {}, dict):
    raise UserError(f'metadata must be an object; found {row["metadata"]!r:.80}')
  return row


def documents(
  all_spans: Iterable[Span], skipped: jsonl.Skipped, parse: Callable[[dict], T] = check_document
) -> Iterator[T]:
  """Yields `parse(document)` for the documents of spans; what cannot be used is added to `skipped`.

  Args:
    all_spans: see `spans`.
    skipped: where rows and files go that are no documents, or for which `parse` raises UserError.
    parse: makes what is wanted of a document.
  """
  for span in all_spans:
    if '.jsonl' in pathlib.PurePosixPath(span.path).suffixes[-2:]:
      yield from jsonl.read(
        span.path, lambda row: parse(check_document(row)), skipped, start=span.start, stop=span.stop
      )
      continue
    try:
      yield parse({'id': span.name, 'text': jsonl.text(span.path)})
    except UserError as error:
      skipped.add(span.path, error)
