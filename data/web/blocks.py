"""The steps of the web pipeline as datatrove blocks: readers, filters that put every page they drop on record, writers.

A document's metadata carry its `figures`, {'rule: what was measured': [value, low, high]}, until it is dropped or written.
"""

import contextlib
import functools
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator

from datatrove.data import Document
from datatrove.io import DataFolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.filters.url_filter import URLFilter
from datatrove.pipeline.formatters.pii import PIIFormatter
from tldextract import TLDExtract

from data.web import dedup, language, rules
from data.web.decontaminate import Items
from data.web.extract import TimeLimit, extract, time_limit
from data.web.read import RawPage, read_pages
from lm import progress

Documents = Iterable[Document]
# Reserved for examples: RFC 2606, RFC 5737. (datatrove's own addresses are not, and depend on what was replaced before.)
EMAIL, IP_ADDRESS = 'email@example.com', '192.0.2.1'
_IP_ADDRESS = re.compile(r'(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)')


@contextlib.contextmanager
def open_lines(folder: DataFolder, name: str) -> Iterator[Callable[[dict], object]]:
  """Yields a function that appends a line of JSON to a file, packed if its name says so: the same bytes at any time."""
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(folder.open(name, 'wb'))
    if name.endswith('.gz'):
      file = stack.enter_context(gzip.GzipFile('', 'wb', 6, file, mtime=0))
    yield lambda line: file.write(json.dumps(line, ensure_ascii=False).encode(errors='replace') + b'\n')


def read_lines(folder: DataFolder, name: str) -> Iterator[dict]:
  """The objects of a file that `open_lines` wrote."""
  with folder.open(name, 'rb') as raw, gzip.open(raw) if name.endswith('.gz') else raw as file:
    yield from map(json.loads, file)


def write_text(folder: DataFolder, name: str, text: str) -> None:
  """Writes a file whole or not at all, in UTF-8."""
  with folder.open(f'part-{name}', 'wb') as file:
    file.write(text.encode())
  folder.mv(f'part-{name}', name)


def write_json(folder: DataFolder, name: str, value: dict) -> None:
  write_text(folder, name, json.dumps(value, indent=2))


def shard(rank: int) -> str:
  return f'{rank:05d}.jsonl.gz'


class Record:
  """Writes a line about each page given to it, by step and task. What datatrove calls an exclusion writer."""

  def __init__(self, folder: DataFolder, step: str):
    self.folder, self.step = folder, step

  def __enter__(self) -> 'Record':
    self.stack, self.append = contextlib.ExitStack(), None
    return self

  def write(self, document: Document, rank: int) -> None:
    if not self.append:
      self.append = self.stack.enter_context(open_lines(self.folder, f'{self.step}/{shard(rank)}'))
    meta = document.metadata
    text = document.text or meta.get('html', b'')[:1000].decode('utf-8', 'replace')
    line = {'id': document.id, 'url': meta['url'], 'rule': meta.get('filter_reason', ''), 'detail': meta.get('detail', '')}
    self.append(line | {'figures': meta.get('figures', {}), 'text': text[:200]})

  def __exit__(self, *_) -> None:
    self.stack.close()
    del self.stack, self.append


class Filter(BaseFilter):
  """A rule as a block: `judge` says what drops a page. The record names the page, the rule and its figure."""

  type = 'filter'

  def __init__(self, name: str, record: DataFolder):
    self.name = name
    super().__init__(Record(record, name))

  def judge(self, document: Document) -> rules.Verdict:
    raise NotImplementedError

  def filter(self, doc: Document) -> bool | tuple[bool, str]:
    size = _size(doc)
    verdict = self.judge(doc)
    if not verdict:
      return True
    rule, doc.metadata['detail'] = verdict
    self.stat_update(f'lost_{rule}', value=size)
    return False, rule

  def update_doc_stats(self, document: Document) -> None:
    self.stat_update('bytes', value=_size(document))


def _size(document: Document) -> int:
  """Bytes of the page as it is at this step."""
  html = document.metadata.get('html')
  return len(document.text.encode(errors='replace')) if html is None else len(html)


class ReadWarc(PipelineStep):
  """Every response of the task's WARC files, damaged ones included: `Usable` sees to them."""

  type, name = 'reader', 'read'

  def __init__(self, paths: list[str]):
    super().__init__()
    self.paths = paths

  def run(self, data=None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    pages = (page for path in self.paths[rank::world_size] for page in read_pages(path))
    bar = progress.bar(desc='pages', unit='page', disable=world_size > 1)
    while page := self._next(pages):
      bar.update()
      self.stat_update('forwarded')
      self.stat_update('bytes', value=len(page.body))
      fields = {'url': page.url, 'status': page.status, 'content_type': page.content_type, 'fault': page.fault}
      name = hashlib.sha256(f'{page.url}\n'.encode(errors='replace') + page.body).hexdigest()[:16]
      yield Document('', name, metadata=fields | {'html': page.body, 'figures': {}})

  def _next(self, pages: Iterator[RawPage]) -> RawPage | None:
    with self.track_time():
      return next(pages, None)


class Usable(Filter):
  """Drops records that are damaged, not answered with 200, or not HTML."""

  def judge(self, document: Document) -> rules.Verdict:
    fault, status, kind = (document.metadata.pop(name) for name in ('fault', 'status', 'content_type'))
    if fault:
      return 'damaged', fault
    if status != 200:
      return 'status', str(status)
    if 'html' not in kind.lower():
      return 'not_html', kind or 'no content type'
    document.metadata['content_type'] = kind
    return None


@functools.cache
def url_filter(soft_words: int) -> URLFilter:
  """Loaded once a process: five million names, 800 MB."""
  lists = URLFilter(soft_words)
  lists.tldextractor = TLDExtract(cache_dir=None, suffix_list_urls=())  # the list in its wheel: no network
  lists.download_data()  # unpacks the wheel's lists into the cache folder of huggingface_hub
  return lists


class UrlLists(Filter):
  """datatrove's URL filter: lists of domains, subdomains, URLs and words."""

  def __init__(self, name: str, record: DataFolder, soft_words: int):
    super().__init__(name, record)
    self.soft_words = soft_words

  def judge(self, document: Document) -> rules.Verdict:
    if not document.metadata['url']:
      return 'url_missing', 'the record has no WARC-Target-URI'
    kept = url_filter(self.soft_words).filter(document)
    return None if kept is True else (f'url_{kept[1]}', document.metadata['url'])


class Extract(Filter):
  """HTML to title and text; drops pages without text, and those that take more than `seconds`; 0: no limit."""

  def __init__(self, name: str, record: DataFolder, extractor: str, seconds: float):
    super().__init__(name, record)
    self.extractor, self.seconds = extractor, seconds

  def judge(self, document: Document) -> rules.Verdict:
    html, kind = document.metadata.pop('html'), document.metadata.pop('content_type')
    try:
      with time_limit(self.seconds):
        document.metadata['title'], document.text = extract(html, kind, self.extractor)
    except TimeLimit:
      return 'extract_timeout', f'more than {self.seconds:g} s, of {len(html):,} bytes'
    return None if document.text else ('empty', 'no text')


class Language(Filter):
  """Keeps the languages of `wanted`, each above its least score."""

  def __init__(self, name: str, record: DataFolder, wanted: dict[str, float]):
    super().__init__(name, record)
    self.wanted = wanted

  def judge(self, document: Document) -> rules.Verdict:
    code, score = language.detect(document.text)
    self.stat_update(f'language_{code}')
    document.metadata |= {'language': code, 'language_score': round(score, 4)}
    document.metadata['figures'][f'language: {code}'] = [round(score, 4), self.wanted.get(code), None]
    return None if code in self.wanted and score > self.wanted[code] else ('language', f'{code} {score:.2f}')


class CutPassages(Filter):
  """Cuts runs of lines that another page of the task has too; drops pages that are little else."""

  def __init__(self, name: str, record: DataFolder, lines: int, max_share: float):
    super().__init__(name, record)
    self.lines, self.max_share = lines, max_share

  def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    documents = list(data)
    with self.track_time():
      texts = dedup.remove_repeated_passages([document.text for document in documents], self.lines)
    for document, text in zip(documents, texts, strict=True):
      document.metadata['remaining'] = text
    yield from super().run(documents, rank, world_size)

  def judge(self, document: Document) -> rules.Verdict:
    text = document.metadata.pop('remaining')
    share = 1 - len(text) / len(document.text)
    document.metadata['figures']['repeated_passages: share that stands elsewhere'] = [round(share, 4), None, self.max_share]
    if share > self.max_share:
      return 'repeated_passages', f'{share:.0%} stands elsewhere'
    document.text = text
    return None


class Quality(Filter):
  """A rule of data/web/rules.py with its thresholds; `cut`, if given, takes out lines before."""

  def __init__(self, name: str, record: DataFolder, rule: Callable, thresholds: dict, cut: Callable | None = None):
    super().__init__(name, record)
    self.rule, self.thresholds, self.cut = rule, thresholds, cut

  def judge(self, document: Document) -> rules.Verdict:
    if self.cut:
      document.text = self.cut(document.text)
    return rules.judge(self.rule(document.text, **self.thresholds), document.metadata['figures'])


class Decontaminate(Filter):
  """Drops pages that share an n-gram of words with an evaluation item."""

  def __init__(self, name: str, record: DataFolder, items: Items):
    super().__init__(name, record)
    self.items = items

  def judge(self, document: Document) -> rules.Verdict:
    shared = self.items.shared(document.text)
    return ('contaminated', shared) if shared else None


class Pii(PIIFormatter):
  """datatrove's: e-mail addresses and public IP addresses give way to reserved ones. Longer numbers are no addresses."""

  type, name = 'formatter', 'pii'

  def __init__(self):
    super().__init__(email_replacement=EMAIL, ip_replacement=IP_ADDRESS)
    self.ip_replacer.regex = _IP_ADDRESS


class WriteLines(PipelineStep):
  """Writes the task's documents to one file, also when there are none, with their metadata as they are; yields them."""

  type, name = 'writer', 'write'

  def __init__(self, folder: DataFolder):
    super().__init__()
    self.folder = folder

  def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    with open_lines(self.folder, shard(rank)) as append:
      for document in data:
        append({'id': document.id, 'text': document.text, 'metadata': document.metadata})
        yield document


class ReadLines(PipelineStep):
  """Reads the task's file of `WriteLines`."""

  type, name = 'reader', 'read again'

  def __init__(self, folder: DataFolder):
    super().__init__()
    self.folder = folder

  def run(self, data=None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    for line in read_lines(self.folder, shard(rank)):
      yield Document(**line)


class WriteDocuments(PipelineStep):
  """Writes the clean documents, the file whole or not at all, and for each a line on record with its figures."""

  type, name = 'writer', 'documents'

  def __init__(self, folder: DataFolder, record: DataFolder):
    super().__init__()
    self.folder, self.record = folder, Record(record, 'kept')

  def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    name = documents_name(rank, world_size)
    with open_lines(self.folder, f'part-{name}') as append, self.record as record:
      for document in data:
        self.stat_update('forwarded')
        self.stat_update('bytes', value=_size(document))
        record.write(document, rank)
        del document.metadata['figures']
        append({'id': document.id, 'text': document.text, 'metadata': document.metadata})
        yield document
    self.folder.mv(f'part-{name}', name)


def documents_name(rank: int, tasks: int) -> str:
  """The file of a task's clean documents. `documents*.jsonl*` matches them all, and nothing else."""
  return 'documents.jsonl' if tasks == 1 else f'documents-{rank:05d}-of-{tasks:05d}.jsonl.gz'
