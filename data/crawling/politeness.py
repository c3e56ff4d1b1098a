"""Obeys a host's wishes: robots.txt as RFC 9309 defines it, and pauses after errors."""

import email.utils
import time
from typing import NamedTuple

from protego import Protego
from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.retry import RetryMiddleware
from scrapy.exceptions import StopDownload
from scrapy.extensions.throttle import AutoThrottle
from scrapy.http import Response
from scrapy.http.request import NO_CALLBACK

from data.crawling import failures, urls
from data.crawling.download import text
from lm.base.errors import UserError, invalid

LONGEST_WAIT = 120.0  # seconds; a host that asks for a longer pause is not crawled
ROBOTS_BYTES = 500 * 1024  # the part of robots.txt that is read (RFC 9309, 2.5)
_ROBOTS_REDIRECTS = 5  # RFC 9309, 2.3.1.2


def refuses(status: int) -> bool:
  """Returns whether a status means that the host cannot serve now, not that there is no page."""
  return status == 429 or status >= 500


def retry_after(value: str, now: float) -> float:
  """Returns the seconds that a Retry-After header asks to wait (RFC 9110, 10.2.3); 0 if none.

  Args:
    value: the header, a number or a date; '' if it was absent.
    now: seconds since 1970.
  """
  value = value.strip()
  if value.isascii() and value.isdigit():
    return float(value[:20])
  try:
    return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
  except (ValueError, OverflowError):
    return 0.0


class PatientRetry(RetryMiddleware):
  """Retries after a pause that grows with each attempt and is at least what the host asks for.

  The host receives no other request meanwhile: there is one request at a time, and it is the one
  that waits.
  """

  async def process_response(self, request: Request, response: Response):
    if 'stored' in response.flags:
      return response
    asked = retry_after(text(response.headers.get('Retry-After', b'')), time.time())
    if asked > LONGEST_WAIT:
      return response
    return await self._paused(request, super().process_response(request, response), asked)

  async def process_exception(self, request: Request, exception: Exception):
    return await self._paused(request, super().process_exception(request, exception), 0.0)

  async def _paused(self, request: Request, result, asked: float):
    if isinstance(result, Request):
      await self.crawler.spider.pause(max(asked, 0.5 * 2 ** request.meta.get('retry_times', 0)))
    return result


class HostRules(NamedTuple):
  """The robots.txt rules of one site.

  Attributes:
    protego: the parsed file.
    closed: why no page may be fetched, if the file could not be read; else None.
  """

  protego: Protego
  closed: UserError | None = None


class Robots:
  """Reads the robots.txt of each site once, and decides which pages may be fetched (RFC 9309).

  A missing file (4xx) allows everything. A file that the host fails to send (5xx, 429, no answer)
  forbids everything. Redirects are followed even to other hosts, and their target counts as the
  file of the original site.
  """

  def __init__(self, crawler: Crawler, user_agent: str):
    self.crawler, self.user_agent = crawler, user_agent
    self.rules: dict[str, HostRules] = {}
    crawler.signals.connect(self._cut, signals.bytes_received)

  async def allowed(self, url: str) -> bool:
    """Returns whether the robots.txt of its site allows this crawler to fetch a URL."""
    rules = await self.read(urls.split_site(url)[0])
    return not rules.closed and rules.protego.can_fetch(url, self.user_agent)

  async def read(self, site: str) -> HostRules:
    """Returns the rules of a site ('http://host:port'), and slows down to its Crawl-delay."""
    if site not in self.rules:
      try:
        self.rules[site] = self._parse(site, await self.fetch(site))
      except Exception as error:  # noqa: BLE001  any failure to read robots.txt closes the site
        closed = invalid(site, 'reachable', failures.message(error))
        self.rules[site] = HostRules(Protego.parse(''), closed)
    return self.rules[site]

  async def fetch(self, site: str) -> Response:
    """Returns the response to robots.txt after following its redirects."""
    url = f'{site}/robots.txt'
    for _ in range(_ROBOTS_REDIRECTS + 1):
      meta = {'cut': ROBOTS_BYTES, 'download_maxsize': 0, 'verbatim_url': True}
      response = await self.crawler.engine.download_async(
        Request(url, callback=NO_CALLBACK, priority=1, meta=meta)
      )
      location = text(response.headers.get('Location', b''))
      if not (300 <= response.status < 400 and location):
        break
      try:
        url = urls.normalise(location, url)
      except UserError:
        break
    return response

  def _parse(self, site: str, response: Response) -> HostRules:
    if refuses(response.status) or response.status < 200:
      closed = UserError(
        field=f'status of {site}/robots.txt',
        value=response.status,
        message='No page may be fetched until it works.',
      )
      return HostRules(Protego.parse(''), closed)
    text = response.body.decode('utf-8-sig', 'replace') if response.status < 300 else ''
    protego = Protego.parse(text)
    delay = protego.crawl_delay(self.user_agent) or 0.0
    if delay > LONGEST_WAIT:
      closed = UserError(
        field=f'Crawl-delay of {site}/robots.txt',
        value=delay,
        allowed=f'at most {LONGEST_WAIT:g} s',
      )
      return HostRules(protego, closed)
    self._slow_down(urls.host(site), delay)
    return HostRules(protego)

  def _slow_down(self, host: str, delay: float) -> None:
    downloader = self.crawler.engine.downloader
    slot = downloader.slots[host]
    if delay > slot.delay:
      slot.delay = delay
      # Scrapy discards idle slots; a new slot takes its delay from these settings.
      downloader.per_slot_settings[host] = {'concurrency': 1, 'delay': delay}
    if throttle := self.crawler.get_extension(AutoThrottle):
      throttle.mindelay = max(throttle.mindelay, delay)

  def _cut(self, data: bytes, request: Request) -> None:
    """Ends the download of a robots.txt that is longer than the part that is read."""
    if 'cut' in request.meta:
      request.meta['received'] = request.meta.get('received', 0) + len(data)
      if request.meta['received'] > request.meta['cut']:
        raise StopDownload(fail=False)
