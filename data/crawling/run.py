"""Runs one crawl from its first page, or from where it was interrupted, to its report."""

import asyncio
import collections
import contextlib
import logging
import pathlib
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from scrapy.crawler import AsyncCrawlerRunner, Crawler

from data.crawling import urls
from data.crawling.politeness import LONGEST_WAIT
from data.crawling.spider import SiteSpider, Walk
from data.crawling.warc import SOFTWARE, Archive
from lm.base import files
from lm.base import progress as progress_lib
from lm.base.errors import UserError

USER_AGENT = SOFTWARE
logging.getLogger('scrapy').setLevel(logging.ERROR)  # the report contains what it would warn of


class Stopped(Exception):
  """A signal ended the crawl. Everything fetched is stored, and the same call continues."""

  def __init__(self, signum: int):
    super().__init__(signal.Signals(signum).name)
    self.signum = signum


def _settings(*, delay: float, retries: int, timeout: float, max_bytes: int, agent: str) -> dict:
  """Returns Scrapy's settings: one request at a time, so that each crawl is the same."""
  return {
    # aiohttp runs in asyncio's own loop. A Twisted reactor cannot be started twice in a process,
    # and Twisted's HTTP client does not bound the headers of a response.
    'TWISTED_REACTOR_ENABLED': False,
    'DOWNLOAD_HANDLERS': {
      **dict.fromkeys(('data', 'file', 'ftp', 's3')),
      **dict.fromkeys(('http', 'https'), 'data.crawling.download.DownloadHandler'),
    },
    # These settings omit the telnet console, remote control, cookies and environment proxies.
    'EXTENSIONS_BASE': {'scrapy.extensions.throttle.AutoThrottle': 0},
    'SPIDER_MIDDLEWARES_BASE': {},
    'DOWNLOADER_MIDDLEWARES_BASE': {
      'data.crawling.warc.StoredPages': 100,
      'scrapy.downloadermiddlewares.downloadtimeout.DownloadTimeoutMiddleware': 350,
      'scrapy.downloadermiddlewares.defaultheaders.DefaultHeadersMiddleware': 400,
      'scrapy.downloadermiddlewares.useragent.UserAgentMiddleware': 500,
      'data.crawling.politeness.PatientRetry': 550,
    },
    'CONCURRENT_REQUESTS': 1,
    'CONCURRENT_REQUESTS_PER_DOMAIN': 1,
    'SCHEDULER_MEMORY_QUEUE': 'scrapy.squeues.FifoMemoryQueue',  # breadth first
    'AUTOTHROTTLE_ENABLED': delay > 0,
    'AUTOTHROTTLE_TARGET_CONCURRENCY': 0.5,  # pause as long as the host took to answer
    'AUTOTHROTTLE_START_DELAY': delay,
    'AUTOTHROTTLE_MAX_DELAY': max(delay, LONGEST_WAIT),
    'DOWNLOAD_DELAY': delay,
    'DOWNLOAD_DELAY_JITTER': 0.0,
    'DOWNLOAD_TIMEOUT': timeout,
    'DOWNLOAD_MAXSIZE': max_bytes,
    'DOWNLOAD_WARNSIZE': 0,
    'DOWNLOAD_VERIFY_CERTIFICATES': True,
    'RETRY_TIMES': retries,
    'RETRY_HTTP_CODES': [429, 500, 502, 503, 504],
    'RETRY_EXCEPTIONS': [
      'scrapy.exceptions.CannotResolveHostError',
      'scrapy.exceptions.DownloadConnectionRefusedError',
      'scrapy.exceptions.DownloadFailedError',
      'scrapy.exceptions.DownloadTimeoutError',
      'scrapy.exceptions.ResponseDataLossError',
    ],
    'RETRY_PRIORITY_ADJUST': 1,
    'RETRY_GIVE_UP_LOG_LEVEL': 'DEBUG',
    'USER_AGENT': agent,
    'DEFAULT_REQUEST_HEADERS': {
      'Accept': 'text/html, */*;q=0.5',
      'Accept-Encoding': 'gzip, deflate, br, zstd',
    },
  }


@contextlib.contextmanager
def _signals(crawler: Crawler) -> Iterator[None]:
  """Makes SIGTERM and Ctrl-C end the walk instead of the process, in the main thread."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  loop, before = asyncio.get_running_loop(), {}

  def stop(signum: int) -> None:
    if crawler.spider:
      crawler.spider.stop(Stopped(signum))

  for signum in (signal.SIGTERM, signal.SIGINT):
    before[signum] = signal.getsignal(signum)
    loop.add_signal_handler(signum, stop, signum)
  try:
    yield
  finally:
    for signum, handler in before.items():
      loop.remove_signal_handler(signum)
      signal.signal(signum, handler)


async def _walk(settings: dict, walk: Walk) -> tuple[SiteSpider, int]:
  """Runs the walk and returns its spider and the number of retries."""
  crawler = AsyncCrawlerRunner(settings).create_crawler(SiteSpider)
  with _signals(crawler):
    await crawler.crawl_async(walk=walk)
  return crawler.spider, crawler.stats.get_value('retry/count', 0)


def _regex(name: str, pattern: str | None) -> re.Pattern | None:
  try:
    return re.compile(pattern) if pattern else None
  except re.error as error:
    raise UserError(
      field=name, value=pattern, allowed='a regular expression', message=f'Python says: {error}.'
    ) from None


def _contact(contact: str) -> str:
  if not contact.isascii() or not contact.isprintable() or set(contact) & set('()'):
    allowed = 'a URL or an e-mail address in printable ASCII without parentheses'
    raise UserError(field='contact', value=contact, allowed=allowed)
  return f' (+{contact})' if contact else ''


def _report(spider: SiteSpider, retried: int) -> dict:
  """Returns the report of a finished walk. Raises UserError if the walk stored no page."""
  counts, status = spider.counts, spider.status
  faults = collections.Counter(fault['cause'] for fault in spider.faults)
  if not counts['pages']:
    answers = [f'{n} answered {code}' for code, n in status.items()]
    found = answers + [f'{n} failed: {cause}' for cause, n in faults.items()]
    raise UserError(
      field=f'page to store of {spider.walk.url}',
      message=f'{", ".join(found) or "no answer"}; '
      f'{counts["skipped_by_robots"]} forbidden by robots.txt, '
      f'{counts["noindex"]} said noindex, {counts["off_site"]} links leave the site',
    )
  return {
    **counts,
    'retried': retried,
    'status': {str(code): n for code, n in sorted(status.items())},
    'faults': dict(sorted(faults.items())),
    'errors': spider.faults,
  }


def crawl(
  url: str,
  out: files.Path,
  *,
  max_pages: int = 1000,
  max_depth: int = 0,
  delay: float = 1.0,
  retries: int = 3,
  include: str | None = None,
  exclude: str | None = None,
  timeout: float = 30.0,
  max_bytes: int = 10_000_000,
  file_bytes: int = 1_000_000_000,
  user_agent: str = USER_AGENT,
  contact: str = '',
  progress: Callable[[int, int], object] = lambda done, known: None,
  sleep: Callable[[float], object] = asyncio.sleep,
) -> dict:
  """Crawls the site of `url` breadth-first into `out/crawl-*.warc.gz`, or continues a crawl there.

  A page is identified by its URL without the port, so that a crawl can continue at another port: a
  local server that is restarted gets a new one.

  Args:
    url: first page. Links and redirects are followed within its host and port; http and https count
      as one.
    out: folder for the WARC files and `report.json`, which is written last.
    max_pages: largest number of pages to request; redirects, error pages and pages that fail count.
    max_depth: largest distance in links from the first page; 0 for no limit.
    delay: seconds between the starts of two requests. The host's own pace (AutoThrottle) and the
      Crawl-delay of robots.txt can only raise it. 0 turns AutoThrottle off and is meant for your
      own servers.
    retries: attempts after the first ends in a time-out, a broken connection, 429 or 5xx.
    include, exclude: regular expressions searched in path?query of each link; `url` itself is
      always fetched.
    timeout: seconds for one whole response.
    max_bytes: longer pages, as sent or decoded, are recorded as faults.
    file_bytes: size after which a new WARC file begins.
    user_agent: sent with each request and matched against robots.txt.
    contact: URL or e-mail address of the person responsible for this crawl; sent after
      `user_agent`.
    progress: called after each page with the numbers of pages done and of pages known so far.
    sleep: coroutine function that waits between two attempts.

  Returns:
    The report: pages (answered 200 and stored), bytes (decoded bodies of all stored responses),
      status {code: n}, faults {cause: n}, errors [{url, cause, error}], noindex, skipped_by_robots,
      excluded and off_site (links that were not followed), retried, seconds, url, options.

  Raises:
    UserError: a bad URL or pattern, a host that is unreachable or lost, no page found, or a crawl
      of another host in `out`.
    OSError: the disk is full, or the folder cannot be written.
    Stopped: SIGTERM or Ctrl-C.
  """
  out, started = pathlib.Path(out), time.monotonic()
  options = {
    'max_pages': max_pages,
    'max_depth': max_depth,
    'include': include,
    'exclude': exclude,
    'max_bytes': max_bytes,
    'user_agent': user_agent,
  }
  first = urls.normalise(url)
  allow, deny = _regex('include', include), _regex('exclude', exclude)
  settings = _settings(
    delay=delay,
    retries=retries,
    timeout=timeout,
    max_bytes=max_bytes,
    agent=user_agent + _contact(contact),
  )

  def wanted(key: str) -> bool:
    return not (allow and not allow.search(key)) and not (deny and deny.search(key))

  with files.locked(out):
    if (out / 'report.json').exists():
      report = files.read_json(out / 'report.json')
      if (report['url'], report['options']) == (url, options):
        return report
      (out / 'report.json').unlink()
    with contextlib.closing(Archive(out, file_bytes)) as archive:
      if others := archive.hosts - {urls.host(first)}:
        raise UserError(
          field='host',
          value=urls.host(first),
          allowed=f'{min(others)}, whose pages {out} holds',
          message='Give another --out.',
        )
      walk = Walk(
        url=first,
        archive=archive,
        user_agent=user_agent,
        max_pages=max_pages,
        max_depth=max_depth,
        wanted=wanted,
        progress=progress,
        sleep=sleep,
      )
      spider, retried = asyncio.run(_walk(settings, walk))
      if spider.error:
        raise spider.error
      report = {'url': url, 'options': options} | _report(spider, retried)
    report['seconds'] = time.monotonic() - started
    files.write_json(out / 'report.json', report)
  return report


def crawl_with_progress(url: str, out: files.Path, **options) -> dict:
  """Runs `crawl` with a progress bar, and turns its signals into exit statuses."""
  with progress_lib.bar(desc='crawl', unit='page') as bar:

    def progress(done: int, known: int) -> None:
      bar.total = known
      bar.update(done - bar.n)

    try:
      return crawl(url, out, progress=progress, **options)
    except Stopped as stopped:
      if stopped.signum == signal.SIGINT:
        raise KeyboardInterrupt from None
      sys.exit(128 + stopped.signum)
