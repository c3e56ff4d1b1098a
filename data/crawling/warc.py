"""Appends pages to the WARC files of a crawl, and reads them back after a kill at any moment."""

import http
import io
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.http import Headers, Response
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data.crawling import urls
from data.crawling.download import text
from lm.base import files

SOFTWARE = 'deepdive-crawl/0.1'
# Headers about how a body was sent. It is stored decoded, so they are renamed as in Common Crawl.
_TRANSFER = ('content-encoding', 'content-length', 'transfer-encoding')


class Place(NamedTuple):
  """Where a record begins."""

  path: pathlib.Path
  offset: int


def intact_length(path: files.Path) -> int:
  """Bytes of the file up to the end of its last whole gzip member (its checksum included)."""
  good = position = 0
  member = zlib.decompressobj(wbits=31)
  with open(path, 'rb') as f:
    while chunk := f.read(1 << 20):
      while chunk:
        try:
          member.decompress(chunk)
        except zlib.error:
          return good
        position += len(chunk) - len(member.unused_data)
        chunk = member.unused_data
        if member.eof:
          good, member = position, zlib.decompressobj(wbits=31)
  return good


def _response_headers(headers: Headers, size: int) -> list[tuple[str, str]]:
  result = []
  for name, values in headers.items():
    prefix = 'X-Crawl-' if text(name).lower() in _TRANSFER else ''
    result += [(prefix + text(name), text(value)) for value in values]
  return [*result, ('Content-Length', str(size))]


def _reason(status: int) -> str:
  return (
    http.HTTPStatus(status).phrase if status in http.HTTPStatus._value2member_map_ else 'Unknown'
  )


class Archive:
  """The WARC files of one crawl folder: pages already stored, and a place to append to.

  Attributes:
    places: where each stored page is, by `urls.page_id`.
    hosts: hosts of the stored pages.
  """

  def __init__(self, out: pathlib.Path, file_bytes: int):
    self.out, self.file_bytes = out, file_bytes
    self.places: dict[str, Place] = {}
    self.hosts: set[str] = set()
    paths = sorted(out.glob('crawl-*.warc.gz'))
    for path in paths:
      os.truncate(path, intact_length(path))
      self._index(path)
    self.count = max(len(paths), 1)
    self.file = open(self._path(), 'ab')  # noqa: SIM115  closed by close()

  def _index(self, path: pathlib.Path) -> None:
    with open(path, 'rb') as f:
      records = ArchiveIterator(f)
      for record in records:
        if record.rec_type == 'response':
          url = record.rec_headers.get_header('WARC-Target-URI')
          self.places[urls.page_id(url)] = Place(path, records.get_record_offset())
          self.hosts.add(urls.host(url))

  def _path(self) -> pathlib.Path:
    return self.out / f'crawl-{self.count - 1:05d}.warc.gz'

  def read(self, url: str, most_bytes: int) -> Response | None:
    """Returns the stored page of a URL, flagged 'stored', or None; of its body `most_bytes`."""
    place = self.places.get(urls.page_id(url))
    if place is None:
      return None
    with open(place.path, 'rb') as f:
      f.seek(place.offset)
      record = next(ArchiveIterator(f))
      headers = Headers()
      for name, value in record.http_headers.headers:
        headers.appendlist(name, value)
      body = record.content_stream().read(most_bytes)
      return Response(
        url, int(record.http_headers.get_statuscode()), headers, body, flags=['stored']
      )

  def store(self, response: Response, truncated: str = '') -> None:
    """Appends a response and its request, each its own gzip member, in one write.

    Args:
      response: with a decoded body.
      truncated: value of WARC-Truncated; '' for a whole body.

    Raises:
      OSError: the disk is full. The file then ends in a torn record: nothing more may be stored.
    """
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=True)
    if self.file.tell() > self.file_bytes:
      self.close()
      self.count += 1
      self.file = open(self._path(), 'ab')  # noqa: SIM115
    if not self.file.tell():
      info = {'software': SOFTWARE, 'format': 'WARC File Format 1.0', 'isPartOf': self.out.name}
      writer.write_record(writer.create_warcinfo_record(self._path().name, info))
    writer.write_request_response_pair(
      *_records(writer, response, {'WARC-Truncated': truncated} if truncated else {})
    )
    self.file.write(buffer.getvalue())
    self.file.flush()

  def close(self) -> None:
    os.fsync(self.file.fileno())
    self.file.close()


def _records(writer: WARCWriter, response: Response, extra: Mapping[str, str]):
  """Returns the request and the response record of a page."""
  url = response.url
  site, key = urls.split_site(url)
  status = StatusAndHeaders(
    f'{response.status} {_reason(response.status)}',
    _response_headers(response.headers, len(response.body)),
    protocol=response.protocol or 'HTTP/1.1',
  )  # fmt: skip
  sent = [
    (text(name), text(value))
    for name, values in response.request.headers.items()
    for value in values
  ]
  asked = StatusAndHeaders(
    f'GET {key} HTTP/1.1', [('Host', site.partition('//')[2]), *sent], is_http_request=True
  )
  body = io.BytesIO(response.body)
  answer = writer.create_warc_record(
    url, 'response', body, http_headers=status, warc_headers_dict=dict(extra)
  )
  return writer.create_warc_record(url, 'request', http_headers=asked), answer


class StoredPages:
  """Downloader middleware that answers from the archive what an earlier run has stored."""

  def __init__(self, crawler: Crawler):
    self.crawler = crawler

  @classmethod
  def from_crawler(cls, crawler: Crawler) -> 'StoredPages':
    return cls(crawler)

  def process_request(self, request: Request) -> Response | None:
    if 'cut' in request.meta:  # robots.txt is read anew
      return None
    return self.crawler.spider.archive.read(
      request.url, self.crawler.settings.getint('DOWNLOAD_MAXSIZE')
    )
