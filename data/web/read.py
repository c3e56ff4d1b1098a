"""Reads pages from WARC files that may be cut off, corrupt, chunked, compressed or mixed."""

import io
import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import fsspec
from fastwarc.stream_io import BrotliReader, ChunkedReader, ZstdReader
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from data.web import inputs
from lm.base import files
from lm.base.errors import UserError

SUFFIXES = ('.warc', '.warc.gz', '.warc.zst')
_BLOCK = 1 << 20
_LONGEST = 6  # one byte less than the longest match of _RECORD_START
_RECORD_START = re.compile(rb'\x1f\x8b\x08|\x28\xb5\x2f\xfd|WARC/1\.')
_PLAIN = re.compile(rb'(?:\xef\xbb\xbf)?\s*<')  # the start of HTML that is not compressed
_MOST_CODINGS = 4  # applied to one body


class RawPage(NamedTuple):
  """A response as stored. `fault` says why it cannot be read, and is '' for a sound record."""

  url: str
  status: int
  content_type: str
  body: bytes
  fault: str = ''


class _Source:
  """The file that FastWARC reads. It keeps a file system error, which is not damage to the file."""

  def __init__(self, file: BinaryIO):
    self.file, self.error = file, None

  def read(self, size: int = -1) -> bytes:
    try:
      return self.file.read(size)
    except Exception as error:
      self.error = error
      raise

  def tell(self) -> int:
    return self.file.tell()


def warc_files(spec: files.Path) -> list[tuple[str, int]]:
  """Returns (path, bytes) of the WARC files in a folder or matching a glob, sorted.

  In a folder the files are recognised by SUFFIXES. Raises UserError if there are none.
  """
  system, path = inputs.filesystem(spec)
  patterns = [f'{path}/*{suffix}' for suffix in SUFFIXES] if system.isdir(path) else [path]
  found = sorted(file for pattern in patterns for file in inputs.names(system, pattern))
  if not found:
    raise UserError(
      field='--input',
      value=os.fspath(spec),
      allowed='a folder that contains *.warc.gz, or a glob that WARC files match',
    )
  return found


def read_pages(path: files.Path, max_bytes: int) -> Iterator[RawPage]:
  """Yields every response of a WARC file; after damage it continues at the next record.

  Args:
    path: the file, local or remote.
    max_bytes: largest size of a body, compressed and decompressed. Of a longer one `max_bytes + 1`
      bytes are read and no more are decompressed.

  Raises:
    OSError: the file does not exist, or its file system fails.
  """
  with fsspec.open(str(path), 'rb') as file:
    start, reported = 0, False  # reported: whether the current damage has been reported
    while start is not None:
      file.seek(start)
      packed = file.read(4) != b'WARC'
      file.seek(start)
      source, after = _Source(file), start + 1
      try:
        for record in ArchiveIterator(
          source, WarcRecordType.response, parse_http=False, auto_decode='none'
        ):
          place, size = record.stream_pos, record.content_length
          page = _page(record, max_bytes)
          reported = bool(page.fault)
          # An uncompressed body may contain what looks like a record, so it is skipped.
          after = place + (1 if reported or packed else size)
          yield page
        if not reported:
          return
      except OSError as error:  # FastWARC raises this for damage, too
        if source.error:
          raise
        if not reported:
          yield RawPage(f'{path}@{after - 1}', 0, '', b'', _cause(error))
          reported = True
      start = _next_record(file, after)


def _page(record: WarcRecord, max_bytes: int) -> RawPage:
  # WARC 1.0 and wget put the URL between angle brackets.
  url = (record.headers.get('WARC-Target-URI') or '').strip('<>')
  try:
    record.parse_http(auto_decode='none', quirks_mode=True)
    size, body = record.content_length, record.reader.read(max_bytes + 1)
  except OSError as error:
    return RawPage(url, 0, '', b'', _cause(error))
  http = record.http_headers
  status = http.status_code if http and isinstance(http.status_code, int) else 0
  fault = ''
  if len(body) < min(size, max_bytes + 1):
    fault = f'{size - len(body)} bytes of the record are missing'
  elif not url:
    fault = 'the record has no WARC-Target-URI'
  elif not status:
    fault = 'no HTTP status'
  else:
    body, fault = _decoded(body, _codings(http), max_bytes)
  return RawPage(url, status, (http.get('Content-Type') or '') if http else '', body, fault)


def _codings(http) -> list[str]:
  """Returns the names of the codings of a body, in the order in which they were applied."""
  values = [*http.get_multiple('Content-Encoding'), *http.get_multiple('Transfer-Encoding')]
  names = [part.strip().lower() for value in values for part in value.split(',')]
  return [name for name in names if name in DECODERS]


def _decoded(body: bytes, codings: list[str], max_bytes: int) -> tuple[bytes, str]:
  """Returns (decoded body, fault).

  Archives often hold decoded bodies under the headers of the encoded ones, so a body that looks
  like HTML already is not a fault.
  """
  if len(body) > max_bytes:
    return body, ''
  if len(codings) > _MOST_CODINGS:
    return body, f'{len(codings)} content codings, more than {_MOST_CODINGS}'
  for name in reversed(codings):
    try:
      body = DECODERS[name](body, max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
      if not _PLAIN.match(body):
        return body, f'damaged content coding {name}: {_cause(error)}'
  return body, ''


def _inflate(data: bytes, size: int, *formats: int) -> bytes:
  """Returns the first `size` bytes of zlib data, in the first of the formats that it has.

  Raises EOFError if the data is cut off.
  """
  try:
    unpacker = zlib.decompressobj(formats[0])
    found = unpacker.decompress(data, size)
  except zlib.error:
    if len(formats) == 1:
      raise
    return _inflate(data, size, *formats[1:])
  if not unpacker.eof and len(found) < size:
    raise EOFError('cut off')
  return found


def _gunzip(data: bytes, size: int) -> bytes:
  return _inflate(data, size, 31)


def _reading(reader: type) -> Callable[[bytes, int], bytes]:
  """Returns a decoder that uses one of FastWARC's stream readers."""
  return lambda data, size: reader(io.BytesIO(data)).read(size)


# Each decoder takes a body and the largest number of bytes to return.
DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
  'gzip': _gunzip,
  'x-gzip': _gunzip,
  'deflate': lambda data, size: _inflate(data, size, zlib.MAX_WBITS, -zlib.MAX_WBITS),
  'br': _reading(BrotliReader),
  'zstd': _reading(ZstdReader),
  'chunked': _reading(ChunkedReader),
}


def _cause(error: Exception) -> str:
  return ' '.join(str(error).split())[:200] or repr(error)


def _next_record(file: BinaryIO, start: int) -> int | None:
  """Returns the offset at or after `start` of what looks like the start of a record, or None."""
  file.seek(start)
  data = b''  # the file from `start` on; its end is kept, which may be the start of a record
  while block := file.read(_BLOCK):
    data += block
    if match := _RECORD_START.search(data):
      return start + match.start()
    start += max(len(data) - _LONGEST, 0)
    data = data[-_LONGEST:]
  return None
