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
# These headers describe how a body was sent. The body is stored decoded, so Archive renames them as
# Common Crawl does.
_TRANSFER = ('content-encoding', 'content-length', 'transfer-encoding')


class Place(NamedTuple):
  """The position of a record: its file, and its offset in bytes."""

  path: pathlib.Path
  offset: int


def intact_length(path: files.Path) -> int:
  """Returns the number of bytes up to the end of the file's last complete gzip member.

  A member is complete if its checksum is present and correct.
  """
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
  known = status in http.HTTPStatus._value2member_map_
  return http.HTTPStatus(status).phrase if known else 'Unknown'


class Archive:
  """The WARC files of one crawl folder, which can be read and appended to.

  Attributes:
    places: the position of each stored page, by `urls.page_id`.
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
    """Returns the stored page of a URL, flagged 'stored', or None.

    At most `most_bytes` of its body are read.
    """
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
    """Appends a response and its request, each as one gzip member, in one write.

    Args:
      response: a response with a decoded body.
      truncated: value of WARC-Truncated; '' for a complete body.

    Raises:
      OSError: the disk is full. The file then ends in a torn record, and nothing more may be
        stored.
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
    """Flushes the current file to disk and closes it."""
    os.fsync(self.file.fileno())
    self.file.close()


def _records(writer: WARCWriter, response: Response, extra: Mapping[str, str]):
  """Returns the request record and the response record of a page."""
  url = response.url
  site, key = urls.split_site(url)
  status = StatusAndHeaders(
    f'{response.status} {_reason(response.status)}',
    _response_headers(response.headers, len(response.body)),
    protocol=response.protocol or 'HTTP/1.1',
  )
  sent = [('Host', site.partition('//')[2])]
  for name, values in response.request.headers.items():
    sent += [(text(name), text(value)) for value in values]
  asked = StatusAndHeaders(f'GET {key} HTTP/1.1', sent, is_http_request=True)
  body = io.BytesIO(response.body)
  answer = writer.create_warc_record(
    url, 'response', body, http_headers=status, warc_headers_dict=dict(extra)
  )
  return writer.create_warc_record(url, 'request', http_headers=asked), answer


class StoredPages:
  """Downloader middleware that answers from the archive for pages that an earlier run stored."""

  def __init__(self, crawler: Crawler):
    self.crawler = crawler

  @classmethod
  def from_crawler(cls, crawler: Crawler) -> 'StoredPages':
    return cls(crawler)

  def process_request(self, request: Request) -> Response | None:
    if 'cut' in request.meta:  # robots.txt is never answered from the archive
      return None
    return self.crawler.spider.archive.read(
      request.url, self.crawler.settings.getint('DOWNLOAD_MAXSIZE')
    )
