"""Reads from a page what a crawler needs: its links, and whether it may be stored and followed."""

import contextlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from lxml import etree

MOST_LINKS = 20_000  # read from one page; further links are ignored
_LINKS = {'a': 'href', 'area': 'href', 'frame': 'src', 'iframe': 'src'}
_CHARSET = re.compile(rb'charset\s*=\s*["\']?\s*([\w.:-]+)', re.IGNORECASE)
# Charsets that do not contain ASCII: a page of ASCII bytes that declares one is mistaken.
_WIDE = re.compile(r'utf-?(16|32|7)|ucs|unicode', re.IGNORECASE)
# Rules of X-Robots-Tag that have a value after a colon. Any other name before a colon is a robot.
_WITH_VALUE = ('unavailable_after', 'max-snippet', 'max-image-preview', 'max-video-preview')


class Rules(NamedTuple):
  """What a page allows: storing it (`index`), and following its links (`follow`)."""

  index: bool = True
  follow: bool = True

  def __and__(self, other: 'Rules') -> 'Rules':
    return Rules(self.index and other.index, self.follow and other.follow)


class Reading(NamedTuple):
  """The links of a page as written, its base URL ('' if it declares none), and its rules."""

  links: list[str]
  base: str
  rules: Rules


def _rules(words: Iterable[str]) -> Rules:
  found = {word.strip() for word in words}
  return Rules(not found & {'noindex', 'none'}, not found & {'nofollow', 'none'})


def header_rules(values: Iterable[bytes], robot: str) -> Rules:
  """Returns the rules of X-Robots-Tag headers; rules for another robot are ignored.

  Args:
    values: header values as sent, for example b'googlebot: noindex, nofollow'.
    robot: name of this crawler in lower case.
  """
  words = []
  for value in values:
    named = True  # whether the rules that follow address this crawler
    for part in value.decode('latin-1').lower().split(','):
      name, colon, rest = part.partition(':')
      if colon and name.strip() not in _WITH_VALUE:
        named, part = name.strip() == robot, rest
      if named:
        words.append(part)
  return _rules(words)


class _Collector:
  """Collects what is needed from start tags. No tree is built, so a deep page costs no memory."""

  def __init__(self, robot: str):
    self.robot = robot
    self.links: dict[str, None] = {}  # an ordered set
    self.base = ''
    self.rules = Rules()

  def start(self, tag, attributes) -> None:
    if tag in _LINKS:
      target = attributes.get(_LINKS[tag])
      allowed = 'nofollow' not in attributes.get('rel', '').lower()
      if target and allowed and len(self.links) < MOST_LINKS:
        self.links[target.partition('#')[0]] = None
    elif tag == 'base':
      self.base = self.base or attributes.get('href', '')
    elif tag == 'meta' and attributes.get('name', '').strip().lower() in ('robots', self.robot):
      self.rules &= _rules(attributes.get('content', '').lower().split(','))

  def close(self) -> None:
    pass


def _charset(content_type: bytes, body: bytes) -> str | None:
  """Returns the charset that a page declares, else UTF-8 if it is valid, else None.

  With None, libxml2 guesses the charset.
  """
  if match := _CHARSET.search(content_type) or _CHARSET.search(body[:1024]):
    name = match[1].decode('ascii', 'replace')
    return 'utf-8' if _WIDE.match(name) and b'\0' not in body[:256] else name
  with contextlib.suppress(UnicodeDecodeError):
    body.decode('utf-8')
    return 'utf-8'
  return None


def read(content_type: bytes, body: bytes, robot: str) -> Reading:
  """Returns the links and rules of an HTML page, however malformed or wrongly encoded.

  Args:
    content_type: value of the header as sent.
    body: decoded bytes of the page.
    robot: name of this crawler in lower case, which <meta name="..."> may address.
  """
  collector = _Collector(robot)
  try:
    parser = etree.HTMLParser(target=collector, encoding=_charset(content_type, body))
  except LookupError:  # a charset that libxml2 does not know
    parser = etree.HTMLParser(target=collector)
  # An empty page or one that ends in the middle raises: what came before the error counts.
  with contextlib.suppress(etree.LxmlError):
    etree.fromstring(body, parser)
  return Reading(list(collector.links), collector.base, collector.rules)
