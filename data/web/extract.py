"""HTML to readable text."""

import codecs
import contextlib
import re
import signal
from collections.abc import Iterator

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding
from resiliparse.parse.html import HTMLTree

from lm import errors

EXTRACTORS = ('resiliparse', 'trafilatura')
# A link to a file of the server's own disk tells about the server, not about the page.
_FILE_LINK = re.compile(rb'<a href="file:[^"]*">.*?</a>', re.S)
_CHARSET = re.compile(r'charset="?([\w-]+)', re.I)
_CONTROL = re.compile(r'[\x00-\x08\x0b-\x1f\x7f]')


class TimeLimit(BaseException):
  """Time is up. Not an Exception: extractors catch those."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
  """Raises TimeLimit when the block has used so many seconds of processor time, whatever else the machine does; 0: never.

  By a signal, so in the main thread only. Python code and its `re` heed it at once; a call into lxml or resiliparse is not
  cut, but ends in TimeLimit when it returns.
  """
  if not seconds:
    yield
    return

  def stop(*_) -> None:
    raise TimeLimit

  before = signal.signal(signal.SIGVTALRM, stop)
  signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


def extract(body: bytes, content_type: str, extractor: str = 'resiliparse') -> tuple[str, str]:
  """Returns (title, text) of an HTML page; both may be empty.

  resiliparse keeps every line of the main content as it stands (indentation, tables and definition lists of reference
  pages); trafilatura (precision on, as in FineWeb) is the stricter judge of what is an article. Raises UserError for
  another extractor.
  """
  if extractor not in EXTRACTORS:
    raise errors.unknown('extractor', extractor, EXTRACTORS)
  body = _FILE_LINK.sub(b'', body)
  tree = HTMLTree.parse_from_bytes(body, _encoding(body, content_type))
  title = ' '.join((tree.title or '').split())
  if extractor == 'resiliparse':
    text = extract_plain_text(tree, main_content=True, alt_texts=False)
  else:
    import trafilatura  # a second to import, and most runs do not

    text = trafilatura.extract(body, favor_precision=True, include_comments=False, deduplicate=False) or ''
  return title, tidy(text)


def _encoding(body: bytes, content_type: str) -> str:
  """The charset of the HTTP header, else of the page, else the likeliest one, if Python knows it."""
  named = _CHARSET.search(content_type) or _CHARSET.search(body[:1024].decode('latin-1'))
  try:
    return codecs.lookup(named[1]).name if named else detect_encoding(body)
  except LookupError:
    return detect_encoding(body)


def tidy(text: str) -> str:
  """Plain spaces, no trailing ones, no control characters, at most one blank line in a row."""
  text = _CONTROL.sub('', text.replace('\r\n', '\n').replace('\r', '\n').replace('\xa0', ' '))
  text = re.sub(r' *\t[ \t]*', ' ', text)
  text = re.sub(r'[^\S\n]+\n', '\n', text)
  return re.sub(r'\n{3,}', '\n\n', text).strip('\n').rstrip()
