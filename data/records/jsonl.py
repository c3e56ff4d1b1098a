"""Rows of JSON Lines files: the one reader of them, of local files and buckets, plain or
compressed.

A row that cannot be used never ends the reading: it is left out, and `Skipped` says where it stood
and why.
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
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.spec import AbstractBufferedFile
from fsspec.utils import infer_compression

from lm.base import buckets, files
from lm.base.errors import UserError

T = TypeVar('T')
MAX_ROW_BYTES = (
  64 << 20
)  # of one line: a longer one is skipped, so that a file without line ends does not fill the memory
KEPT = 100  # rows of which `Skipped` keeps place and cause; the others are only counted


def _zstd_errors() -> Iterator[type[Exception]]:
  """What the packages by which fsspec may unpack Zstandard raise on damage."""
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
  """What was left out of an input: how many rows, and of the first `KEPT` of them [place,
  cause].
  """

  count: int = 0
  rows: list[list[str]] = dataclasses.field(default_factory=list)

  def add(self, place: str, cause: object) -> None:
    """Counts a row; `place` is its file and line."""
    self.extend(Skipped(1, [[place, ' '.join(str(cause).split())]]))

  def extend(self, other: 'Skipped') -> None:
    """Adds what was left out of another part of the input."""
    self.count += other.count
    self.rows += other.rows[: KEPT - len(self.rows)]

  def __str__(self) -> str:
    """'2 rows skipped; the first: FILE, line 3: not JSON: ...', or '' if there are none."""
    if not self.count:
      return ''
    return (
      f'{self.count:,} row{"s" * (self.count > 1)} skipped; the first: {": ".join(self.rows[0])}'
    )

  def report(self) -> None:
    """Prints the summary to stderr if anything was left out."""
    if self.count:
      print(self, file=sys.stderr)

  def nothing_left(self, what: str) -> UserError:
    """The error for an input in which no row could be used: `what` says what is missing."""
    return UserError(f'{what}: {self}' if self.count else what)


def read(
  path: files.Path,
  parse: Callable[[Any], T],
  skipped: Skipped,
  *,
  start: int = 0,
  stop: int | None = None,
) -> Iterator[T]:
  """Yields `parse(row)` for each row of a JSON Lines file, empty lines apart; what cannot be used
  goes to `skipped`.

  A lone surrogate (half of a UTF-16 pair, which no encoding of text can hold) becomes U+FFFD.

  Args:
    path: a path or URL that fsspec opens; its suffix (.gz, .bz2, .xz, .zst, ...) tells how it is
      compressed.
    parse: makes what is wanted of a row's JSON value, or raises UserError with the cause to leave
      it out.
    start, stop: of a file that is not compressed, the bytes in which a line must begin; None: to
    the end.

  Raises:
    OSError: the file is not there or cannot be read.
  """
  buckets.check(path)
  for place, line in _lines(str(path), skipped, start, stop):
    try:
      yield parse(_value(line))
    except UserError as error:
      skipped.add(place(), error)
    except RecursionError:  # of the JSON reader, or of what `parse` does with its value
      skipped.add(place(), 'not JSON that can be read: nested too deep')


def text(path: files.Path) -> str:
  """The content of a text file, unpacked. Raises UserError if it is damaged or no UTF-8."""
  try:
    with fsspec.open(str(path), 'rb', compression='infer') as file:
      return file.read().decode()
  except UnicodeDecodeError as error:
    raise UserError(f'not UTF-8: {error}') from error
  except (*_DAMAGED, OSError) as error:
    raise UserError(_damage(str(path), error)) from error


def without_lone_surrogates(text: str) -> str:
  """The text with U+FFFD in place of halves of UTF-16 pairs, so that it can be written as UTF-8."""
  return _LONE.sub('\N{REPLACEMENT CHARACTER}', text)


def _lines(
  path: str, skipped: Skipped, start: int, stop: int | None
) -> Iterator[tuple[Callable[[], str], bytes]]:
  """(a function that tells its place, content) of each line that begins in bytes [start, stop) and
  is not blank.
  """
  number = 0
  with fsspec.open(path, 'rb', compression='infer') as opened:
    # The readline of a bucket's file takes no limit.
    file = io.BufferedReader(opened) if isinstance(opened, AbstractBufferedFile) else opened
    file.seek(max(start - 1, 0))
    at = first = file.tell() + (len(file.readline()) if start else 0)

    def place(number: int) -> str:
      return f'{path}, line {_lines_before(path, first) + number}'

    try:
      while (stop is None or at < stop) and (line := file.readline(MAX_ROW_BYTES)):
        number += 1
        size = len(line) + (
          _rest_of_line(file) if len(line) == MAX_ROW_BYTES and not line.endswith(b'\n') else 0
        )
        at += size
        if size > MAX_ROW_BYTES:
          skipped.add(place(number), f'longer than {MAX_ROW_BYTES:,} bytes')
        elif line.strip():
          yield functools.partial(place, number), line
    except (*_DAMAGED, OSError) as error:
      skipped.add(place(number + 1), f'the rest of the file is not read: {_damage(path, error)}')


def _rest_of_line(file: BinaryIO) -> int:
  """Reads on to the end of a line; returns how many bytes that were."""
  size = 0
  while part := file.readline(MAX_ROW_BYTES):
    size += len(part)
    if part.endswith(b'\n'):
      break
  return size


def _lines_before(path: str, start: int) -> int:
  """How many lines of a file end before byte `start`. Read only for the place of a row that is
  skipped.
  """
  count = 0
  if start:
    with fsspec.open(path, 'rb') as file:
      while start and (part := file.read(min(start, 1 << 20))):
        count, start = count + part.count(b'\n'), start - len(part)
  return count


def _damage(path: str, error: Exception) -> str:
  """What is wrong with the content of a file. Raises `error` again if that is not what it says."""
  if isinstance(error, OSError) and (error.errno is not None or infer_compression(path) is None):
    raise error
  return f'cut off or damaged: {error}'


def _decoded(line: bytes) -> str:
  try:
    return line.removeprefix(codecs.BOM_UTF8).decode()
  except UnicodeDecodeError as error:
    raise UserError(f'not UTF-8: {error}') from error


def _value(line: bytes) -> Any:
  """The JSON value of a line. Raises UserError if there is none."""
  text = _decoded(line)
  try:
    value = json.loads(text)
    return _mended(value) if _SURROGATE.search(line) else value
  except ValueError as error:
    raise UserError(f'not JSON: {error}') from error


def _mended(value: Any) -> Any:
  """A JSON value without lone surrogates in its texts."""
  if isinstance(value, str):
    return without_lone_surrogates(value)
  if isinstance(value, list):
    return [_mended(item) for item in value]
  if isinstance(value, dict):
    return {_mended(key): _mended(item) for key, item in value.items()}
  return value
