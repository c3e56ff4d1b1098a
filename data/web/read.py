"""Reads pages from WARC files that may be cut off, corrupt, chunked, compressed or full of other things."""

import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import fsspec
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecord

from data.web import inputs
from lm import files
from lm.errors import UserError

# What warcio raises on damaged files; AttributeError is its answer to a record without WARC-Target-URI.
FAULTS = (ArchiveLoadFailed, zlib.error, EOFError, ValueError, AttributeError)
_BLOCK = 1 << 20
_LONGEST = 6  # bytes of a start but one
_RECORD_START = re.compile(rb'\x1f\x8b\x08|WARC/1\.')


class RawPage(NamedTuple):
  """A response as stored. `fault` says why it cannot be read; it is '' for a sound record."""

  url: str
  status: int
  content_type: str
  body: bytes
  fault: str = ''


def warc_files(spec: files.Path) -> list[tuple[str, int]]:
  """(path, bytes) of the WARC files of a folder (`*.warc`, `*.warc.gz`) or a glob, sorted; any path that fsspec knows.

  Raises UserError when there is none.
  """
  system, path = inputs.filesystem(spec)
  patterns = [f'{path}/*.warc', f'{path}/*.warc.gz'] if system.isdir(path) else [path]
  found = sorted(file for pattern in patterns for file in inputs.names(system, pattern))
  if not found:
    raise UserError(f'no WARC file: {spec} (give a folder with *.warc.gz in it, or a glob)')
  return found


def read_pages(path: files.Path) -> Iterator[RawPage]:
  """Yields every response of a WARC file. After damage it goes on at the next place where a record begins."""
  start = 0
  while start is not None:
    with fsspec.open(str(path), 'rb') as f:
      f.seek(start)
      done = start  # where the last sound record ended
      try:
        records = ArchiveIterator(f)
        for record in records:
          page = _page(record) if record.rec_type == 'response' else None
          done = start + records.get_record_offset() + records.get_record_length()
          if page:
            yield page
        return
      except FAULTS as error:
        yield RawPage(f'{path}@{max(start, done)}', 0, '', b'', ' '.join(str(error).split())[:200] or repr(error))
      start = _next_record(f, max(start, done) + 1)  # never back, whatever a damaged record says of itself


def _page(record: ArcWarcRecord) -> RawPage:
  body = record.content_stream().read()
  missing = getattr(record.raw_stream, 'limit', 0)
  http = record.http_headers
  fault = f'{missing} bytes of the record are missing' if missing else '' if http else 'no HTTP headers'
  code = http.get_statuscode() if http else ''
  kind = http.get_header('Content-Type') or '' if http else ''
  return RawPage(
    record.rec_headers.get_header('WARC-Target-URI') or '', int(code) if code.isdigit() else 0, kind, body, fault
  )


def _next_record(f: BinaryIO, start: int) -> int | None:
  """Offset of the next record at or after `start` that warcio can begin to read, or None."""
  f.seek(start)
  data = b''  # of the file from `start` on; a new block keeps what may be the start of a record
  while block := f.read(_BLOCK):
    data += block
    for match in _RECORD_START.finditer(data):
      f.seek(start + match.start())
      head = f.read(4096)
      try:
        head = zlib.decompressobj(wbits=31).decompress(head) if head[0] == 0x1F else head
      except zlib.error:
        continue
      if head.startswith(b'WARC/'):
        return start + match.start()
    start += max(len(data) - _LONGEST, 0)
    data = data[-_LONGEST:]
    f.seek(start + len(data))
  return None
