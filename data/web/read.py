"""Reads pages from WARC files that may be cut off, corrupt, chunked, compressed or full of other
things.
"""

import io
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
_LONGEST = 6  # bytes of a start but one
_RECORD_START = re.compile(rb'\x1f\x8b\x08|\x28\xb5\x2f\xfd|WARC/1\.')
_PLAIN = re.compile(rb'(?:\xef\xbb\xbf)?\s*<')  # how HTML begins that is not compressed
_MOST_CODINGS = 4  # of one body, each over the other


class RawPage(NamedTuple):
  """A response as stored. `fault` says why it cannot be read; it is '' for a sound record."""

  url: str
  status: int
  content_type: str
  body: bytes
  fault: str = ''


class _Source:
  """A file as FastWARC reads it. Keeps an error of the file system, which must not pass for damage
  of the file.
  """

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
  """(path, bytes) of the WARC files of a folder (by SUFFIXES) or a glob, sorted; any path that
  fsspec knows.

  Raises UserError when there is none.
  """
  system, path = inputs.filesystem(spec)
  patterns = [f'{path}/*{suffix}' for suffix in SUFFIXES] if system.isdir(path) else [path]
  found = sorted(file for pattern in patterns for file in inputs.names(system, pattern))
  if not found:
    raise UserError(f'no WARC file: {spec} (give a folder with *.warc.gz in it, or a glob)')
  return found


def read_pages(path: files.Path, max_bytes: int) -> Iterator[RawPage]:
  """Yields every response of a WARC file. After damage it goes on at the next place where a record
  begins.

  Args:
    path: the file; any path that fsspec knows.
    max_bytes: of a body, packed and unpacked. Of a longer one `max_bytes + 1` bytes are read, and
      no more unpacked.

  Raises:
    OSError: the file is not there, or its file system cannot read on.
  """
  with fsspec.open(str(path), 'rb') as file:
    start, told = 0, False  # told: the damage at hand is on record
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
          told = bool(page.fault)
          # a plain body may have in it what looks like a record
          after = place + (1 if told or packed else size)
          yield page
        if not told:
          return
      except OSError as error:  # what FastWARC raises on damage
        if source.error:
          raise
        if not told:
          yield RawPage(f'{path}@{after - 1}', 0, '', b'', _cause(error))
          told = True
      start = _next_record(file, after)


def _page(record: WarcRecord, max_bytes: int) -> RawPage:
  url = (record.headers.get('WARC-Target-URI') or '').strip('<>')  # as WARC 1.0 and wget write it
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
  """The names of what a body was packed by, in that order."""
  values = [*http.get_multiple('Content-Encoding'), *http.get_multiple('Transfer-Encoding')]
  return [
    name
    for value in values
    for part in value.split(',')
    if (name := part.strip().lower()) in DECODERS
  ]


def _decoded(body: bytes, codings: list[str], max_bytes: int) -> tuple[bytes, str]:
  """(what is in a body, fault). Archives often hold bodies unpacked under the headers of the packed
  ones.
  """
  if len(body) > max_bytes:
    return body, ''
  if len(codings) > _MOST_CODINGS:
    return body, f'{len(codings)} content codings, one over the other'
  for name in reversed(codings):
    try:
      body = DECODERS[name](body, max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
      if not _PLAIN.match(body):
        return body, f'damaged content coding {name}: {_cause(error)}'
  return body, ''


def _inflate(data: bytes, size: int, *formats: int) -> bytes:
  """The first `size` bytes of zlib data in the first of the formats that it has. Raises EOFError if
  it is cut off.
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
  return lambda data, size: reader(io.BytesIO(data)).read(size)


# Each takes a body and the most bytes to return.
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
  """Offset of the next place at or after `start` that looks like the start of a record, or None."""
  file.seek(start)
  data = b''  # of the file from `start` on; a new block keeps what may be the start of a record
  while block := file.read(_BLOCK):
    data += block
    if match := _RECORD_START.search(data):
      return start + match.start()
    start += max(len(data) - _LONGEST, 0)
    data = data[-_LONGEST:]
  return None
