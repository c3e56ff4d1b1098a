"""Walks over one site breadth-first, visits each page once and records each fault."""

import asyncio
import collections
import dataclasses
import re
from collections.abc import Callable

import scrapy
from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.exceptions import StopDownload
from scrapy.http import Headers, Response

from data.crawling import failures, markup, urls
from data.crawling.download import text
from data.crawling.politeness import Robots, refuses
from data.crawling.warc import Archive
from lm.base.errors import UserError, invalid

# Only the headers are stored of pages of other types.
STORED_TYPES = re.compile(rb'text/|application/(xhtml\+xml|xml|json)\b')
MOST_REDIRECTS = 10  # one after another
LOST = 5  # consecutive pages without an answer after which the host is checked


@dataclasses.dataclass(frozen=True)
class Walk:
  """The parameters of a spider's walk.

  Attributes:
    url: normalised URL of the first page.
    archive: stores pages, and returns those that are already stored.
    user_agent: matched against robots.txt.
    max_pages: largest number of pages to request.
    max_depth: largest distance in links from the first page; 0 for no limit.
    wanted: returns whether a link with this '/path?query' is followed.
    progress: called after each page with the numbers of pages done and of pages known.
    sleep: coroutine function that waits this many seconds.
  """

  url: str
  archive: Archive
  user_agent: str
  max_pages: int
  max_depth: int
  wanted: Callable[[str], bool]
  progress: Callable[[int, int], object]
  sleep: Callable[[float], object]


class SiteSpider(scrapy.Spider):
  """Walks over the pages of a site, one request at a time, so that each walk is the same.

  Attributes:
    stopped: set when the walk is to end; it ends downloads and pauses.
    error: why the walk ended early, or None.
    faults: [{'url', 'cause', 'error'}] of the pages that could not be fetched.
    status, counts: numbers for the report.
  """

  name = 'site'

  def __init__(self, walk: Walk):
    super().__init__()
    self.walk, self.archive = walk, walk.archive
    self.robot = walk.user_agent.partition('/')[0].lower()  # the name that pages address
    self.stopped, self.error = asyncio.Event(), None
    self.seen: set[str] = set()  # page ids of all requests made
    self.done = self.unanswered = 0
    self.faults: list[dict] = []
    self.status: collections.Counter = collections.Counter()
    self.counts = dict.fromkeys(
      ('pages', 'bytes', 'noindex', 'skipped_by_robots', 'excluded', 'off_site'), 0
    )

  @classmethod
  def from_crawler(cls, crawler: Crawler, *args, **kwargs) -> 'SiteSpider':
    spider = super().from_crawler(crawler, *args, **kwargs)
    spider.robots = Robots(crawler, spider.walk.user_agent)
    crawler.signals.connect(spider._want_body, signals.headers_received)
    crawler.signals.connect(spider._callback_failed, signals.spider_error)
    return spider

  # ---- The walk

  async def start(self):
    """Yields the first request, or stops the walk if robots.txt cannot be read."""
    rules = await self.robots.read(urls.split_site(self.walk.url)[0])
    if rules.closed:
      self.stop(rules.closed)
    elif request := await self._request(self.walk.url, depth=0, hops=0):
      yield request

  async def parse(self, response: Response) -> None:
    """Stores a page and queues its links."""
    stored = 'stored' in response.flags
    overloaded = refuses(response.status)
    if overloaded:
      self._record(response.url, f'status {response.status}', 'the last attempt was answered so')
    self.unanswered = self.unanswered + 1 if overloaded and not stored else 0
    reading = self._read(response)
    self.status[response.status] += 1
    if reading.rules.index:
      self.counts['bytes'] += len(response.body)
      self.counts['pages'] += response.status == 200
      if not stored:
        self._store(response)
    else:
      self.counts['noindex'] += 1
    await self._follow(response, reading)
    await self._done()

  async def failed(self, failure) -> None:
    """Records a page that could not be fetched."""
    if not self.stopped.is_set():
      error = failure.value
      self._record(failure.request.url, failures.cause(error), failures.message(error))
      self.unanswered = self.unanswered + 1 if failures.unanswered(error) else 0
      await self._done()

  def stop(self, error: BaseException) -> None:
    """Ends the walk without waiting for downloads and pauses; the first error given is kept."""
    if self.error is None:
      self.error = error
      self.stopped.set()
      downloader = self.crawler.engine.downloader
      for slot in downloader.slots.values():  # requests in the queue fail at once
        slot.close()
        slot.delay = 0.0
        downloader._process_queue(slot)
      closing = self.crawler.engine.close_spider_async(reason='stopped')
      self._closing = asyncio.ensure_future(closing)

  async def pause(self, seconds: float) -> None:
    """Waits for this many seconds, or until the walk is stopped."""
    nap = asyncio.ensure_future(self.walk.sleep(seconds))
    stop = asyncio.ensure_future(self.stopped.wait())
    await asyncio.wait({nap, stop}, return_when=asyncio.FIRST_COMPLETED)
    nap.cancel()
    stop.cancel()

  # ---- One page

  def _read(self, response: Response) -> markup.Reading:
    """Returns the links of a page and what it allows; a redirect has one link."""
    rules = markup.header_rules(response.headers.getlist('X-Robots-Tag'), self.robot)
    if 300 <= response.status < 400:
      return markup.Reading([text(response.headers.get('Location', b''))], '', markup.Rules())
    kind = response.headers.get('Content-Type', b'')
    if response.status != 200 or b'html' not in kind.lower():
      return markup.Reading([], '', rules if response.status == 200 else markup.Rules())
    reading = markup.read(kind, response.body, self.robot)
    return reading._replace(rules=reading.rules & rules)

  def _store(self, response: Response) -> None:
    if self.error is None:  # after a disk error the file ends in a torn record
      truncated = 'unspecified' if 'download_stopped' in response.flags else ''
      try:
        self.archive.store(response, truncated)
      except OSError as error:
        self.stop(error)

  async def _follow(self, response: Response, reading: markup.Reading) -> None:
    """Queues the pages that a page links to."""
    redirect = 300 <= response.status < 400
    hops = response.meta['hops'] + 1 if redirect else 0
    depth = response.meta['depth'] + (not redirect)
    if hops > MOST_REDIRECTS:
      self._record(response.url, 'redirects', f'more than {MOST_REDIRECTS} one after another')
      return
    if not reading.rules.follow or 0 < self.walk.max_depth < depth:
      return
    try:
      base = urls.normalise(reading.base, response.url)
    except UserError:
      base = response.url
    for link in reading.links:
      try:
        url = urls.normalise(link, base)
      except UserError:  # the link is malformed or not http(s), such as mailto: or javascript:
        continue
      if not urls.same_site(url, self.walk.url):
        self.counts['off_site'] += 1
      elif urls.page_id(url) not in self.seen and len(self.seen) < self.walk.max_pages:
        if not self.walk.wanted(urls.split_site(url)[1]):
          self.counts['excluded'] += 1
        elif request := await self._request(url, depth, hops):
          self.crawler.engine.crawl(request)

  async def _request(self, url: str, depth: int, hops: int) -> scrapy.Request | None:
    """Returns the request for an unseen page, or None if robots.txt forbids it."""
    if not await self.robots.allowed(url):
      self.counts['skipped_by_robots'] += 1
      return None
    self.seen.add(urls.page_id(url))
    meta = {'depth': depth, 'hops': hops, 'verbatim_url': True}
    return scrapy.Request(url, self.parse, errback=self.failed, dont_filter=True, meta=meta)

  async def _done(self) -> None:
    """Counts a page. After several failures in a row, stops the walk if the host is gone."""
    self.done += 1
    self.walk.progress(self.done, len(self.seen))
    if self.unanswered and (self.unanswered == LOST or self.done == len(self.seen)):
      self.unanswered = 0
      site = urls.split_site(self.walk.url)[0]
      try:
        status = (await self.robots.fetch(site)).status
        found = f'robots.txt answers {status}' if refuses(status) else ''
      except Exception as error:  # noqa: BLE001  any failure means that the host does not answer
        found = failures.message(error)
      if found:
        after = f'after {self.counts["pages"]} pages; the same command continues the crawl'
        self.stop(invalid(site, 'answering any more', f'{found} {after}'))

  def _record(self, url: str, cause: str, message: str) -> None:
    self.faults.append({'url': url, 'cause': cause, 'error': message})

  # ---- Signals

  def _want_body(self, headers: Headers, request: scrapy.Request) -> None:
    """Ends the download of a page whose type is not stored."""
    kind = headers.get('Content-Type', b'text/html').lower()
    if 'hops' in request.meta and not STORED_TYPES.match(kind):
      raise StopDownload(fail=False)

  def _callback_failed(self, failure, response) -> None:
    """Records a page whose handling raised an error."""
    if response is None:  # start() failed
      self.stop(failure.value)
    else:
      self._record(response.request.url, 'error', failures.message(failure.value))
      self.done += 1
