"""Extracts the readable text of HTML pages."""

import codecs
import contextlib
import logging
import re

from lxml import etree
from lxml.html import HtmlElement
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

from lm.base import errors

EXTRACTORS = ('trafilatura', 'trafilatura_fast', 'resiliparse')
# A link to a file of the server's own disk tells about the server, not about the page.
_FILE_LINK = re.compile(rb'<a href="file:[^"<]*">[^<]*</a>')
_CHARSET = re.compile(r'charset\s{0,9}=\s{0,9}["\']?([\w-]+)', re.I)
_CONTROL = re.compile(r'[\x00-\x08\x0b-\x1f\x7f]')
_TABS = re.compile(r'[ \t]+')
_NOT_XML = bytes({*range(32), 127} - {*b'\t\n\r'})
# trafilatura warns of each page without text; the record of pages says so already.
logging.getLogger('trafilatura').setLevel(logging.CRITICAL)
# trafilatura's own rules have missed the article if they find less than this share of resiliparse's
# text, and of its paragraphs.
_MISSED = 0.5
_TITLE = 1000  # characters of a title that are kept
_PARAGRAPH = 150  # characters from which a line is a paragraph, not a teaser or a comment


def extract(body: bytes, content_type: str, extractor: str) -> tuple[str, str]:
  """Returns (title, text) of an HTML page; both may be empty.

  Neither contains surrogates or control characters.

  Args:
    body: the page as sent.
    content_type: value of the HTTP header, or ''.
    extractor: the algorithm.
      trafilatura: FineWeb's choice, with precision favoured (Barbaresi 2021, ACL demos). It applies
        its own rules, then those of readability and jusText where they find much more.
      trafilatura_fast: trafilatura's own rules alone, and resiliparse's text where they find less
        than half of it.
      resiliparse: every line of the main content as it stands, with the indentation, tables and
        definition lists of reference pages.

  Raises UserError for another extractor.
  """
  if extractor not in EXTRACTORS:
    raise errors.unknown('extractor', extractor, EXTRACTORS)
  page = decode(_FILE_LINK.sub(b'', body), content_type)
  if extractor == 'resiliparse':
    tree = HTMLTree.parse(page)
    title, text = tree.title, _resiliparse(tree)
  else:
    title, text = _trafilatura(page, extractor == 'trafilatura_fast')
  return ' '.join(tidy(title or '').split())[:_TITLE], tidy(text)


def _resiliparse(tree: HTMLTree) -> str:
  return extract_plain_text(tree, main_content=True, alt_texts=False, comments=False)


def _trafilatura(page: str, fast: bool) -> tuple[str | None, str]:
  """Returns the title and the text that trafilatura finds.

  Its input is a tree without the elements that it would remove first, which halves the time of what
  follows.
  """
  import trafilatura  # takes a second to import, and not every run needs it
  from trafilatura.settings import MANUALLY_CLEANED

  # This looks up the class of elements in a table. lxml.html's own parser calls a Python function
  # for each element.
  parser = etree.HTMLParser(
    encoding='utf-8', collect_ids=False, remove_comments=True, remove_pis=True
  )
  parser.set_element_class_lookup(etree.ElementDefaultClassLookup(element=HtmlElement))
  try:
    tree = etree.fromstring(page.encode('utf-8', 'replace').translate(None, _NOT_XML), parser)
  except etree.XMLSyntaxError:  # the page is empty
    tree = None
  if tree is None:
    return None, ''
  title = tree.findtext('.//title')
  etree.strip_elements(tree, 'head', 'script', 'style', 'noscript', with_tail=False)
  whole = len(' '.join(tree.text_content().split())) if fast else 0
  # trafilatura reads forms, figures and formulas before it removes them.
  etree.strip_elements(tree, *set(MANUALLY_CLEANED) - {'form', 'figure', 'math'}, with_tail=False)
  text = trafilatura.extract(
    tree, fast=fast, favor_precision=True, include_comments=False, deduplicate=False
  )
  text = text or ''
  # If trafilatura found most of the page's text, resiliparse cannot find much more.
  if len(text) < _MISSED * whole:
    other = _resiliparse(HTMLTree.parse(page))
    if len(text) < _MISSED * len(other) and _in_paragraphs(text) <= _MISSED * _in_paragraphs(other):
      text = other
  return title, text


def _in_paragraphs(text: str) -> int:
  """Returns the number of characters in lines that are long enough to be paragraphs."""
  return sum(len(line) for line in text.split('\n') if len(line) >= _PARAGRAPH)


def decode(body: bytes, content_type: str) -> str:
  """Returns a page as text, with its markup and without a byte order mark.

  A page is decoded as UTF-8 if it is valid; else by the charset of the HTTP header, else by that of
  the page, if browsers know it; else by a guess. Text in another encoding with bytes over 127 is
  never valid UTF-8 by chance, and labels are often wrong. Python's names are not used, because it
  has codecs that are not charsets of the web and that produce surrogates or worse: unicode_escape,
  utf-7, idna, punycode.
  """
  if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    return body.decode('utf-16', 'replace')
  if not body.isascii():
    with contextlib.suppress(UnicodeDecodeError):
      return body.decode().removeprefix('\ufeff')
  sent, declared = _charset(content_type), _charset(body[:1024].decode('latin-1'))
  # The declaration of a page in UTF-16 could not have been read here (HTML standard, 13.2.3.2).
  if declared and declared.startswith('utf-16'):
    declared = None
  return body.decode(sent or declared or detect_encoding(body), 'replace')


def _charset(text: str) -> str | None:
  """Returns Python's name of the charset that a header or the head of a page declares, or None.

  None is returned for a charset that browsers do not know.
  """
  named = _CHARSET.search(text)
  return map_encoding_to_html5(named[1], fallback_utf8=False) if named else None


def tidy(text: str) -> str:
  """Returns text with plain spaces, at most one blank line in a row and no control characters."""
  text = _CONTROL.sub('', text.replace('\r\n', '\n').replace('\r', '\n').replace('\xa0', ' '))
  if '\t' in text:
    text = _TABS.sub(lambda found: ' ' if '\t' in found[0] else found[0], text)
  text = '\n'.join(map(str.rstrip, text.split('\n')))
  return re.sub(r'\n{3,}', '\n\n', text).strip('\n')
