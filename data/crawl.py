"""Crawls one site over HTTP into gzip WARC: `python -m data.crawl URL --out=DIR`.

The WARC files are the only state. A crawl that was killed at any moment goes on where it stopped: the stored pages are
read back, a torn last record is cut off, and the same breadth-first walk is made again with the stored pages in place
of requests. `report.json` beside them says that the crawl is complete.
"""

import argparse
import collections
import contextlib
import email.utils
import http.client
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.robotparser
from collections.abc import Iterator

import tqdm

from data.warc import SOFTWARE, Archive, Response, normalise, split_site
from lm import errors, files
from lm.errors import UserError

USER_AGENT = f'{SOFTWARE} (+https://pypi.org/project/deepdive-lm)'
STORED_TYPES = re.compile(r'text/|application/(xhtml\+xml|xml|json)\b')  # of the others only the headers are kept
RETRIED = (429, 500, 502, 503, 504)
LONGEST_WAIT = 120.0  # seconds; a server that asks for a longer pause counts as failing
LOST = 5  # pages in a row without an answer: is the host still there?


class Fetcher:
  """Polite requests to one host: a pause between them, retries with growing pauses, limits on time and size."""

  def __init__(self, site: str, *, delay: float, retries: int, timeout: float, max_bytes: int, user_agent: str):
    self.site, self.delay, self.retries = site, delay, retries
    self.timeout, self.max_bytes, self.user_agent = timeout, max_bytes, user_agent
    self.headers = [('User-Agent', user_agent), ('Accept', 'text/html, */*;q=0.5'), ('Accept-Encoding', 'gzip')]
    self.next_time = 0.0
    self.retried = 0

  def get(self, key: str) -> Response:
    """Raises OSError or http.client.HTTPException when no attempt got an answer."""
    for attempt in range(self.retries + 1):
      time.sleep(max(0.0, self.next_time - time.monotonic()))
      pause = 0.5 * 2**attempt
      try:
        response = self._once(key)
        if response.status not in RETRIED or attempt == self.retries:
          return response
        pause = max(pause, _retry_after(response))
        if pause > LONGEST_WAIT:
          return response
      except (OSError, http.client.HTTPException):
        if attempt == self.retries:
          raise
      finally:
        self.next_time = time.monotonic() + self.delay
      self.next_time = time.monotonic() + max(self.delay, pause)
      self.retried += 1
    raise AssertionError('the last attempt returns or raises')

  def _once(self, key: str) -> Response:
    parts = urllib.parse.urlsplit(self.site)
    kind = http.client.HTTPSConnection if parts.scheme == 'https' else http.client.HTTPConnection
    deadline = time.monotonic() + self.timeout
    with contextlib.closing(kind(parts.netloc, timeout=self.timeout)) as connection:
      connection.request('GET', key, headers={**dict(self.headers), 'Connection': 'close'})
      answer = connection.getresponse()
      # http.client undoes the chunks, so the stored header must not announce them.
      rename = {'transfer-encoding': 'X-Crawl-Transfer-Encoding'}
      headers = [(rename.get(name.lower(), name), value) for name, value in answer.getheaders()]
      body, truncated = b'', ''
      if answer.status == 200 and not STORED_TYPES.match(answer.getheader('Content-Type') or 'text/html'):
        return Response(answer.status, answer.reason, headers, body, 'unspecified')
      chunks, size = [], 0
      while chunk := answer.read(min(1 << 16, self.max_bytes - size)):
        chunks.append(chunk)
        size += len(chunk)
        if time.monotonic() > deadline:
          raise TimeoutError(f'not whole after {self.timeout:g} s')
      if size >= self.max_bytes and answer.length != 0:
        truncated = 'length'
      elif answer.length:
        raise http.client.IncompleteRead(b'', answer.length)
      return Response(answer.status, answer.reason, headers, b''.join(chunks), truncated)


def _retry_after(response: Response) -> float:
  """Seconds that the server asks us to wait (RFC 9110, 10.2.3: a number or a date); 0 if it does not say."""
  value = response.header('retry-after').strip()
  if value.isdigit():
    return float(value)
  try:
    return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
  except ValueError:
    return 0.0


def read_robots(fetcher: Fetcher) -> urllib.robotparser.RobotFileParser:
  """The site's rules by RFC 9309: absent (4xx) allows all; an error of the server forbids all. Raises UserError."""
  robots, key = urllib.robotparser.RobotFileParser(), '/robots.txt'
  for _ in range(5):  # the redirects that the RFC asks to follow
    try:
      response = fetcher.get(key)
    except (OSError, http.client.HTTPException) as error:
      raise UserError(f'cannot reach {fetcher.site}: {error or type(error).__name__}') from None
    location = response.header('location')
    if not (300 <= response.status < 400 and location):
      break
    site, key = split_site(normalise(location, fetcher.site + key))
    if site != fetcher.site:
      break
  if response.status >= 500 or response.status == 429:
    raise UserError(f'{fetcher.site}/robots.txt answers {response.status}: no page may be fetched until it works')
  robots.parse(response.body.decode('utf-8', 'replace').splitlines() if response.status == 200 else [])
  fetcher.delay = max(fetcher.delay, float(robots.crawl_delay(fetcher.user_agent) or 0))
  return robots


def _regex(name: str, pattern: str | None) -> re.Pattern | None:
  try:
    return re.compile(pattern) if pattern else None
  except re.error as error:
    raise UserError(f'{name} is not a regular expression: {pattern!r}: {error}') from None


def _check_alive(fetcher: Fetcher, pages: int) -> None:
  """Tells pages that fail from a host that is gone. Raises UserError, before the crawl could count as complete."""
  try:
    fetcher.get('/robots.txt')
  except (OSError, http.client.HTTPException) as error:
    found = str(error) or type(error).__name__
    raise UserError(
      f'{fetcher.site} stopped answering after {pages} pages ({found}); the same command goes on from there'
    ) from None


def _walk(first: str, archive: Archive, fetcher: Fetcher, robots, wanted, max_pages: int) -> dict:
  """Breadth first from the key `first`: stored pages are taken as they are, the others fetched. Returns the counts."""
  queue, seen = collections.deque([first]), {first}
  status, failed = collections.Counter(), []
  counts = dict.fromkeys(('bytes', 'skipped_by_robots', 'excluded', 'off_site'), 0)
  lost = 0
  with tqdm.tqdm(desc='crawl', unit='page', mininterval=0.5) as bar:
    while queue and bar.n < max_pages:
      key = queue.popleft()
      page = archive.pages.get(key)
      if not page:
        if not robots.can_fetch(fetcher.user_agent, fetcher.site + key):
          counts['skipped_by_robots'] += 1
          continue
        try:
          response = fetcher.get(key)
        except (OSError, http.client.HTTPException) as error:
          failed.append({'url': fetcher.site + key, 'error': str(error) or type(error).__name__})
          lost += 1
          if lost == LOST:
            _check_alive(fetcher, bar.n)
            lost = 0
          continue
        lost = 0
        page = archive.store(fetcher.site + key, fetcher.headers, response)
      status[page.status] += 1
      counts['bytes'] += page.size
      counts['off_site'] += page.off_site
      for link in page.links:
        if link not in seen:
          seen.add(link)
          if wanted(link):
            queue.append(link)
          else:
            counts['excluded'] += 1
      bar.total = min(max_pages, bar.n + 1 + len(queue))
      bar.update()
  if lost:
    _check_alive(fetcher, bar.n)
  if not status[200]:
    found = ', '.join(f'{n} answered {code}' for code, n in status.items()) or 'no answer'
    raise UserError(
      f'{fetcher.site}{first}: no page to store ({found}; {counts["skipped_by_robots"]} forbidden by robots.txt, '
      f'{counts["off_site"]} links leave the site)'
    )
  return {
    'pages': status[200], **counts, 'retried': fetcher.retried,
    'status': {str(code): n for code, n in sorted(status.items())}, 'errors': failed,
  }  # fmt: skip


def crawl(
  url: str,
  out: files.Path,
  *,
  max_pages: int = 1000,
  delay: float = 1.0,
  retries: int = 3,
  include: str | None = None,
  exclude: str | None = None,
  timeout: float = 30.0,
  max_bytes: int = 10_000_000,
  file_bytes: int = 1_000_000_000,
  user_agent: str = USER_AGENT,
) -> dict:
  """Crawls the site of `url` breadth-first into `out/crawl-*.warc.gz`; goes on with what is already there.

  A page is known by its path and query, so a crawl may go on at another port: a local server started again gets one.

  Args:
    url: first page. Links and redirects are followed within its scheme, host and port.
    out: folder for the WARC files and `report.json`, which is written last.
    max_pages: most responses to store, redirects and error pages included.
    delay: seconds between two requests; a longer Crawl-delay of robots.txt wins.
    retries: further attempts after a time-out, a broken connection, 429 or 5xx.
    include, exclude: regular expressions searched in path?query of each link; `url` itself is always fetched.
    timeout: seconds for one whole response.
    max_bytes: longer bodies are cut there and marked WARC-Truncated.
    file_bytes: a new WARC file begins after this many.
    user_agent: sent with each request and matched against robots.txt.

  Returns:
    The report: pages (answered 200), bytes (decoded bodies of all responses), status {code: n}, errors [{url, error}],
    skipped_by_robots, excluded, off_site, retried, seconds, url, options.

  Raises:
    UserError: bad URL or pattern, host unreachable or lost, nothing found, or `out` holds another site's crawl.
    OSError: the disk is full, or the folder cannot be written.
  """
  out, started = pathlib.Path(out), time.monotonic()
  options = {
    'max_pages': max_pages, 'include': include, 'exclude': exclude, 'max_bytes': max_bytes, 'user_agent': user_agent
  }  # fmt: skip
  site, first = split_site(normalise(url))
  allow, deny = _regex('include', include), _regex('exclude', exclude)

  def wanted(key: str) -> bool:
    return not (allow and not allow.search(key)) and not (deny and deny.search(key))

  with files.locked(out):
    if (out / 'report.json').exists():
      report = files.read_json(out / 'report.json')
      if (report['url'], report['options']) == (url, options):
        return report
      (out / 'report.json').unlink()
    fetcher = Fetcher(
      site, delay=delay, retries=retries, timeout=timeout, max_bytes=max_bytes, user_agent=user_agent
    )
    with contextlib.closing(Archive(out, file_bytes)) as archive:
      for other in archive.sites:
        if urllib.parse.urlsplit(other).hostname != urllib.parse.urlsplit(site).hostname:
          raise UserError(f'{out} holds a crawl of {other}, not of {site}: give another --out')
      robots = read_robots(fetcher)
      report = {'url': url, 'options': options} | _walk(first, archive, fetcher, robots, wanted, max_pages)
    report['seconds'] = time.monotonic() - started
    files.write_json(out / 'report.json', report)
  return report


# Pages whose rendering imports a module that hangs, opens windows or prints, and the interpreter's own tests.
PYDOC_EXCLUDE = (
  r'^/(test|_test\w*|_?xx\w*|idlelib|lib2to3|turtledemo|turtle|this|antigravity|__main__|search)\b|\btests?\b'
)

# pydoc's server stops at the end of its input, but joins its thread first, which may hang in a module that it imports:
# this thread ends it at once, so that not even a kill -9 of the parent leaves it behind.
_PYDOC = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
sys.argv = ['pydoc', '-p', sys.argv[1]]
runpy.run_module('pydoc', run_name='__main__')
"""


@contextlib.contextmanager
def serve_pydoc(port: int = 0) -> Iterator[str]:
  """Runs the standard library's documentation server on a loopback port (0: a free one); yields its URL.

  It ends with the block, and with this process however that ends. It sees the standard library alone: no
  site-packages, and an empty working folder, since pydoc imports what it finds there.

  Raises UserError naming the port when it is taken.
  """
  with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile() as log:
    server = subprocess.Popen(
      [sys.executable, '-I', '-S', '-c', _PYDOC, str(port)], cwd=empty, stdin=subprocess.PIPE, stdout=log,
      stderr=subprocess.STDOUT, env={**os.environ, 'BROWSER': 'true'},
    )  # fmt: skip
    try:
      deadline = time.monotonic() + 60
      while not (ready := re.search(rb'ready at (http://\S+)', os.pread(log.fileno(), 4096, 0))):
        if server.poll() is not None or time.monotonic() > deadline:
          said = os.pread(log.fileno(), 4096, 0).decode('utf-8', 'replace').strip() or 'no answer'
          raise UserError(f'the documentation server does not start on port {port}: {said.splitlines()[-1]}')
        time.sleep(0.05)
      yield ready[1].decode()
    finally:
      server.kill()
      server.communicate()


def main() -> None:
  parser = argparse.ArgumentParser(description='Crawls one site into gzip WARC; goes on with a crawl that was cut off.')
  parser.add_argument('url')
  parser.add_argument('--out', required=True, help='folder for crawl-*.warc.gz and report.json')
  parser.add_argument('--max-pages', type=int, default=1000, help='most responses to store (%(default)s)')
  parser.add_argument('--delay', type=float, default=1.0, help='seconds between two requests (%(default)s)')
  parser.add_argument('--retries', type=int, default=3, help='further attempts after a failure (%(default)s)')
  parser.add_argument('--timeout', type=float, default=30.0, help='seconds for one response (%(default)s)')
  parser.add_argument('--max-bytes', type=int, default=10_000_000, help='longest body stored (%(default)s)')
  parser.add_argument('--include', help='regular expression: follow only links whose path?query it is found in')
  parser.add_argument('--exclude', help='regular expression: do not follow links whose path?query it is found in')
  report = crawl(**vars(parser.parse_args()))
  failed = len(report['errors'])
  print(f'{report["pages"]} pages, {report["bytes"]:,} bytes in {report["seconds"]:.0f} s, {failed} failed')


if __name__ == '__main__':
  errors.run(main)
