"""Pages are read for their links, however broken they are."""

import pytest

from data.crawling import markup
from data.crawling.markup import Rules


def read(body, kind=b'text/html'):
  return markup.read(kind, body, 'deepdive-crawl')


@pytest.mark.parametrize(
  ('body', 'kind', 'expected'),
  [
    (b'<![ if gte mso 9]><a href="/x">', b'text/html', ['/x']),
    (b'<a href=/a>\x00<a href="/b\x00c"><a href="/d', b'text/html', ['/a', '/b\ufffdc']),
    ('<a href="/ü"><a href=/b>'.encode('latin-1'), b'; charset=iso-8859-1', ['/ü', '/b']),
    ('<a href="/ü"><a href=/b>'.encode('latin-1'), b'text/html', ['/ü', '/b']),
    ('<a href="/ü"><a href=/b>'.encode('latin-1'), b'text/html; charset=utf-8', ['/\ufffd', '/b']),
    ('<a href="/ü"><a href=/b>'.encode(), b'text/html', ['/ü', '/b']),
    ('<a href="/ü">'.encode('utf-16'), b'text/html', ['/ü']),
    ('<meta charset="shift_jis"><a href="/日">'.encode('shift_jis'), b'text/html', ['/日']),
    (b'<a href="/\\ud800"><a href=/b>', b'text/html; charset=unicode_escape', ['/\\ud800', '/b']),
    (b'<a href=/b>', b'text/html; charset="no-such-thing"', ['/b']),
    (b'<a href=/b>', b'text/html; charset=utf-16', ['/b']),
    (b'<meta charset=utf-7><a href=/b>', b'text/html', ['/b']),
    (b'<meta charset=utf-16le><a href=/b>', b'text/html', ['/b']),
    (b'<a href=/b>', b'text/html; charset=\xff\xfe', ['/b']),
    (b'', b'text/html', []),
    (b'<a href="/1&amp;2"><A HREF=/x><area href=/m><img src=/i>', b'', ['/1&2', '/x', '/m']),
    (b'<iframe src=/f></iframe><a name=n><a href=/yes#part>', b'', ['/f', '/yes']),
    (b'<!-- <a href=/no> --><script>"<a href=/no>"</script>', b'', []),
    (b'<a rel="NoFollow me" href=/no><a rel=next href=/yes>', b'', ['/yes']),
  ],
)  # fmt: skip
def test_links_of_broken_pages_in_wrong_charsets(body, kind, expected):
  assert read(body, kind).links == expected


def test_the_first_base_counts_and_the_number_of_links_is_bounded():
  assert read(b'<base href="http://["><base href="/b"><a href=x>').base == 'http://['
  page = b''.join(b'<a href=/%d>' % i for i in range(markup.MOST_LINKS + 10))
  assert len(read(page).links) == markup.MOST_LINKS


@pytest.mark.parametrize(
  'body',
  [b'<div>' * 200_000, b'<' * 1_000_000, b'<a href="' + b'x' * 5_000_000, b'<font><p>' * 50_000],
)
def test_deep_and_endless_pages_are_survived(body):
  assert read(body).rules == Rules()


@pytest.mark.parametrize(
  ('page', 'index', 'follow'),
  [
    ('<meta name=robots content="noindex">', False, True),
    ('<META NAME="ROBOTS" CONTENT="NOFOLLOW, NOARCHIVE">', True, False),
    ('<meta name="robots" content="none">', False, False),
    (
      '<meta name="robots" content="index,follow"><meta name="robots" content="noindex">',
      False,
      True,
    ),
    ('<meta name="googlebot" content="none"><meta name="description" content="none">', True, True),
    ('<meta name="deepdive-crawl" content="nofollow">', True, False),
  ],
)
def test_meta_robots(page, index, follow):
  assert read(page.encode()).rules == Rules(index, follow)


@pytest.mark.parametrize(
  ('values', 'index', 'follow'),
  [
    ([], True, True),
    ([b'noindex, nofollow'], False, False),
    ([b'noarchive', b'NoIndex'], False, True),
    ([b'googlebot: noindex, nofollow'], True, True),
    ([b'googlebot: noindex, deepdive-crawl: nofollow'], True, False),
    ([b'unavailable_after: 25 Jun 2030 15:00:00 PST, nofollow'], True, False),
    ([b'max-snippet: 50, none'], False, False),
    ([b'\xff\xfe:'], True, True),
  ],
)
def test_x_robots_tag(values, index, follow):
  assert markup.header_rules(values, 'deepdive-crawl') == Rules(index, follow)
