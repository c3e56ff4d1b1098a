"""The steps of the web pipeline as datatrove blocks: readers, filters and writers.

filtering.py says how a filter judges a page and records it.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator

from datatrove.data import Document
from datatrove.io import DataFolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.url_filter import URLFilter
from tldextract import TLDExtract

from data.web import language, minhash, personal, rules
from data.web.decontaminate import Items
from data.web.extract import extract
from data.web.filtering import Context, Documents, Filter, Record, byte_size
from data.web.limits import Sandbox
from data.web.line_files import documents_name, open_lines, read_lines, shard
from data.web.read import RawPage, read_pages
from lm.base import progress


class ReadWarc(PipelineStep):
  """Reads every response of the task's WARC files, even damaged ones, which `Usable` drops."""

  type, name = 'reader', 'read'

  def __init__(self, paths: list[str], max_bytes: int):
    super().__init__()
    self.paths, self.max_bytes = paths, max_bytes

  def run(self, data=None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    pages = (
      page for path in self.paths[rank::world_size] for page in read_pages(path, self.max_bytes)
    )
    bar = progress.bar(desc='pages', unit='page', disable=world_size > 1)
    while page := self._next(pages):
      bar.update()
      self.stat_update('forwarded')
      self.stat_update('bytes', value=len(page.body))
      fields = {
        'url': page.url,
        'status': page.status,
        'content_type': page.content_type,
        'fault': page.fault,
      }
      name = hashlib.sha256(f'{page.url}\n'.encode(errors='replace') + page.body).hexdigest()[:16]
      yield Document('', name, metadata=fields | {'html': page.body, 'figures': {}})

  def _next(self, pages: Iterator[RawPage]) -> RawPage | None:
    with self.track_time():
      return next(pages, None)


class Usable(Filter):
  """Drops records that are damaged or too large, have a status other than 200, or are not HTML."""

  def __init__(self, name: str, context: Context, max_bytes: int):
    super().__init__(name, context)
    self.max_bytes = max_bytes

  def judge(self, document: Document) -> rules.Verdict:
    meta = document.metadata
    fault, status = meta.pop('fault'), meta.pop('status')
    return unusable(
      RawPage(meta['url'], status, meta['content_type'], meta['html'], fault), self.max_bytes
    )


def unusable(page: RawPage, max_bytes: int) -> rules.Verdict:
  """Returns why no text can be extracted from a page, or None if extraction can be tried."""
  if page.fault:
    return 'damaged', page.fault
  if len(page.body) > max_bytes:
    return 'too_large', f'more than {max_bytes:,} bytes'
  if page.status != 200:
    return 'status', str(page.status)
  if 'html' not in page.content_type.lower():
    return 'not_html', page.content_type or 'no content type'
  return None


class OfflineUrlFilter(URLFilter):
  """datatrove's URL filter with the public suffix list of tldextract's wheel, not the network's."""

  def __init__(self, soft_words: int, **lists):
    super().__init__(soft_words, **lists)
    self.tldextractor = TLDExtract(cache_dir=None, suffix_list_urls=())


@functools.cache
def url_filter(soft_words: int) -> URLFilter:
  """Returns the URL filter, loaded once per process: it holds five million names in 800 MB."""
  lists = OfflineUrlFilter(soft_words)
  lists.download_data()  # unpacks the lists of the wheel into huggingface_hub's cache folder
  return lists


class UrlLists(Filter):
  """Applies datatrove's URL filter: lists of domains, subdomains, URLs and words."""

  def __init__(self, name: str, context: Context, soft_words: int):
    super().__init__(name, context)
    self.soft_words = soft_words

  def load(self) -> None:
    url_filter(self.soft_words).tldextractor('loads.it')

  def judge(self, document: Document) -> rules.Verdict:
    kept = url_filter(self.soft_words).filter(document)
    return None if kept is True else (f'url_{kept[1]}', document.metadata['url'])


class Extract(Filter):
  """Extracts title and text from HTML in a separate process; drops pages without text."""

  def __init__(self, name: str, context: Context, extractor: str):
    super().__init__(name, context)
    self.extractor = extractor

  def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    with Sandbox(extract, (b'', '', self.extractor), self.context.step_seconds) as self.extract:
      yield from super().run(data, rank, world_size)

  def judge(self, document: Document) -> rules.Verdict:
    html, kind = document.metadata['html'], document.metadata.pop('content_type')
    document.metadata['title'], document.text = self.extract(html, kind, self.extractor)
    if not document.text:
      return 'empty', 'no text'
    del document.metadata['html']
    return None


class Language(Filter):
  """Keeps the languages of `wanted`, each above its minimum score."""

  def __init__(self, name: str, context: Context, wanted: dict[str, float]):
    super().__init__(name, context)
    self.wanted = wanted

  def load(self) -> None:
    language.detect('loads it')

  def judge(self, document: Document) -> rules.Verdict:
    code, score = language.detect(document.text)
    self.stat_update(f'language_{code}')
    document.metadata |= {'language': code, 'language_score': round(score, 4)}
    figure = [round(score, 4), self.wanted.get(code), None]
    document.metadata['figures'][f'language: {code}'] = figure
    if code in self.wanted and score > self.wanted[code]:
      return None
    return 'language', f'{code} {score:.2f}'


class CutPassages(Filter):
  """Removes runs of lines that repeat another page of the task; drops pages with little else."""

  def __init__(self, name: str, context: Context, lines: int, max_share: float):
    super().__init__(name, context)
    self.lines, self.max_share = lines, max_share

  def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    documents = list(data)
    with self.track_time():
      texts = minhash.remove_repeated_passages(
        [document.text for document in documents], self.lines
      )
    for document, text in zip(documents, texts, strict=True):
      document.metadata['remaining'] = text
    yield from super().run(documents, rank, world_size)

  def judge(self, document: Document) -> rules.Verdict:
    text = document.metadata.pop('remaining')
    share = 1 - len(text) / len(document.text)
    figure = [round(share, 4), None, self.max_share]
    document.metadata['figures']['repeated_passages: share found on other pages'] = figure
    if share > self.max_share:
      return 'repeated_passages', f'{share:.0%} is found on other pages'
    document.text = text
    return None


class Quality(Filter):
  """Applies a rule of data/web/rules.py with its thresholds, after `cut` (if any) removes lines."""

  def __init__(
    self, name: str, context: Context, rule: Callable, thresholds: dict, cut: Callable | None = None
  ):
    super().__init__(name, context)
    self.rule, self.thresholds, self.cut = rule, thresholds, cut

  def load(self) -> None:
    list(self.rule('loads it', **self.thresholds))

  def judge(self, document: Document) -> rules.Verdict:
    if self.cut:
      document.text = self.cut(document.text)
    return rules.first_failure(
      self.rule(document.text, **self.thresholds), document.metadata['figures']
    )


class Decontaminate(Filter):
  """Drops pages that share an n-gram of words with an evaluation item."""

  def __init__(self, name: str, context: Context, items: Items):
    super().__init__(name, context)
    self.items = items

  def judge(self, document: Document) -> rules.Verdict:
    shared = self.items.shared(document.text)
    return ('contaminated', shared) if shared else None


class Pii(Filter):
  """Hides personal data in the text, the title and the URL; drops no page."""

  def judge(self, document: Document) -> rules.Verdict:
    meta = document.metadata
    document.text, meta['title'] = personal.hide(document.text), personal.hide(meta['title'])
    meta['url'] = personal.hide_in_url(meta['url'])
    return None


class WriteLines(PipelineStep):
  """Writes the task's documents with their metadata to one file, and yields them.

  The file is written even if there are no documents.
  """

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
  """Reads the file that `WriteLines` wrote for this task."""

  type, name = 'reader', 'read again'

  def __init__(self, folder: DataFolder):
    super().__init__()
    self.folder = folder

  def run(self, data=None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    for line in read_lines(self.folder, shard(rank)):
      yield Document(**line)


class WriteDocuments(PipelineStep):
  """Writes the clean documents, all or none, and records each with its figures."""

  type, name = 'writer', 'documents'

  def __init__(self, folder: DataFolder, context: Context):
    super().__init__()
    self.folder, self.record = folder, Record(context, 'kept')

  def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    name = documents_name(rank, world_size)
    with open_lines(self.folder, f'part-{name}') as append, self.record as record:
      for document in data:
        self.stat_update('forwarded')
        self.stat_update('bytes', value=byte_size(document))
        record.write(document, rank)
        del document.metadata['figures']
        append({'id': document.id, 'text': document.text, 'metadata': document.metadata})
        yield document
    self.folder.mv(f'part-{name}', name)
