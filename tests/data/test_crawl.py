"""The crawler against a small site of our own, read back with warcio."""

import collections
import contextlib
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from warcio.archiveiterator import ArchiveIterator

from data.crawl import Fetcher, crawl, serve_pydoc
from data.warc import intact_length, normalise
from lm.errors import UserError


class Site:
  """Serves `pages` {path: answer or list of answers, one a hit}; answer = (status, headers, body) or HTML;
  a body that is a list is sent a piece every tenth of a second."""

  def __init__(self, pages):
    self.pages, self.hits = pages, []
    site = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_GET(self):
        site.hits.append((self.path, time.monotonic(), dict(self.headers)))
        answer = site.pages.get(self.path, (404, {}, 'absent'))
        if isinstance(answer, list):
          answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
          answer = answer()
        status, headers, body = (200, {}, answer) if isinstance(answer, str) else answer
        pieces = body if isinstance(body, list) else [body.encode() if isinstance(body, str) else body]
        self.send_response(status)
        length = str(sum(map(len, pieces)))
        for name, value in ({'Content-Type': 'text/html', 'Content-Length': length} | headers).items():
          self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
          for piece in pieces:
            self.wfile.write(piece)
            time.sleep(0.1 if len(pieces) > 1 else 0)

      def log_message(self, *_):
        pass

    self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    self.url = f'http://127.0.0.1:{self.server.server_port}/'
    threading.Thread(target=self.server.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True).start()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.server.shutdown()
    self.server.server_close()

  @property
  def paths(self):
    return [path for path, *_ in self.hits if path != '/robots.txt']


def links(*targets):
  return '<html><body>' + ' '.join(f'<a href="{target}">to {target}</a>' for target in targets) + '</body></html>'


def tree(size=40):
  """A site of `size` pages, each linking to two others and to the root."""
  pages = {'/': links('p1', 'p2')}
  for i in range(1, size):
    pages[f'/p{i}'] = links('/', *(f'p{j}' for j in (2 * i + 1, 2 * i + 2) if j < size)) + f'<p>page {i}' * i
  return pages


def stored(folder, kind='response'):
  """[(path?query, status, body)] of the records in a crawl folder."""
  result = []
  for path in sorted(folder.glob('*.warc.gz')):
    with open(path, 'rb') as f:
      for record in ArchiveIterator(f):
        if record.rec_type == kind:
          key = '/' + record.rec_headers.get_header('WARC-Target-URI').split('/', 3)[3]
          result.append((key, record.http_headers.get_statuscode(), record.content_stream().read()))
  return result


def test_fetches_each_page_of_the_site_once_and_no_other(tmp_path):
  pages = {
    '/robots.txt': (200, {'Content-Type': 'text/plain'}, 'User-agent: *\nDisallow: /private\n'),
    '/': links('a', './a#part', '/a', 'b?x=1', 'b?x=2', 'http://other.invalid/', 'mailto:a@b.c', 'private/x', 'pic'),
    '/a': links('/', 'a', 'b?x=1', 'sub/c', 'http://[bad/') + '<a rel="nofollow" href="/secret">no</a>',
    '/b?x=1': '<html><base href="/deep/"><a href="d">d</a></html>',
    '/b?x=2': links('missing', 'ümlaut path'),
    '/sub/c': links('../a', '../plain.txt'),
    '/deep/d': 'no links',
    '/%C3%BCmlaut%20path': 'found',
    '/plain.txt': (200, {'Content-Type': 'text/plain'}, links('/never')),
    '/pic': (200, {'Content-Type': 'image/png'}, b'\x89PNG' * 1000),
  }
  with Site(pages) as site:
    report = crawl(site.url, tmp_path, delay=0)
  expected = set(pages) - {'/robots.txt'} | {'/missing'}
  assert sorted(site.paths) == sorted(expected)
  bodies = {key: body for key, _, body in stored(tmp_path)}
  assert set(bodies) == expected
  assert bodies['/a'] == pages['/a'].encode() and bodies['/pic'] == b''
  assert {key for key, _, _ in stored(tmp_path, 'request')} == expected
  assert report['pages'] == len(expected) - 1 and report['status'] == {'200': len(expected) - 1, '404': 1}
  assert report['skipped_by_robots'] == 1 and report['off_site'] == 1 and report['errors'] == []
  assert report['bytes'] == sum(map(len, bodies.values()))
  assert json.loads((tmp_path / 'report.json').read_text()) == report
  assert all('deepdive' in headers['User-Agent'] for _, _, headers in site.hits)


def test_breadth_first_up_to_the_page_limit_and_then_on(tmp_path):
  with Site(tree()) as site:
    assert crawl(site.url, tmp_path, delay=0, max_pages=7)['pages'] == 7
    assert site.paths == ['/', *(f'/p{i}' for i in range(1, 7))]
    crawl(site.url, tmp_path, delay=0, max_pages=7)  # complete: nothing to do
    assert len(site.hits) == 8
    assert crawl(site.url, tmp_path, delay=0, max_pages=9)['pages'] == 9
    assert site.paths == ['/', *(f'/p{i}' for i in range(1, 9))]


def test_include_and_exclude(tmp_path):
  with Site({'/': links('doc/1', 'doc/2', 'blog/1'), '/doc/1': '1', '/doc/2': '2', '/blog/1': '3'}) as site:
    report = crawl(site.url, tmp_path, delay=0, include='^/doc/', exclude='2$')
  assert site.paths == ['/', '/doc/1'] and report['excluded'] == 2


def test_redirects_are_followed_within_the_site_only(tmp_path):
  with Site({'/': 'elsewhere'}) as other:
    pages = {
      '/': links('in', 'out', 'loop'),
      '/in': (302, {'Location': '/target'}, ''),
      '/target': 'here',
      '/out': (301, {'Location': other.url}, ''),
      '/loop': (302, {'Location': '/loop2'}, ''),
      '/loop2': (302, {'Location': '/loop'}, ''),
    }
    with Site(pages) as site:
      report = crawl(site.url, tmp_path, delay=0)
    assert site.paths == ['/', '/in', '/out', '/loop', '/target', '/loop2'] and not other.hits
    assert report['status'] == {'200': 2, '301': 1, '302': 3} and report['off_site'] == 1
    with Site({'/': (301, {'Location': other.url}, '')}) as site, pytest.raises(UserError, match='1 links leave'):
      crawl(site.url, tmp_path / 'b', delay=0)


def test_retries_what_may_pass_and_waits_as_told(tmp_path):
  pages = {
    '/': links('flaky', 'busy', 'dead', 'gone'),
    '/flaky': [(500, {}, 'oops'), 'fine'],
    '/busy': [(503, {'Retry-After': '1'}, 'later'), 'fine'],
    '/dead': (502, {}, 'always'),
    '/gone': (410, {}, 'for good'),
  }
  with Site(pages) as site:
    report = crawl(site.url, tmp_path, delay=0, retries=1)
  assert collections.Counter(site.paths) == {'/': 1, '/flaky': 2, '/busy': 2, '/dead': 2, '/gone': 1}
  busy = [at for path, at, _ in site.hits if path == '/busy']
  assert busy[1] - busy[0] >= 1
  assert [s for _, s, _ in stored(tmp_path)] == ['200', '200', '200', '502', '410'] and report['retried'] == 3


def test_slow_and_broken_answers_are_reported_and_the_rest_goes_on(tmp_path):
  def slow():
    time.sleep(0.6)
    return 'late'

  pages = {'/': links('slow', 'drip', 'short', 'next'), '/slow': slow, '/next': 'fine'}
  pages['/drip'] = (200, {}, [b'drop'] * 20)
  pages['/short'] = (200, {'Content-Length': '100'}, 'only this')
  with Site(pages) as site:
    report = crawl(site.url, tmp_path, delay=0, retries=0, timeout=0.3)
  assert [key for key, *_ in stored(tmp_path)] == ['/', '/next']
  assert [error['url'] for error in report['errors']] == [site.url + page for page in ('slow', 'drip', 'short')]


def test_pause_between_requests_follows_robots(tmp_path):
  pages = {'/robots.txt': 'User-agent: deepdive-crawl\nCrawl-delay: 1\n', '/': links('a'), '/a': 'x'}
  with Site(pages) as site:
    crawl(site.url, tmp_path, delay=0.1)
    times = [at for path, at, _ in site.hits if path != '/robots.txt']
    assert times[1] - times[0] >= 0.95
    crawl(site.url, tmp_path / 'b', delay=0.3, user_agent='other', max_pages=5)
  times = [at for path, at, _ in site.hits if path != '/robots.txt'][2:]
  assert 0.28 <= times[1] - times[0] < 0.9


def test_long_bodies_are_cut_and_marked_and_files_roll_over(tmp_path):
  with Site({'/': links('big'), '/big': 'x' * 200_000}) as site:
    crawl(site.url, tmp_path, delay=0, max_bytes=70_000, file_bytes=1)
  assert len(stored(tmp_path)[1][2]) == 70_000
  assert sorted(path.name for path in tmp_path.glob('*.gz')) == ['crawl-00000.warc.gz', 'crawl-00001.warc.gz']
  with open(tmp_path / 'crawl-00001.warc.gz', 'rb') as f:
    records = [(record.rec_type, record.rec_headers.get_header('WARC-Truncated')) for record in ArchiveIterator(f)]
  assert records == [('warcinfo', None), ('response', 'length'), ('request', None)]


def command(site, out, *flags):
  return [sys.executable, '-m', 'data.crawl', site.url, f'--out={out}', '--delay=0.01', *flags]


@pytest.mark.parametrize('after', [3, 17, 29])
def test_a_crawl_killed_at_any_moment_goes_on_to_the_same_pages(tmp_path, after):
  with Site(tree()) as site:
    crawl(site.url, tmp_path / 'whole', delay=0)
    site.hits.clear()
    process = subprocess.Popen(command(site, tmp_path / 'cut'), stderr=subprocess.DEVNULL)
    while len(site.hits) < after:
      time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / 'cut/report.json').exists()
    kept = {key for key, *_ in stored(tmp_path / 'cut')}
    assert after - 3 <= len(kept) <= len(site.paths)
    site.hits.clear()
    report = crawl(site.url, tmp_path / 'cut', delay=0)
  assert stored(tmp_path / 'cut') == stored(tmp_path / 'whole')
  assert not kept & set(site.paths) and len(site.paths) == len(set(site.paths)) == 40 - len(kept)
  assert report['pages'] == 40


@pytest.mark.parametrize('keep', [0.0, 0.1, 0.5, 0.99])
def test_a_torn_record_is_cut_off(tmp_path, keep):
  with Site(tree(6)) as site:
    crawl(site.url, tmp_path, delay=0)
    whole = stored(tmp_path)
    path = tmp_path / 'crawl-00000.warc.gz'
    with open(path, 'rb') as f:
      records = ArchiveIterator(f)
      spans = []
      for record in records:
        record.raw_stream.read()
        spans.append((record.rec_type, records.get_record_offset(), records.get_record_length()))
    kind, offset, length = spans[-4]  # of the last but one page
    assert kind == 'response' and intact_length(path) == spans[-1][1] + spans[-1][2]
    os.truncate(path, offset + int(keep * length))
    assert intact_length(path) == offset
    (tmp_path / 'report.json').unlink()
    site.hits.clear()
    crawl(site.url, tmp_path, delay=0)
  assert site.paths == ['/p4', '/p5'] and stored(tmp_path) == whole


def test_goes_on_at_another_port(tmp_path):
  with Site(tree(12)) as site:
    crawl(site.url, tmp_path, delay=0, max_pages=5)
  with Site(tree(12)) as again:
    crawl(again.url, tmp_path, delay=0)
  assert again.paths == [f'/p{i}' for i in range(5, 12)]
  assert [key for key, *_ in stored(tmp_path)] == ['/', *(f'/p{i}' for i in range(1, 12))]


def test_faults_of_the_user_are_named(tmp_path):
  for bad in ('ftp://host/', 'nothing', 'http://', 'http://host:port/'):
    with pytest.raises(UserError, match='bad URL'):
      crawl(bad, tmp_path)
  with pytest.raises(UserError, match='exclude is not a regular expression'):
    crawl('http://127.0.0.1/', tmp_path, exclude='(')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    url = f'http://127.0.0.1:{free.getsockname()[1]}'
    with pytest.raises(UserError, match=f'cannot reach {url}.*refused'):
      crawl(url, tmp_path / 'refused', retries=0)
  with Site(tree(3)) as site:
    crawl(site.url, tmp_path / 'a', delay=0)
    with pytest.raises(UserError, match='holds a crawl of'):
      crawl(site.url.replace('127.0.0.1', 'localhost'), tmp_path / 'a')
    site.pages['/robots.txt'] = (503, {}, '')
    with pytest.raises(UserError, match=r'robots.txt answers 503'):
      crawl(site.url, tmp_path / 'b', retries=0)
    site.pages['/robots.txt'] = 'User-agent: *\nDisallow: /'
    with pytest.raises(UserError, match=r'1 forbidden by robots.txt'):
      crawl(site.url, tmp_path / 'c')


@pytest.mark.parametrize('size', [4, 60])
def test_a_lost_host_stops_the_crawl_which_can_go_on(tmp_path, monkeypatch, size):
  star = {'/': links(*range(1, size))} | {f'/{i}': f'page {i}' for i in range(1, size)}
  tries, once = [], Fetcher._once
  monkeypatch.setattr(Fetcher, '_once', lambda self, key: tries.append(key) or once(self, key))
  with Site(dict(star)) as site:
    close = site.server.server_close
    site.pages['/1'] = lambda: threading.Thread(target=close).start() or time.sleep(0.2) or 'page 1'
    with pytest.raises(UserError, match='stopped answering after 2 pages'):
      crawl(site.url, tmp_path, delay=0, retries=0)
  assert not (tmp_path / 'report.json').exists()
  assert len(tries) == {4: 6, 60: 9}[size]  # robots.txt, 2 pages, 2 or LOST failures, robots.txt again
  with Site(star) as again:
    assert crawl(again.url, tmp_path, delay=0)['pages'] == size
  assert len(again.paths) == size - 2


def test_full_disk_is_an_error_and_the_crawl_goes_on_with_more_room(tmp_path):
  pages = tree()
  pages['/p5'] += ''.join(map(chr, range(0x4E00, 0x9000)))  # does not compress below 8 KB
  with Site(pages) as site:
    limited = ['bash', '-c', 'ulimit -f 8; exec "$@"', 'bash', *command(site, tmp_path)]
    process = subprocess.run(limited, capture_output=True, text=True)
    assert process.returncode == 1 and 'File too large' in process.stderr.splitlines()[-1]
    assert not (tmp_path / 'report.json').exists()
    crawl(site.url, tmp_path, delay=0)
  assert len({key for key, *_ in stored(tmp_path)}) == len(stored(tmp_path)) == 40


def test_two_crawls_do_not_share_a_folder(tmp_path):
  with Site(tree()) as site:
    site.pages['/p1'] = lambda: time.sleep(1) or 'x'
    process = subprocess.Popen(command(site, tmp_path), stderr=subprocess.DEVNULL)
    while len(site.hits) < 3:
      time.sleep(0.005)
    with pytest.raises(UserError, match=rf'is already in use by pid {process.pid}$'):
      crawl(site.url, tmp_path)
    process.kill()
    process.wait()


@pytest.mark.parametrize(
  ('url', 'base', 'expected'),
  [
    ('HTTP://Host:80', '', 'http://host/'),
    ('https://h:443/a/../b?q=1&r=a b#frag', '', 'https://h/b?q=1&r=a%20b'),
    ('http://h/../a//b/./c/.', '', 'http://h/a//b/c/'),
    ('../x', 'http://h/a/b/c', 'http://h/a/x'),
    ('?y', 'http://h/a?x', 'http://h/a?y'),
    ('//o/p', 'https://h/', 'https://o/p'),
    ('http://[::1]:8000/é', '', 'http://[::1]:8000/%C3%A9'),
  ],
)
def test_normalise(url, base, expected):
  assert normalise(url, base) == expected


def alive(pid):
  try:
    with open(f'/proc/{pid}/stat') as f:
      return f.read().rpartition(')')[2].split()[0] != 'Z'
  except FileNotFoundError:
    return False


def test_pydoc_server_serves_the_standard_library_and_dies_with_its_parent():
  code = (
    'import subprocess, sys, time, data.crawl as c\n'
    'popen = subprocess.Popen\n'
    'def spy(*a, **k):\n  p = popen(*a, **k); print(p.pid, flush=True); return p\n'
    'subprocess.Popen = spy\n'
    'with c.serve_pydoc() as url:\n  print(url, flush=True); time.sleep(60)\n'
  )
  process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
  pid, url = int(process.stdout.readline()), process.stdout.readline().strip()
  with urllib.request.urlopen(url + 'heapq.html', timeout=20) as answer:
    assert b'heappushpop' in answer.read()
  with urllib.request.urlopen(url, timeout=20) as answer:
    assert b'numpy' not in answer.read()
  # pydoc imports what lies in its folder: a page that hangs must not keep the server alive.
  pathlib.Path(f'/proc/{pid}/cwd/hanging.py').write_text('import time\ntime.sleep(60)\n')
  client = socket.create_connection(('127.0.0.1', int(url.rstrip('/').rpartition(':')[2])))
  client.sendall(b'GET /hanging.html HTTP/1.0\r\n\r\n')
  time.sleep(0.5)
  process.kill()
  process.wait()
  process.stdout.close()
  deadline = time.monotonic() + 5
  while alive(pid) and time.monotonic() < deadline:
    time.sleep(0.05)
  client.close()
  assert not alive(pid)


def test_pydoc_server_ends_with_the_block_and_names_a_taken_port():
  with serve_pydoc() as url:
    urllib.request.urlopen(url + 'keywords.html', timeout=20).close()
    port = int(url.rstrip('/').rpartition(':')[2])
    with pytest.raises(UserError, match=f'port {port}.*in use'), serve_pydoc(port):
      pass
  with pytest.raises(OSError), socket.create_connection(('127.0.0.1', port), timeout=1):
    pass
