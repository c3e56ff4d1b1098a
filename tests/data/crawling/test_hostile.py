"""A site that does its worst: the crawl records what it cannot use, goes on, and stays small."""

import asyncio
import collections
import gzip
import json
import subprocess
import sys
import time
import zlib

import brotli
import pytest
from sites import Site, links
from warcio.archiveiterator import ArchiveIterator

from data.crawling.bodies import zstd
from data.crawling.run import crawl
from data.crawling.warc import intact_length

MB = 1 << 20


def plain(body, kind='text/html', **headers):
  return (
    200,
    {'Content-Type': kind} | {name.replace('_', '-'): value for name, value in headers.items()},
    body,
  )


def encoded(coding, body):
  return plain(body, Content_Encoding=coding)


def cut_short(handler):
  handler.wfile.write(
    b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100\r\n\r\nhalf'
  )
  handler.wfile.flush()
  return Site.reset(handler)


def hostile(site, pass_time):
  """{path: (answer, cause of the fault or None where the page is stored)}.

  `pass_time` makes the time limit of a response pass.
  """
  ok = b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n'
  chunked = ok + b'Transfer-Encoding: chunked\r\n\r\n'
  page = links('after').encode()
  return {
    # Poison pages
    'mso': ('<![ if gte mso 9]><xml></xml><![endif]>' + links('from-mso'), None),
    'idn': (
      plain('<a href="http://m\xfcller.de">'.encode('latin-1') + links('from-idn').encode()),
      None,
    ),
    'base': ('<base href="http://[">' + links('from-base'), None),
    'links': (
      links(
        'a\x00b',
        'javascript:x()',
        'data:text/html,x',
        'http://[::',
        'x' * 400_000,
        '//',
        'http://h:99999',
      ),
      None,
    ),
    'escape': (
      plain(
        b'<a href="\\ud800">\\ud800' + links('from-escape').encode(),
        'text/html; charset=unicode_escape',
      ),
      None,
    ),
    'no-charset': (plain(b'\xff\xfe\xfa<a href=x' + page, 'text/html; charset=\xff, bogus'), None),
    'utf-16': (plain(links('from-utf-16').encode(), 'text/html; charset=utf-16'), None),
    'deep': ('<div>' * 100_000 + links('from-deep'), None),
    'zeros': (plain(b'\0' * MB), None),
    'no-type': (ok.replace(b'Content-Type: text/html\r\n', b'') + b'\r\n' + page, None),
    'latin-location': (
      b'HTTP/1.1 302 F\xfcnd\r\nLocation: /caf\xe9\r\nContent-Length: 0\r\n\r\n',
      None,
    ),
    'bad-location': ((302, {'Location': 'http://['}, ''), None),
    'status': (b'HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\nok', 'status 999'),
    # Codings
    'gzip': (encoded('gzip', gzip.compress(page)), None),
    'br': (encoded('br', brotli.compress(page)), None),
    'gzip-cut': (encoded('gzip', gzip.compress(page * 100)[:-20]), 'encoding'),
    'gzip-not': (encoded('gzip', page), 'encoding'),
    'gzip-crc': (encoded('gzip', gzip.compress(page)[:-8] + b'\0' * 8), 'encoding'),
    'rot13': (encoded('rot13', page), 'encoding'),
    'nested': (encoded('gzip, ' * 9, page), 'encoding'),
    # Sizes
    'large': (plain(b'x' * MB), None),
    'too-large': (plain(b'x' * (MB + 1)), 'too_large'),
    'claims': (plain(b'x', Content_Length='99999999999'), 'too_large'),
    'endless': (site.drip(ok + b'\r\n', b'x' * 65536, 0), 'too_large'),
    'endless-chunks': (site.drip(chunked, b'10000\r\n' + b'x' * 65536 + b'\r\n', 0), 'too_large'),
    # Headers
    'huge-header': (ok + b'X-A: ' + b'a' * 500_000 + b'\r\n\r\n', 'bad_http'),
    'many-headers': (
      ok + b''.join(b'X-%d: a\r\n' % i for i in range(50_000)) + b'\r\n',
      'bad_http',
    ),
    'endless-headers': (site.drip(ok, b'X-A: ' + b'a' * 900 + b'\r\n', 0), 'bad_http'),
    'no-http': (b'hello\r\n', 'bad_http'),
    'two-lengths': (ok + b'Content-Length: 1\r\nContent-Length: 2\r\n\r\nab', 'bad_http'),
    # Time: the limit is for the whole response
    'slow-headers': (site.drip(ok, b'X-A: a\r\n', started=pass_time), 'timeout'),
    'slow-body': (
      site.drip(ok + b'Content-Length: 100000\r\n\r\n', started=pass_time),
      'timeout',
    ),
    'slow-start': (site.drip(b''), 'bad_http'),
    'continue': (
      site.drip(b'', b'HTTP/1.1 100 Continue\r\n\r\n', started=pass_time),
      'timeout',
    ),
    # Connections
    'short': (ok + b'Content-Length: 100\r\n\r\nhalf', 'incomplete'),
    'chunk-cut': (chunked + b'4\r\nhalf\r\n', 'incomplete'),
    'bad-chunk': (chunked + b'zz\r\nhalf\r\n', 'bad_http'),
    'reset': (Site.reset, 'connection'),
    'reset-later': (cut_short, 'incomplete'),
    'loop': ((301, {'Location': '/loop'}, ''), None),
    'after': ('<p>still here', None),
  }


@pytest.mark.slow
def test_every_fault_is_on_record_and_the_crawl_goes_on(tmp_path, monkeypatch):
  limit, passed = 3600, []  # seconds; no page comes near the limit by being slow
  monkeypatch.setattr(
    asyncio.BaseEventLoop, 'time', lambda _: time.monotonic() + limit * len(passed)
  )
  with Site({}) as site:
    pages = hostile(site, pass_time=lambda: passed.append('a limit'))
    site.pages = {'/' + name: answer for name, (answer, _) in pages.items()} | {'/': links(*pages)}
    report = crawl(site.url, tmp_path, delay=0, retries=0, timeout=limit, max_bytes=MB)
  expected = {name: cause for name, (_, cause) in pages.items() if cause}
  assert {
    fault['url'].removeprefix(site.url): fault['cause'] for fault in report['errors']
  } == expected
  assert report['faults'] == collections.Counter(expected.values())
  assert all(0 < len(fault['error']) <= 200 for fault in report['errors'])
  kept = {}
  with open(tmp_path / 'crawl-00000.warc.gz', 'rb') as f:
    for record in ArchiveIterator(f):
      if record.rec_type == 'response':
        url = record.rec_headers.get_header('WARC-Target-URI')
        kept[url.removeprefix(site.url)] = record.content_stream().read()
  assert {name for name in pages if name not in expected} <= set(kept)
  assert kept['gzip'] == kept['br'] == links('after').encode() and len(kept['large']) == MB
  assert 'caf%E9' in kept
  for name in ('mso', 'idn', 'base', 'escape', 'utf-16', 'deep'):
    assert f'from-{name}' in kept  # 404, but its link was found
  assert (
    intact_length(tmp_path / 'crawl-00000.warc.gz')
    == (tmp_path / 'crawl-00000.warc.gz').stat().st_size
  )


def test_poison_is_no_worse_on_the_second_day(tmp_path):
  with Site({}) as site:
    pages = {name: answer for name, (answer, cause) in hostile(site, None).items() if cause is None}
    site.pages = {'/' + name: answer for name, answer in pages.items()} | {'/': links(*pages)}
    first = crawl(site.url, tmp_path, delay=0, retries=0)
    (tmp_path / 'report.json').unlink()
    asked = len(site.hits)
    second = crawl(site.url, tmp_path, delay=0, retries=0)
  assert [path for path, _ in site.hits[asked:]] == ['/robots.txt']
  assert first | {'seconds': 0} == second | {'seconds': 0}


def bomb(coding, megabytes=300):
  """A body that grows to so many MB."""
  zeros = b'\0' * MB
  if coding == 'br':
    stream = brotli.Compressor(quality=1)
    return b''.join(stream.process(zeros) for _ in range(megabytes)) + stream.finish()
  stream = (
    zstd.ZstdCompressor()
    if coding == 'zstd'
    else zlib.compressobj(1, wbits=31 if coding == 'gzip' else 15)
  )
  return b''.join(stream.compress(zeros) for _ in range(megabytes)) + stream.flush()


# Peak memory of this program alone: what wait4 tells would include the pages of whoever started it.
CRAWL_AND_MEASURE = """
from data import crawl
crawl.main()
print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])
"""


@pytest.mark.slow
def test_bombs_stay_under_500_mb(tmp_path):
  many = ''.join(f'<a href=/n/{i}>' for i in range(500_000))  # 9 MB
  bombs = {coding: encoded(coding, bomb(coding)) for coding in ('gzip', 'br', 'zstd', 'deflate')}
  bombs['gzip,gzip'] = encoded('gzip, gzip', gzip.compress(bomb('gzip')))
  with Site({}) as site:
    site.pages = {'/' + name: answer for name, answer in bombs.items()} | {
      '/': links(*bombs, 'endless', 'headers', 'many', 'deep'),
      '/robots.txt': encoded('gzip', bomb('gzip')),
      '/endless': site.drip(b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n', b'x' * 65536, 0),
      '/headers': site.drip(b'HTTP/1.1 200 OK\r\n', b'X-A: a\r\n' * 8000, 0),
      '/many': many,
      '/deep': '<div>' * 1_900_000,
    }
    flags = [site.url, f'--out={tmp_path}', '--delay=0', '--retries=0', '--max-pages=20']
    process = subprocess.run(
      [sys.executable, '-c', CRAWL_AND_MEASURE, *flags], stdout=subprocess.PIPE, text=True
    )
  assert process.returncode == 0
  report = json.loads((tmp_path / 'report.json').read_text())
  assert report['faults'] == {'too_large': 6, 'bad_http': 1}
  assert {fault['url'].removeprefix(site.url) for fault in report['errors']} == {
    *bombs,
    'endless',
    'headers',
  }
  assert int(process.stdout.split()[-1]) < 500 * 1024
