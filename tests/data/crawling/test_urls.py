"""Addresses in one spelling, whatever pages write."""

import pytest

from data.crawling.urls import normalise, page_id, same_site
from lm.base.errors import UserError


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
    ('http://müller.de', '', 'http://xn--mller-kva.de/'),
    ('/a\x00b', 'http://h/', 'http://h/a%00b'),
  ],
)
def test_normalise(url, base, expected):
  assert normalise(url, base) == expected


@pytest.mark.parametrize(
  'url',
  [
    'http://[', 'http://[::1', 'http://a]b/', 'http://m\ufffdller.de/', 'http://a..ü/', '//',
    'http://' + 'ü' * 70 + '.de', 'http://h:99999999/', 'http://h:x/', 'javascript:alert(1)',
    'data:text/html,<a>', 'mailto:a@b.c', 'http:///x', 'http://', '/\ud800', 'http://\ud800/',
    'http://h/' + 'x' * 1_000_000, 'http://h/' + 'ü' * 1000, 'http://\x00/', 'https:?',
  ],
)  # fmt: skip
def test_what_is_no_address_is_one_kind_of_error(url):
  try:
    assert len(normalise(url, 'http://h/')) < 2084
  except UserError as error:
    assert len(str(error)) < 300


def test_http_and_https_of_a_host_are_one_site_and_other_ports_are_not():
  assert same_site('http://h/a', 'https://h/b') and same_site('http://h:8000/', 'http://h:8000/x')
  assert not same_site('http://h/', 'http://h:8000/') and not same_site('http://h/', 'http://g/')
  assert page_id('http://h:1/a?b') == page_id('http://h:2/a?b') != page_id('https://h:1/a?b')
