"""Reads pages from WARC files that may be cut off, corrupt, chunked, compressed or full of other things."""

import glob
import mmap
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecord

from lm.errors import UserError

# What warcio raises on damaged files; AttributeError is its answer to a record without WARC-Target-URI.
FAULTS = (ArchiveLoadFailed, zlib.error, EOFError, ValueError, AttributeError)
_RECORD_START = re.compile(rb'\x1f\x8b\x08|WARC/1\.')


class RawPage(NamedTuple):
  """A response as stored. `fault` says why it cannot be read; it is '' for a sound record."""

  url: str
  status: int
  content_type: str
  body: bytes
  fault: str = ''


def warc_files(spec: str | pathlib.Path) -> list[pathlib.Path]:
  """The WARC files of a folder (`*.warc`, `*.warc.gz`) or a glob, sorted. Raises UserError when there is none."""
  folder = pathlib.Path(spec)
  patterns = [folder / '*.warc', folder / '*.warc.gz'] if folder.is_dir() else [folder]
  found = sorted(pathlib.Path(name) for pattern in patterns for name in glob.glob(str(pattern)))
  if not found:
    raise UserError(f'no WARC file: {spec} (give a folder with *.warc.gz in it, or a glob)')
  return found


def read_pages(path: pathlib.Path) -> Iterator[RawPage]:
  """Yields every response of a WARC file. After damage it goes on at the next place where a record begins."""
  start = 0
  while start is not None:
    with open(path, 'rb') as f:
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
    start = _next_record(path, max(start, done) + 1)  # never back, whatever a damaged record says of itself


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


def _next_record(path: pathlib.Path, start: int) -> int | None:
  """Offset of the next record at or after `start` that warcio can begin to read, or None."""
  if start >= path.stat().st_size:
    return None
  with open(path, 'rb') as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
    for match in _RECORD_START.finditer(data, start):
      try:
        head = data[match.start() : match.start() + 4096]
        head = zlib.decompressobj(wbits=31).decompress(head) if head[0] == 0x1F else head
      except zlib.error:
        continue
      if head.startswith(b'WARC/'):
        return match.start()
  return None
