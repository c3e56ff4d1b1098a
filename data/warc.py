"""WARC files of a crawl: what a stored response says, and an archive that can be appended to after a kill -9."""

import contextlib
import html.parser
import io
import os
import pathlib
import urllib.parse
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from warcio.archiveiterator import ArchiveIterator
from warcio.recordloader import ArcWarcRecord
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from lm import files
from lm.errors import UserError

SOFTWARE = 'deepdive-crawl/0.1'


class Page(NamedTuple):
  """What the walk needs to know of a stored response. `links` are keys (path?query) on the page's own site."""

  key: str
  status: int
  size: int
  links: tuple[str, ...]
  off_site: int


class Response(NamedTuple):
  status: int
  reason: str
  headers: list[tuple[str, str]]
  body: bytes
  truncated: str  # '' when whole, else the value of WARC-Truncated

  def header(self, name: str) -> str:
    return next((value for key, value in self.headers if key.lower() == name), '')


def _without_dots(path: str) -> str:
  """Resolves the segments '.' and '..' of an absolute path (RFC 3986, 5.2.4)."""
  parts: list[str] = []
  segments = path.split('/')
  for segment in segments:
    if segment == '..':
      del parts[max(1, len(parts) - 1) :]
    elif segment != '.':
      parts.append(segment)
  return '/'.join(parts) + ('/' if segments[-1] in ('.', '..') else '')


def normalise(url: str, base: str = '') -> str:
  """An absolute http(s) URL in one spelling: host lower case, no default port, no fragment, unsafe characters escaped.

  Raises UserError naming the URL when it is not one that can be crawled.
  """
  try:
    parts = urllib.parse.urlsplit(urllib.parse.urljoin(base or url, url.strip()))
    scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
  except ValueError as error:
    raise UserError(f'bad URL {url!r}: {error}') from None
  if scheme not in ('http', 'https') or not host:
    raise UserError(f'bad URL {url!r}: needs http://HOST/... or https://HOST/...')
  host = f'[{host}]' if ':' in host else host.encode('idna').decode() if not host.isascii() else host
  if port and port != {'http': 80, 'https': 443}[scheme]:
    host = f'{host}:{port}'
  path = urllib.parse.quote(_without_dots(parts.path or '/'), safe="/%:=&~+!$,;'@()*")
  query = urllib.parse.quote(parts.query, safe="/%:=&~+!$,;'@()*?[]|")
  return urllib.parse.urlunsplit((scheme, host, path, query, ''))


def split_site(url: str) -> tuple[str, str]:
  """A normalised URL as (site, key): 'http://host:port' and '/path?query'."""
  parts = urllib.parse.urlsplit(url)
  site = f'{parts.scheme}://{parts.netloc}'
  return site, url[len(site) :]


class _Links(html.parser.HTMLParser):
  """Collects the targets of links that do not say nofollow."""

  def __init__(self, base: str):
    super().__init__()
    self.base, self.targets = base, {}  # a dict keeps the order

  def handle_starttag(self, tag, attrs):
    attributes = dict(attrs)
    target = attributes.get('src' if tag in ('frame', 'iframe') else 'href')
    if not target or tag not in ('a', 'area', 'base', 'frame', 'iframe'):
      return
    if tag == 'base':
      self.base = urllib.parse.urljoin(self.base, target)
    elif 'nofollow' not in (attributes.get('rel') or ''):
      self.targets[target.partition('#')[0]] = None


def read_page(record: ArcWarcRecord) -> Page:
  """Reads the status, size and links of a WARC response record."""
  url = normalise(record.rec_headers.get_header('WARC-Target-URI'))
  site, key = split_site(url)
  status = int(record.http_headers.get_statuscode())
  body = record.content_stream().read()
  targets, base = [], url
  if 300 <= status < 400:
    targets = [record.http_headers.get_header('Location') or '']
  elif status == 200 and 'html' in (record.http_headers.get_header('Content-Type') or ''):
    parser = _Links(url)
    parser.feed(body.decode('utf-8', 'replace'))  # links are ASCII in every charset the web uses
    targets, base = parser.targets, parser.base
  links, off_site = {}, 0
  for target in targets:
    with contextlib.suppress(UserError):  # mailto:, javascript:, broken ones: not ours to follow
      link_site, link = split_site(normalise(target, base))
      if link_site == site:
        links[link] = None
      else:
        off_site += 1
  return Page(key, status, len(body), tuple(links), off_site)


def pages_in(stream: BinaryIO) -> Iterator[tuple[str, Page]]:
  """Yields (site, page) for each response record of a WARC stream."""
  for record in ArchiveIterator(stream):
    if record.rec_type == 'response':
      yield split_site(normalise(record.rec_headers.get_header('WARC-Target-URI')))[0], read_page(record)


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


class Archive:
  """The WARC files of one crawl folder: pages already stored, and a place to append to."""

  def __init__(self, out: pathlib.Path, file_bytes: int):
    self.out, self.file_bytes, self.pages, self.sites = out, file_bytes, {}, set()
    paths = sorted(out.glob('crawl-*.warc.gz'))
    for path in paths:
      os.truncate(path, intact_length(path))
      with open(path, 'rb') as f:
        for site, page in pages_in(f):
          self.pages[page.key] = page
          self.sites.add(site)
    self.count = max(len(paths), 1)
    self.file = open(self._path(), 'ab')  # noqa: SIM115  closed by close()

  def _path(self) -> pathlib.Path:
    return self.out / f'crawl-{self.count - 1:05d}.warc.gz'

  def store(self, url: str, request: list[tuple[str, str]], response: Response) -> Page:
    """Appends a response and its request, each its own gzip member, in one write. Returns the page read back."""
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=True)
    if self.file.tell() > self.file_bytes:
      self.file.close()
      self.count += 1
      self.file = open(self._path(), 'ab')  # noqa: SIM115
    if not self.file.tell():
      info = {'software': SOFTWARE, 'format': 'WARC File Format 1.0', 'isPartOf': self.out.name}
      writer.write_record(writer.create_warcinfo_record(self._path().name, info))
    start = buffer.tell()
    site, key = split_site(url)
    status = StatusAndHeaders(f'{response.status} {response.reason}', response.headers, protocol='HTTP/1.1')
    extra = {'WARC-Truncated': response.truncated} if response.truncated else {}
    answer = writer.create_warc_record(
      url, 'response', io.BytesIO(response.body), http_headers=status, warc_headers_dict=extra
    )
    asked = [('Host', site.partition('//')[2]), *request]
    query = StatusAndHeaders(f'GET {key} HTTP/1.1', asked, is_http_request=True)
    writer.write_request_response_pair(writer.create_warc_record(url, 'request', http_headers=query), answer)
    self.file.write(buffer.getvalue())
    self.file.flush()
    buffer.seek(start)
    return next(pages_in(buffer))[1]

  def close(self) -> None:
    os.fsync(self.file.fileno())
    self.file.close()
