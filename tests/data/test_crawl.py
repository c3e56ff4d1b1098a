"""The crawler against small sites of our own, read back with warcio."""

import datetime
import gzip
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from refusals import refused
from sites import Site, links, tree
from warcio.archiveiterator import ArchiveIterator

from data import crawl as door
from data.crawling.run import crawl
from data.crawling.warc import intact_length
from data.web.read import read_pages
from lm.base.errors import UserError


def records(folder, kind='response'):
  """Yields (URL, record) of the records of a kind in a crawl folder."""
  for path in sorted(folder.glob('*.warc.gz')):
    with open(path, 'rb') as f:
      for record in ArchiveIterator(f):
        if record.rec_type == kind:
          yield record.rec_headers.get_header('WARC-Target-URI'), record


def stored(folder, kind='response'):
  """[(path?query, status, body)] of the records in a crawl folder."""
  return [
    (
      '/' + url.split('/', 3)[3],
      record.http_headers.get_statuscode(),
      record.content_stream().read(),
    )
    for url, record in records(folder, kind)
  ]


class Naps(list):
  """A sleeper that takes no time and remembers what it was asked for."""

  async def __call__(self, seconds):
    self.append(seconds)


# ---- What is fetched


def test_fetches_each_page_of_the_site_once_and_no_other(tmp_path):
  pages = {
    '/robots.txt': (200, {'Content-Type': 'text/plain'}, 'User-agent: *\nDisallow: /private\n'),
    '/': links(
      'a',
      './a#part',
      '/a',
      'b?x=1',
      'b?x=2',
      'http://other.invalid/',
      'mailto:a@b.c',
      'private/x',
      'pic',
    ),
    '/a': links('/', 'a', 'b?x=1', 'sub/c', 'http://[bad/')
    + '<a rel="nofollow" href="/secret">no</a>',
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
  assert report['pages'] == len(expected) - 1 and report['status'] == {
    '200': len(expected) - 1,
    '404': 1,
  }
  assert report['skipped_by_robots'] == 1 and report['off_site'] == 1
  assert report['errors'] == [] and report['faults'] == {}
  assert report['bytes'] == sum(map(len, bodies.values()))
  assert json.loads((tmp_path / 'report.json').read_text()) == report


def test_says_who_it_is_and_takes_no_cookies(tmp_path):
  with Site({'/': (200, {'Set-Cookie': 'a=b'}, links('a')), '/a': 'x'}) as site:
    crawl(site.url, tmp_path, delay=0, contact='mailto:owner@example.org')
  for _, headers in site.hits:
    assert headers['User-Agent'] == 'deepdive-crawl/0.1 (+mailto:owner@example.org)'
    assert 'Cookie' not in headers
  with pytest.raises(UserError) as raised:
    crawl(site.url, tmp_path / 'b', contact='a\r\nX: y')
  assert (raised.value.field, raised.value.value) == ('contact', 'a\r\nX: y')


def test_breadth_first_up_to_the_page_limit_and_then_on(tmp_path):
  with Site(tree()) as site:
    assert crawl(site.url, tmp_path, delay=0, max_pages=7)['pages'] == 7
    assert site.paths == ['/', *(f'/p{i}' for i in range(1, 7))]
    crawl(site.url, tmp_path, delay=0, max_pages=7)  # complete: nothing to do
    assert len(site.hits) == 8
    assert crawl(site.url, tmp_path, delay=0, max_pages=9)['pages'] == 9
    assert site.paths == ['/', *(f'/p{i}' for i in range(1, 9))]


def test_an_endless_site_ends_at_the_limit_of_pages_or_of_depth(tmp_path):
  def day(handler):
    n = int(handler.path.partition('=')[2] or 0)
    return links(f'/calendar?day={n + 1}', f'/calendar?day={n - 1}')

  with Site({}, otherwise=day) as site:
    assert crawl(site.url, tmp_path / 'pages', delay=0, max_pages=20)['pages'] == 20
    assert len(site.paths) == 20
    assert (
      crawl(site.url, tmp_path / 'depth', delay=0, max_depth=3)['pages'] == 1 + 2 + 3 + 2
    )  # -3 to 3, 0 twice


def test_pages_that_fail_count_towards_the_limit(tmp_path):
  with Site({'/robots.txt': '', '/': links(*range(100))}, otherwise=b'no HTTP\r\n') as site:
    report = crawl(site.url, tmp_path, delay=0, retries=0, max_pages=12)
  assert len(site.paths) == 12 and report['faults'] == {'bad_http': 11}


def test_include_and_exclude(tmp_path):
  with Site(
    {'/': links('doc/1', 'doc/2', 'blog/1'), '/doc/1': '1', '/doc/2': '2', '/blog/1': '3'}
  ) as site:
    report = crawl(site.url, tmp_path, delay=0, include='^/doc/', exclude='2$')
  assert site.paths == ['/', '/doc/1'] and report['excluded'] == 2


def test_redirects_are_followed_within_the_site_only(tmp_path):
  with Site({'/': 'elsewhere'}) as other:
    pages = {
      '/robots.txt': 'User-agent: *\nDisallow: /private',
      '/': links('in', 'out', 'loop', 'hidden'),
      '/in': (302, {'Location': '/target'}, ''),
      '/target': 'here',
      '/out': (301, {'Location': other.url}, ''),
      '/loop': (302, {'Location': '/loop2'}, ''),
      '/loop2': (302, {'Location': '/loop'}, ''),
      '/hidden': (307, {'Location': '/private'}, ''),
    }
    with Site(pages) as site:
      report = crawl(site.url, tmp_path, delay=0)
    assert (
      site.paths == ['/', '/in', '/out', '/loop', '/hidden', '/target', '/loop2'] and not other.hits
    )
    assert report['status'] == {'200': 2, '301': 1, '302': 3, '307': 1}
    assert report['off_site'] == 1 and report['skipped_by_robots'] == 1
    with Site({'/': (301, {'Location': other.url}, '')}) as site:
      with refused(f'page to store of {site.url}') as raised:
        crawl(site.url, tmp_path / 'b', delay=0)
      assert '1 links leave' in raised.value.message


def test_a_chain_of_redirects_is_given_up_and_recorded(tmp_path):
  def onward(handler):
    return 302, {'Location': f'/r{int(handler.path[2:]) + 1}'}, ''

  with Site({'/': links('r1', 'last'), '/last': 'x', '/robots.txt': ''}, otherwise=onward) as site:
    report = crawl(site.url, tmp_path, delay=0)
  assert site.paths[-1] == '/r11' and report['faults'] == {'redirects': 1}
  assert report['errors'][0]['url'] == f'{site.url}r11'


def test_what_pages_say_to_robots_is_kept(tmp_path):
  meta = '<meta name="{}" content="{}">'
  pages = {
    '/': links('noindex', 'nofollow', 'none', 'header', 'headers', 'other', 'named'),
    '/noindex': meta.format('robots', 'NOINDEX') + links('a'),
    '/nofollow': meta.format('Robots', 'index, nofollow') + links('b'),
    '/none': meta.format('robots', 'none') + links('c'),
    '/header': (200, {'X-Robots-Tag': 'noindex'}, links('d')),
    '/headers': (200, {'X-Robots-Tag': 'unavailable_after: 1 Jan 2100, nofollow'}, links('e')),
    '/other': (
      200,
      {'X-Robots-Tag': 'googlebot: noindex, nofollow'},
      meta.format('bingbot', 'noindex') + links('f'),
    ),
    '/named': (
      200,
      {'X-Robots-Tag': 'deepdive-crawl: nofollow'},
      meta.format('deepdive-crawl', 'noindex') + links('g'),
    ),
  } | {f'/{name}': name for name in 'abcdefg'}
  with Site(pages) as site:
    report = crawl(site.url, tmp_path, delay=0)
  assert {path for path in site.paths if len(path) == 2} == {'/a', '/d', '/f'}
  assert {key for key, *_ in stored(tmp_path)} == {
    '/',
    '/nofollow',
    '/headers',
    '/other',
    '/a',
    '/d',
    '/f',
  }
  assert report['noindex'] == 4 and report['pages'] == 7


def certificate(folder):
  """Writes a certificate of 127.0.0.1 and its key; returns their file."""
  key = ec.generate_private_key(ec.SECP256R1())
  name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, '127.0.0.1')])
  address = x509.IPAddress(ipaddress.ip_address('127.0.0.1'))
  made = (
    x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    .not_valid_before(datetime.datetime(2020, 1, 1))
    .not_valid_after(datetime.datetime(2120, 1, 1))
    .add_extension(x509.SubjectAlternativeName([address]), critical=False)
    .sign(key, hashes.SHA256())
  )
  pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
  private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none)
  path = folder / 'certificate.pem'
  path.write_bytes(private + made.public_bytes(pem))
  return path


def test_a_site_that_moved_to_https_is_the_same_site_and_has_rules_of_its_own(
  tmp_path, monkeypatch
):
  path = certificate(tmp_path)
  tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  tls.load_cert_chain(path)
  secure = {
    '/': links('a', 'private'),
    '/a': 'x',
    '/robots.txt': 'User-agent: *\nDisallow: /private',
  }
  with Site(secure, tls=tls) as https, Site({'/': (301, {'Location': https.url}, '')}) as site:
    monkeypatch.setenv('SSL_CERT_FILE', str(path))
    report = crawl(site.url, tmp_path / 'a', delay=0)
    assert https.paths == ['/', '/a'] and report['skipped_by_robots'] == 1
    monkeypatch.delenv('SSL_CERT_FILE')
    with refused(https.url.rstrip('/')) as raised:
      crawl(https.url, tmp_path / 'b', delay=0, retries=0)
    assert 'certificate' in raised.value.value


# ---- Retries


def test_retries_what_may_pass_and_waits_as_told(tmp_path):
  pages = {
    '/': links('flaky', 'busy', 'many', 'dead', 'never', 'gone'),
    '/flaky': [(500, {}, 'oops'), 'fine'],
    '/busy': [(503, {'Retry-After': '7'}, 'later'), 'fine'],
    '/many': [(429, {'Retry-After': '3'}, 'later'), b'no HTTP', 'fine'],
    '/dead': (502, {}, 'always'),
    '/never': (429, {'Retry-After': '86400'}, 'no'),
    '/gone': (410, {}, 'for good'),
  }
  naps = Naps()
  with Site(pages) as site:
    report = crawl(site.url, tmp_path, delay=0, retries=2, sleep=naps)
  assert site.paths == [
    '/', '/flaky', '/flaky', '/busy', '/busy', '/many', '/many', '/many', '/dead', '/dead', '/dead',
    '/never', '/gone',
  ]  # fmt: skip
  assert naps == [0.5, 7, 3, 1, 0.5, 1]
  assert [s for _, s, _ in stored(tmp_path)] == [
    '200',
    '200',
    '200',
    '200',
    '502',
    '429',
    '410',
  ] and report['retried'] == 6
  assert report['faults'] == {'status 429': 1, 'status 502': 1}


@pytest.mark.parametrize('size', [4, 60])
def test_a_lost_host_stops_the_crawl_which_can_go_on(tmp_path, size):
  star = {'/': links(*range(1, size))} | {f'/{i}': f'page {i}' for i in range(1, size)}

  def last_words(handler):
    site.down = True
    return 'page 1'

  with Site(star | {'/1': last_words}) as site:
    with refused(site.url.rstrip('/'), allowed='answering any more') as raised:
      crawl(site.url, tmp_path, delay=0, retries=0)
    assert 'after 2 pages' in raised.value.value
  assert not (tmp_path / 'report.json').exists()
  # robots.txt, 2 pages, 2 or LOST failures, robots.txt again; perhaps a page asked for meanwhile
  assert {4: 6, 60: 9}[size] <= len(site.hits) <= {4: 6, 60: 10}[size]
  with Site(star) as again:
    assert crawl(again.url, tmp_path, delay=0)['pages'] == size
  assert len(again.paths) == size - 2


# ---- WARC, and going on after a kill


def test_records_say_how_the_body_was_sent_and_hold_it_decoded(tmp_path):
  page = (links('a') + 'long ' * 1000).encode()
  zipped = gzip.compress(page)
  headers = {'Content-Encoding': 'gzip', 'Content-Length': str(len(zipped)), 'X-Name': 'J\xfcrgen'}
  with Site({'/': (200, headers, zipped), '/a': 'x'}) as site:
    crawl(site.url, tmp_path, delay=0)
  _, record = next(records(tmp_path))
  http = record.http_headers
  assert (
    http.get_header('Content-Encoding') is None
    and http.get_header('X-Crawl-Content-Encoding') == 'gzip'
  )
  assert http.get_header('X-Crawl-Content-Length') == str(len(zipped))
  assert http.get_header('Content-Length') == str(len(page))
  _, request = next(records(tmp_path, 'request'))
  assert request.http_headers.get_header('Host') == site.url.split('/')[2]
  assert 'deepdive' in request.http_headers.get_header('User-Agent')
  first = next(read_pages(tmp_path / 'crawl-00000.warc.gz', 1_000_000))
  assert (first.status, first.content_type, first.body, first.fault) == (200, 'text/html', page, '')


def test_files_roll_over(tmp_path):
  with Site({'/': links('a'), '/a': 'x'}) as site:
    crawl(site.url, tmp_path, delay=0, file_bytes=1)
  assert sorted(path.name for path in tmp_path.glob('*.gz')) == [
    'crawl-00000.warc.gz',
    'crawl-00001.warc.gz',
  ]
  with open(tmp_path / 'crawl-00001.warc.gz', 'rb') as f:
    assert [record.rec_type for record in ArchiveIterator(f)] == ['warcinfo', 'response', 'request']


def command(site, out, *flags):
  return [sys.executable, '-m', 'data.crawl', site.url, f'--out={out}', '--delay=0', *flags]


def start(site, out):
  """Starts the command and waits for the request that the site holds."""
  process = subprocess.Popen(command(site, out), stderr=subprocess.DEVNULL)
  wait_for(site.held, process)
  return process


def wait_for(event, process):
  """Waits for an event that a process brings about. Fails if the process ends before."""
  while not event.wait(0.1):
    assert process.poll() is None or event.is_set(), f'ended with {process.returncode}'


@pytest.mark.slow
@pytest.mark.parametrize('hold', [2, 5, 19, 31])
def test_a_crawl_killed_at_any_moment_goes_on_to_the_same_pages(tmp_path, hold):
  with Site(tree()) as site:
    crawl(site.url, tmp_path / 'whole', delay=0)
  with Site(tree(), hold=hold) as site:
    process = start(site, tmp_path / 'cut')
    process.kill()
    process.wait()
  assert not (tmp_path / 'cut/report.json').exists()
  kept = {key for key, *_ in stored(tmp_path / 'cut')}
  assert hold - 3 <= len(kept) <= hold - 2  # without robots.txt, and the one that was held
  with Site(tree()) as site:
    report = crawl(site.url, tmp_path / 'cut', delay=0)
  assert stored(tmp_path / 'cut') == stored(tmp_path / 'whole')
  assert not kept & set(site.paths) and len(site.paths) == len(set(site.paths)) == 40 - len(kept)
  assert report['pages'] == 40


@pytest.mark.slow
@pytest.mark.parametrize(('signum', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_crawl_at_once_with_whole_files(tmp_path, signum, status):
  with Site(tree(), hold=9) as site:
    process = start(site, tmp_path)
    process.send_signal(signum)
    assert process.wait() == status
  assert not (tmp_path / 'report.json').exists() and len(stored(tmp_path)) == 7
  path = tmp_path / 'crawl-00000.warc.gz'
  assert intact_length(path) == path.stat().st_size


def test_a_signal_does_not_wait_for_the_pause_between_pages(tmp_path):
  asked = threading.Event()
  with Site(tree(3) | {'/robots.txt': lambda _: asked.set() or 'Crawl-delay: 100'}) as site:
    process = subprocess.Popen(command(site, tmp_path, '--delay=600'), stderr=subprocess.DEVNULL)
    wait_for(asked, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
  assert site.paths == [] and not (tmp_path / 'report.json').exists()


@pytest.mark.parametrize('keep', [0.0, 0.1, 0.5, 0.99])
def test_a_torn_record_is_cut_off(tmp_path, keep):
  with Site(tree(6)) as site:
    crawl(site.url, tmp_path, delay=0)
    whole = stored(tmp_path)
    path = tmp_path / 'crawl-00000.warc.gz'
    with open(path, 'rb') as f:
      iterator = ArchiveIterator(f)
      spans = []
      for record in iterator:
        record.raw_stream.read()
        spans.append((record.rec_type, iterator.get_record_offset(), iterator.get_record_length()))
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


@pytest.mark.slow
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
  with Site(tree(), hold=3) as site:
    process = start(site, tmp_path)
    with refused(tmp_path, f'process {process.pid} uses it'):
      crawl(site.url, tmp_path)
    process.kill()
    process.wait()


# ---- Faults of the user, and the door


def test_faults_of_the_user_are_named(tmp_path):
  for bad in (
    'ftp://host/',
    'nothing',
    'http://',
    'http://host:port/',
    'http://[',
    'http://h/' + 'x' * 3000,
  ):
    with pytest.raises(UserError) as raised:
      crawl(bad, tmp_path)
    assert raised.value.field == 'URL' and raised.value.value.startswith(repr(bad)[:80])
  with refused('exclude', '('):
    crawl('http://127.0.0.1/', tmp_path, exclude='(')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    url = f'http://127.0.0.1:{free.getsockname()[1]}'
    with refused(url, allowed='reachable') as raised:
      crawl(url, tmp_path / 'refused', retries=0)
    assert 'refused' in raised.value.value
  with Site(tree(3)) as site:
    crawl(site.url, tmp_path / 'a', delay=0)
    with pytest.raises(UserError) as raised:
      crawl(site.url.replace('127.0.0.1', 'localhost'), tmp_path / 'a')
    assert raised.value.field == 'host' and 'localhost' in raised.value.value
    assert '127.0.0.1' in raised.value.allowed
    site.pages['/robots.txt'] = 'User-agent: *\nDisallow: /'
    with refused(f'page to store of {site.url}') as raised:
      crawl(site.url, tmp_path / 'c')
    assert '1 forbidden by robots.txt' in raised.value.message


def test_the_door_prints_a_summary(tmp_path, monkeypatch, capsys):
  with Site(tree(3)) as site:
    monkeypatch.setattr(sys, 'argv', command(site, tmp_path)[2:])
    door.main()
  assert capsys.readouterr().out.startswith('3 pages, ')
