"""Filters: how a page is judged, what drops it, and the record of every page that is dropped.

A document's metadata contains its `figures`, {'rule: what was measured': [value, low, high]}, until
the document is dropped or written. The filters themselves are in blocks.py.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator
from html import unescape
from typing import NamedTuple

from datatrove.data import Document
from datatrove.io import DataFolder
from datatrove.pipeline.filters.base_filter import BaseFilter

from data.web import personal, rules
from data.web.limits import PageError, TimeLimit, time_limit
from data.web.line_files import open_lines, shard
from lm.base.errors import UserError

Documents = Iterable[Document]
_SHOWN = 200  # characters of a page's text, and of an error, that are recorded


class Context(NamedTuple):
  """What all filters of a run have in common."""

  folder: DataFolder  # folder of the record of pages
  pii: bool  # whether to hide personal data in what is written
  step_seconds: float  # processor time that a step may spend on a page; 0: no limit

  def shown(self, document: Document, detail: str) -> dict:
    """Returns what may be written about a page: its URL, the detail and the start of its text."""
    text = document.text or _readable(document.metadata.get('html', b'')[: 10 * _SHOWN])
    # Addresses are hidden before the text is cut: half an address is personal data, too.
    url, text = document.metadata['url'], text[: 10 * _SHOWN]
    if self.pii:
      url, detail = personal.hide_in_url(url), personal.hide_in_url(detail)
      text = personal.hide(text)
    return {'url': url, 'detail': detail, 'text': text[:_SHOWN]}


def _readable(body: bytes) -> str:
  """Returns a raw body as text without encodings that could hide addresses.

  These are the zeros of UTF-16, character references and JSON's escapes.
  """
  text = body.decode('utf-8', 'replace').replace('\0', '')
  return unescape(re.sub(r'\\u00([2-7][0-9a-fA-F])', lambda m: chr(int(m[1], 16)), text))


class Record:
  """Writes a JSON line about each page given to it. datatrove calls this an exclusion writer.

  There is one file for each step and task.
  """

  def __init__(self, context: Context, step: str):
    self.context, self.step = context, step

  def __enter__(self) -> 'Record':
    self.stack, self.append = contextlib.ExitStack(), None
    return self

  def write(self, document: Document, rank: int) -> None:
    """Appends a line about a page to the file of this step and task."""
    if not self.append:
      self.append = self.stack.enter_context(
        open_lines(self.context.folder, f'{self.step}/{shard(rank)}')
      )
    meta = document.metadata
    shown = self.context.shown(document, meta.get('detail', ''))
    self.append(
      {
        'id': document.id,
        'url': shown['url'],
        'rule': meta.get('filter_reason', ''),
        'detail': shown['detail'],
        'figures': meta.get('figures', {}),
        'text': shown['text'],
      }
    )

  def __exit__(self, *_) -> None:
    self.stack.close()
    del self.stack, self.append


class Filter(BaseFilter):
  """A step that handles one page at a time; `judge` returns what drops it, or None.

  The record names the page, the rule and its figure. A page on which a step fails or takes too long
  is dropped for that, and the run continues. This is decided here and nowhere else.
  """

  type = 'filter'

  def __init__(self, name: str, context: Context):
    self.name, self.context = name, context
    super().__init__(Record(context, name))

  def load(self) -> None:
    """Loads what `judge` needs, so that the time limit of the first page does not include it."""

  def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    self.load()
    yield from super().run(data, rank, world_size)

  def judge(self, document: Document) -> rules.Verdict:
    """Returns the rule that drops a page and its figure, or None to keep the page."""
    raise NotImplementedError

  def filter(self, doc: Document) -> bool | tuple[bool, str]:
    size = byte_size(doc)
    verdict = self._guarded(doc, size)
    if not verdict:
      return True
    rule, doc.metadata['detail'] = verdict
    self.stat_update(f'lost_{rule}', value=size)
    return False, rule

  def _guarded(self, document: Document, size: int) -> rules.Verdict:
    try:
      with time_limit(self.context.step_seconds):
        return self.judge(document)
    except TimeLimit:
      return (
        f'{self.name}_timeout',
        f'more than {self.context.step_seconds:g} s of processor time, for {size:,} bytes',
      )
    # These come from the settings, the installation or the machine, not from the page.
    except (UserError, ImportError, OSError):
      raise
    except PageError as error:
      return f'{self.name}_failed', str(error)[:_SHOWN]
    except Exception as error:  # noqa: BLE001  any other error drops the page
      return f'{self.name}_failed', f'{type(error).__name__}: {error}'[:_SHOWN]

  def update_doc_stats(self, document: Document) -> None:
    self.stat_update('bytes', value=byte_size(document))


def byte_size(document: Document) -> int:
  """Returns the size of a page at this step in bytes: of its body, or of its text if extracted."""
  html = document.metadata.get('html')
  return len(document.text.encode(errors='replace')) if html is None else len(html)
