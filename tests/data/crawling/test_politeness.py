"""robots.txt by RFC 9309, and the pauses that hosts ask for."""

import asyncio
import gzip
import types
from unittest import mock

import pytest
from refusals import refused
from scrapy.core.downloader import Slot
from scrapy.exceptions import DownloadTimeoutError
from scrapy.extensions.throttle import AutoThrottle
from scrapy.http import Response
from scrapy.signalmanager import SignalManager
from sites import Site, links

from data.crawling.politeness import Robots, retry_after
from data.crawling.run import crawl

AGENT = 'deepdive-crawl/0.1'


class Crawler:
  """A crawler of Scrapy's that answers from {URL: (status, headers, body) or an exception}."""

  def __init__(self, answers, delay=0.5):
    self.answers, self.asked = answers, []
    self.slot = Slot(1, delay)
    self.throttle = types.SimpleNamespace(mindelay=delay)
    self.signals = SignalManager(self)
    downloader = types.SimpleNamespace(slots={'h': self.slot}, per_slot_settings={})
    self.engine = types.SimpleNamespace(download_async=self.download, downloader=downloader)

  def get_extension(self, kind):
    return self.throttle if kind is AutoThrottle else None

  async def download(self, request):
    self.asked.append(request.url)
    answer = self.answers[request.url]
    if isinstance(answer, Exception):
      raise answer
    status, headers, body = answer
    return Response(request.url, status, headers, body)


def allowed(body, *paths, status=200):
  """Whether each path of http://h may be fetched."""
  robots = Robots(Crawler({'http://h/robots.txt': (status, {}, body)}), AGENT)

  async def ask():
    return [await robots.allowed('http://h' + path) for path in paths]

  return asyncio.run(ask())


@pytest.mark.parametrize(
  ('body', 'path', 'expected'),
  [
    (b'User-agent: *\nDisallow: /*.pdf$', '/a.pdf', False),
    (b'User-agent: *\nDisallow: /*.pdf$', '/a.pdf?x', True),
    (b'User-agent: *\nDisallow: /*?sort=', '/list?sort=up', False),
    (b'User-agent: *\nDisallow: /*?sort=', '/list?page=2', True),
    (b'User-agent: *\nAllow: /\nDisallow: /private', '/private/x', False),
    (b'User-agent: *\nAllow: /\nDisallow: /private', '/public', True),
    (b'User-agent: *\n\nDisallow: /private', '/private', False),
    (b'\xef\xbb\xbfUser-agent: *\nDisallow: /private', '/private', False),
    (b'User-agent: *\rDisallow: /private\r', '/private', False),
    (b'User-agent: *\r\nDisallow: /private # a comment', '/private', False),
    (b'USER-AGENT: DeepDive-Crawl\nDisallow: /\n\nUser-agent: *\nAllow: /', '/', False),
    (b'User-agent: other\nDisallow: /', '/', True),
    (b'User-agent: other\nUser-agent: deepdive-crawl\nDisallow: /', '/', False),
    (b'User-agent: *\nDisallow: /a%2fb', '/a%2Fb', False),
    (b'User-agent: *\nDisallow:', '/', True),
    (b'Disallow: /', '/', True),
    (b'\xff\xfe\x00 not text \x00\nUser-agent: *\nDisallow: /private', '/private', False),
    (b'<html>not found</html>', '/', True),
    (b'User-agent: *\nDisallow: /' + b'*a' * 5000 + b'b', '/' + 'a' * 2000, True),
  ],
)
def test_rules_that_others_misread(body, path, expected):
  assert allowed(body, path) == [expected]


@pytest.mark.parametrize(
  ('status', 'expected'),
  [
    (404, True),
    (401, True),
    (403, True),
    (410, True),
    (429, False),
    (500, False),
    (503, False),
    (599, False),
    (999, False),
  ],
)
def test_a_missing_file_allows_all_and_one_that_cannot_be_had_forbids_all(status, expected):
  assert allowed(b'User-agent: *\nDisallow: /', '/', status=status) == [expected]


def read(answers, site='http://h', delay=0.5):
  crawler = Crawler(answers, delay)
  return asyncio.run(Robots(crawler, AGENT).read(site)), crawler


def test_redirects_are_followed_to_other_hosts_and_a_chain_of_them_counts_as_missing():
  rules = (200, {}, b'User-agent: *\nDisallow: /private')
  away = {'http://h/robots.txt': (301, {'Location': 'https://o:8/r'}, b''), 'https://o:8/r': rules}
  assert not read(away)[0].protego.can_fetch('http://h/private', AGENT)
  chain = {f'http://h/{i}': (302, {'Location': f'/{i + 1}'}, b'') for i in range(1, 9)}
  found, crawler = read(
    chain | {'http://h/robots.txt': (302, {'Location': '/1'}, b''), 'http://h/5': rules}
  )
  assert not found.protego.can_fetch('http://h/private', AGENT) and len(crawler.asked) == 6
  found, crawler = read(chain | {'http://h/robots.txt': (302, {'Location': '/1'}, b'')})
  assert (
    found.protego.can_fetch('http://h/private', AGENT)
    and not found.closed
    and len(crawler.asked) == 6
  )
  for nowhere in ('', 'http://[', 'mailto:x'):
    assert not read({'http://h/robots.txt': (302, {'Location': nowhere}, b'')})[0].closed
  dead_end = {
    'http://h/robots.txt': (301, {'Location': 'http://o/'}, b''),
    'http://o/': DownloadTimeoutError('late'),
  }
  closed = read(dead_end)[0].closed
  assert (closed.field, closed.value) == ('http://h', 'late')


@pytest.mark.parametrize(
  ('delay', 'asked', 'expected'),
  [(0.5, '2', 2), (3, '2', 3), (0, '0.1', 0.1), (0.5, 'nan', 0.5), (0.5, '-1', 0.5)],
)
def test_crawl_delay_slows_the_host_down_for_good(delay, asked, expected):
  found, crawler = read(
    {'http://h/robots.txt': (200, {}, f'User-agent: *\nCrawl-delay: {asked}'.encode())}, delay=delay
  )
  assert crawler.slot.delay == crawler.throttle.mindelay == expected and not found.closed
  later = crawler.engine.downloader.per_slot_settings.get('h', {'delay': delay})
  assert later['delay'] == expected


def test_a_host_that_asks_for_days_between_pages_is_left_alone():
  found, _ = read({'http://h/robots.txt': (200, {}, b'User-agent: *\nCrawl-delay: 86400')})
  assert (found.closed.field, found.closed.value) == ('Crawl-delay of http://h/robots.txt', 86400)


@pytest.mark.parametrize(
  ('value', 'expected'),
  [
    ('7', 7), (' 120 ', 120), ('', 0),
    ('Thu, 01 Jan 1970 00:01:40 GMT', 90), ('Thu, 01 Jan 1970 00:00:05 GMT', 0),
    ('soon', 0), ('-5', 0), ('\u0663', 0), ('9' * 400, 1e20), ('Thu, 99 Foo 1970', 0),
  ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(value, expected):
  assert retry_after(value, now=10.0) == expected


# ---- Over HTTP

RULES = (
  b'\xef\xbb\xbf# rules\r\nUser-agent: *\r\n\r\n'
  b'Allow: /\r\nDisallow: /*.pdf$\r\nDisallow: /*?sort=\r\n'
)
PAGES = {'/': links('a.pdf', 'b?sort=up', 'b'), '/b': 'x'}


def robots_gzip(site):
  return 200, {'Content-Encoding': 'gzip', 'Content-Type': 'text/plain'}, gzip.compress(RULES)


def robots_long(site):
  return 200, {'Content-Type': 'application/octet-stream'}, RULES + b'# ' + b'x' * 2_000_000


def robots_bomb(site):
  return 200, {'Content-Encoding': 'gzip'}, gzip.compress(RULES + b' ' * 20_000_000, 1)


def robots_endless(site):
  return site.drip(b'HTTP/1.1 200 OK\r\n\r\n' + RULES, b'#' * 65536, seconds=0)


@pytest.mark.parametrize('robots', [robots_gzip, robots_long, robots_bomb, robots_endless])
def test_robots_txt_is_obeyed_however_it_is_sent(tmp_path, robots):
  with Site(dict(PAGES)) as site:
    site.pages['/robots.txt'] = robots(site)
    report = crawl(site.url, tmp_path, delay=0)
  assert site.paths == ['/', '/b'] and report['skipped_by_robots'] == 2


def test_a_robots_txt_that_moved_to_another_host_is_obeyed(tmp_path):
  with Site({'/rules': (200, {}, RULES)}) as other, Site(dict(PAGES)) as site:
    site.pages['/robots.txt'] = (301, {'Location': f'{other.url}rules'}, '')
    crawl(site.url, tmp_path, delay=0)
  assert site.paths == ['/', '/b']


@pytest.mark.parametrize(
  ('answer', 'field', 'value'),
  [
    ((503, {}, ''), 'status of {}/robots.txt', 503),
    ((200, {'Content-Encoding': 'rot13'}, 'User-agent: *'), '{}', mock.ANY),
    (b'no HTTP', '{}', mock.ANY),
  ],
)
def test_no_page_is_fetched_while_robots_txt_cannot_be_read(tmp_path, answer, field, value):
  with (
    Site(PAGES | {'/robots.txt': answer}) as site,
    refused(field.format(site.url.rstrip('/')), value),
  ):
    crawl(site.url, tmp_path, delay=0, retries=0)
  assert site.paths == []
