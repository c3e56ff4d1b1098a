"""Reads the rows of an input file: JSON Lines, a JSON list, or Parquet."""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import fsspec

from data.records import jsonl, parquet, sources
from lm.base import buckets, files
from lm.base.errors import UserError

T = TypeVar('T')
PARQUET = '.parquet'


def is_rows(path: str) -> bool:
  """Returns whether a file has rows, by its name; other files are plain text."""
  suffixes = pathlib.PurePosixPath(path).suffixes[-2:]
  return '.jsonl' in suffixes or suffixes[-1:] == [PARQUET]


def read(
  path: files.Path,
  parse: Callable[[Any], T],
  skipped: jsonl.Skipped,
  *,
  start: int = 0,
  stop: int | None = None,
) -> Iterator[T]:
  """Yields `parse(row)` for each row of a file; unusable rows go to `skipped`.

  Args:
    path: a path or URL. A name that ends with .parquet is read as Parquet, and one that ends with
      .json as a list of rows if that is its content. All others are read as JSON Lines.
    parse: converts the JSON value of a row. It raises UserError with the cause to skip the row.
    skipped: receives the rows that cannot be used.
    start, stop: bounds in bytes of JSON Lines, as of `jsonl.read`; other files are read whole.

  Raises:
    OSError: the file does not exist or cannot be read.
    UserError: the file is Parquet, and the package pyarrow is not installed.
  """
  if str(path).endswith(PARQUET):
    return parquet.read(path, parse, skipped)
  if str(path).endswith('.json') and (items := _items(path)) is not None:
    places = (functools.partial('{}, item {}'.format, path, i) for i in range(len(items)))
    return jsonl.parse_each(zip(places, items, strict=True), parse, skipped)
  return jsonl.read(path, parse, skipped, start=start, stop=stop)


def _items(path: files.Path) -> list | None:
  """Returns the items of a file that is one JSON list, or None if it is something else."""
  buckets.check(path)
  with fsspec.open(str(path), 'rb') as file:
    try:
      found = jsonl.value(file.read())
    except (UserError, RecursionError):  # JSON Lines, whose reader reports what is wrong
      return None
  return found if isinstance(found, list) else None


def read_all(inputs: sources.Inputs, parse: Callable[[Any], T], what: str) -> list[T]:
  """Returns `parse(row)` for each row of files; unusable rows are skipped and reported.

  Args:
    inputs: paths, URLs or globs of the files.
    parse: as of `read`.
    what: what a row is, for the error.

  Raises:
    FileNotFoundError: a file does not exist.
    UserError: no row can be used.
  """
  skipped = jsonl.Skipped()
  found = [row for file in sources.find(inputs) for row in read(file.path, parse, skipped)]
  if not found:
    raise skipped.nothing_left(f'{what} in {inputs}')
  skipped.report()
  return found
