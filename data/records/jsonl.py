"""Reads rows of JSON Lines files, local or in a bucket, plain or compressed.

This is the only reader of JSON Lines in the project. A row that cannot be used never ends the
reading: the row is skipped, and `Skipped` records its place and the cause.
"""

import codecs
import contextlib
import dataclasses
import functools
import gzip
import importlib
import io
import json
import lzma
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.spec import AbstractBufferedFile
from fsspec.utils import infer_compression

from lm.base import buckets, files
from lm.base.errors import UserError, invalid

T = TypeVar('T')
# A longer line is skipped, so that a file without line ends does not fill the memory.
MAX_ROW_BYTES = 64 << 20
KEPT = 100  # number of skipped rows whose place and cause are kept; the others are only counted


def _zstd_errors() -> Iterator[type[Exception]]:
  """Yields the errors for damage of the packages with which fsspec may read Zstandard."""
  for name in ('compression.zstd', 'backports.zstd', 'zstandard'):
    with contextlib.suppress(ImportError):
      yield importlib.import_module(name).ZstdError


_DAMAGED = (
  EOFError,
  zlib.error,
  gzip.BadGzipFile,
  lzma.LZMAError,
  zipfile.BadZipFile,
  *_zstd_errors(),
)
_SURROGATE = re.compile(rb'\\u[dD][89a-fA-F]')
_LONE = re.compile('[\ud800-\udfff]')


@dataclasses.dataclass
class Skipped:
  """The rows that were left out of an input.

  Attributes:
    count: number of rows left out.
    rows: [place, cause] of the first `KEPT` of them.
  """

  count: int = 0
  rows: list[list[str]] = dataclasses.field(default_factory=list)

  def add(self, place: str, cause: object) -> None:
    """Counts one skipped row; `place` names its file and line."""
    self.extend(Skipped(1, [[place, ' '.join(str(cause).split())]]))

  def extend(self, other: 'Skipped') -> None:
    """Adds the rows that were left out of another part of the input."""
    self.count += other.count
    self.rows += other.rows[: KEPT - len(self.rows)]

  def __str__(self) -> str:
    """Returns '2 rows skipped; the first: FILE, line 3: ...', or '' if there are none."""
    if not self.count:
      return ''
    rows = 'row' if self.count == 1 else 'rows'
    return f'{self.count:,} {rows} skipped; the first: {": ".join(self.rows[0])}'

  def report(self) -> None:
    """Prints the summary to stderr if anything was left out."""
    if self.count:
      print(self, file=sys.stderr)

  def nothing_left(self, what: str) -> UserError:
    """Returns the error for an input without any usable row; `what` is missing."""
    return UserError(field=what, message=str(self))


def read(
  path: files.Path,
  parse: Callable[[Any], T],
  skipped: Skipped,
  *,
  start: int = 0,
  stop: int | None = None,
) -> Iterator[T]:
  """Yields `parse(row)` for each row of a JSON Lines file; unusable rows go to `skipped`.

  Empty lines are ignored. A lone surrogate (half of a UTF-16 pair, which no text encoding can
  represent) becomes U+FFFD.

  Args:
    path: a path or URL that fsspec opens. Its suffix (.gz, .bz2, .xz, .zst, ...) determines the
      compression.
    parse: converts the JSON value of a row. It raises UserError with the cause to skip the row.
    skipped: receives the rows that cannot be used.
    start, stop: for an uncompressed file, only lines that begin in bytes [start, stop) are read.
      None means the end of the file.

  Raises:
    OSError: the file does not exist or cannot be read.
  """
  buckets.check(path)
  lines = _lines(str(path), skipped, start, stop)
  yield from parse_each(lines, lambda line: parse(value(line)), skipped)


def parse_each(
  items: Iterable[tuple[Callable[[], str], Any]], parse: Callable[[Any], T], skipped: Skipped
) -> Iterator[T]:
  """Yields `parse(item)` for each item; those for which it raises UserError go to `skipped`.

  Args:
    items: (place, item) pairs, with a function that returns the place in the file.
    parse: converts an item.
    skipped: receives the items that cannot be used.
  """
  for place, item in items:
    try:
      yield parse(item)
    except UserError as error:
      skipped.add(place(), error)
    except RecursionError:  # raised by the JSON reader, or by `parse` on its value
      skipped.add(place(), 'the JSON is nested too deeply')


def text(path: files.Path) -> str:
  """Returns the decompressed content of a text file.

  Raises UserError if the file is damaged or is not UTF-8.
  """
  try:
    with fsspec.open(str(path), 'rb', compression='infer') as file:
      return file.read().decode()
  except UnicodeDecodeError as error:
    raise invalid('text', 'UTF-8', error) from error
  except (*_DAMAGED, OSError) as error:
    raise invalid('file', 'readable', _damage(str(path), error)) from error


def without_lone_surrogates(text: str) -> str:
  """Returns the text with U+FFFD for each lone surrogate, so that it can be encoded as UTF-8."""
  return _LONE.sub('\N{REPLACEMENT CHARACTER}', text)


def _lines(
  path: str, skipped: Skipped, start: int, stop: int | None
) -> Iterator[tuple[Callable[[], str], bytes]]:
  """Yields (place, content) of each line that begins in bytes [start, stop) and is not blank.

  `place` is a function that returns the file and line number: counting lines is slow, and only
  skipped rows need it.
  """
  number = 0
  with fsspec.open(path, 'rb', compression='infer') as opened:
    # The readline() of a remote file does not accept a limit.
    file = io.BufferedReader(opened) if isinstance(opened, AbstractBufferedFile) else opened
    file.seek(max(start - 1, 0))
    at = first = file.tell() + (len(file.readline()) if start else 0)

    def place(number: int) -> str:
      return f'{path}, line {_lines_before(path, first) + number}'

    try:
      while (stop is None or at < stop) and (line := file.readline(MAX_ROW_BYTES)):
        number += 1
        size = len(line)
        if size == MAX_ROW_BYTES and not line.endswith(b'\n'):
          size += _rest_of_line(file)
        at += size
        if size > MAX_ROW_BYTES:
          skipped.add(place(number), f'longer than {MAX_ROW_BYTES:,} bytes')
        elif line.strip():
          yield functools.partial(place, number), line
    except (*_DAMAGED, OSError) as error:
      skipped.add(place(number + 1), f'the rest of the file was not read: {_damage(path, error)}')


def _rest_of_line(file: BinaryIO) -> int:
  """Reads to the end of the current line and returns the number of bytes read."""
  size = 0
  while part := file.readline(MAX_ROW_BYTES):
    size += len(part)
    if part.endswith(b'\n'):
      break
  return size


def _lines_before(path: str, start: int) -> int:
  """Returns the number of lines of a file that end before byte `start`.

  This reads the file again, so it is called only to locate a row that is skipped.
  """
  count = 0
  if start:
    with fsspec.open(path, 'rb') as file:
      while start and (part := file.read(min(start, 1 << 20))):
        count, start = count + part.count(b'\n'), start - len(part)
  return count


def _damage(path: str, error: Exception) -> str:
  """Returns a description of a damaged file, or raises `error` again if it has another cause."""
  if isinstance(error, OSError) and (error.errno is not None or infer_compression(path) is None):
    raise error
  return f'cut off or damaged: {error}'


def line(row: Any) -> str:
  """Returns a row as a line of a file."""
  return json.dumps(row, ensure_ascii=False) + '\n'


def write(path: files.Path, rows: Iterable[Any]) -> int:
  """Writes a file of rows, completely or not at all, and returns their number."""
  lines = [line(row) for row in rows]
  files.write_text(path, ''.join(lines))
  return len(lines)


def _decoded(line: bytes) -> str:
  try:
    return line.removeprefix(codecs.BOM_UTF8).decode()
  except UnicodeDecodeError as error:
    raise invalid('row', 'UTF-8', error) from error


def value(line: bytes) -> Any:
  """Returns the JSON value of UTF-8 text. Raises UserError if the text is not valid JSON."""
  text = _decoded(line)
  try:
    found = json.loads(text)
    return _mended(found) if _SURROGATE.search(line) else found
  except ValueError as error:
    raise invalid('row', 'JSON', error) from error


def _mended(value: Any) -> Any:
  """Returns a JSON value with the lone surrogates in its strings replaced."""
  if isinstance(value, str):
    return without_lone_surrogates(value)
  if isinstance(value, list):
    return [_mended(item) for item in value]
  if isinstance(value, dict):
    return {_mended(key): _mended(item) for key, item in value.items()}
  return value
