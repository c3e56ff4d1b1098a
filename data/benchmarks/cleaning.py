"""Benchmarks of text extraction, and of the whole cleaning beside datatrove's.

`python -m data.bench extract` and `python -m data.bench clean` run them.
"""

import argparse
import collections
import functools
import gzip
import json
import pathlib
import pickle
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator

import fsspec
import loguru
import trafilatura
from datatrove.data import Document
from datatrove.io import DataFolder
from datatrove.pipeline import dedup, filters
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import WarcReader
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import split_into_words

from configs.data import fineweb
from data.benchmarks import timing
from data.web import blocks, language, pages, words
from data.web import clean as cleaning
from data.web import extract as extraction
from data.web.executors import Phase
from data.web.filtering import Documents
from data.web.read import read_pages, warc_files
from lm.base.errors import UserError

# The program that `--beside` runs. It does what datatrove's extractor does, with the version of
# trafilatura that datatrove requires.
_BESIDE = """
import pickle, sys, time, trafilatura
pages = pickle.load(sys.stdin.buffer)
def extract(page):
  options = {'favor_precision': True, 'include_comments': False, 'deduplicate': False}
  return trafilatura.extract(page, **options) or ''
extract(pages[0])
start = time.process_time()
texts = [extract(page) for page in pages]
pickle.dump((time.process_time() - start, texts, trafilatura.__version__), sys.stdout.buffer)
"""


def extract(args: argparse.Namespace) -> Iterator[dict]:
  """Measures pages per second on one core, and the word 4-grams found, for each extractor.

  The extractors take turns. --pages has the layout of Scrapinghub's article extraction benchmark:
  ground-truth.json with {id: {articleBody}}, and html/ID.html.gz. Precision, recall and F1 are
  measured as there.
  """
  bodies, known = _pages_of(pathlib.Path(args.pages)) if args.pages else _made(args.count)
  names = [*extraction.EXTRACTORS, *(['beside'] if args.beside else [])]
  texts, version = {}, ''
  for name in extraction.EXTRACTORS:
    extraction.extract(bodies[0], '', name)  # the first call imports what it needs

  def timed(name):
    nonlocal version
    if name == 'beside':
      done = subprocess.run(
        [args.beside, '-W', 'ignore', '-c', _BESIDE],
        input=pickle.dumps(bodies),
        capture_output=True,
      )
      if done.returncode:
        cause = done.stderr.decode(errors='replace').strip()[-300:]
        raise UserError(
          field='exit status of --beside', value=done.returncode, allowed='0', message=cause
        )
      took, texts[name], version = pickle.loads(done.stdout)
      return took
    start = time.process_time()
    texts[name] = [extraction.extract(body, '', name)[1] for body in bodies]
    return time.process_time() - start

  seconds = timing.by_turns({name: functools.partial(timed, name) for name in names}, args.rounds)
  for name, times in seconds.items():
    figures = {
      'pages_per_s': len(bodies) / statistics.median(times),
      **shingle_scores(known, texts[name]),
    }
    if args.beside and name != 'beside':
      figures['speed_over_beside'] = timing.speedup(times, seconds['beside'])
    label = f'trafilatura {version}, precision favoured' if name == 'beside' else name
    yield {
      'bench': 'extract',
      'extractor': label,
      'pages': len(bodies),
      'source': args.pages or 'generated',
      **figures,
    }


def _pages_of(folder: pathlib.Path) -> tuple[list[bytes], list[str]]:
  """Returns the bodies and the known texts of a folder's pages."""
  try:
    truth = json.loads((folder / 'ground-truth.json').read_text(encoding='utf-8'))
    bodies = [gzip.decompress((folder / 'html' / f'{name}.html.gz').read_bytes()) for name in truth]
  except FileNotFoundError as error:
    raise UserError(
      field='--pages', value=str(folder), allowed=f'a folder with {error.filename}'
    ) from error
  return bodies, [fields['articleBody'] for fields in truth.values()]


def _made(count: int) -> tuple[list[bytes], list[str]]:
  """Returns the bodies and the known texts of generated pages."""
  paragraphs = pages.prose()
  made = [pages.page(paragraphs, number) for number in range(count)]
  return [body.encode() for body, _ in made], [text for _, text in made]


def shingle_scores(known: Iterable[str], found: Iterable[str], n: int = 4) -> dict[str, float]:
  """Returns precision, recall and F1 of word n-grams.

  Each page's true and false n-grams are fractions, so that all pages have the same weight.
  """
  true = extra = missed = 0.0
  for pair in zip(known, found, strict=True):
    a, b = [collections.Counter(_shingles(re.findall(r'\w+', text), n)) for text in pair]
    either = max((a | b).total(), 1)
    true += (a & b).total() / either
    extra += (b - a).total() / either
    missed += (a - b).total() / either
  precision, recall = true / max(true + extra, 1e-9), true / max(true + missed, 1e-9)
  return {
    'f1': 2 * precision * recall / max(precision + recall, 1e-9),
    'precision': precision,
    'recall': recall,
  }


def _shingles(words: list[str], n: int) -> list[tuple[str, ...]]:
  return [tuple(words[i : i + n]) for i in range(max(len(words) - n + 1, min(len(words), 1)))]


def clean(args: argparse.Namespace) -> Iterator[dict]:
  """Measures cleaning with FineWeb's settings beside datatrove's blocks, on the same pages.

  Both run one task, take turns, and run in separate processes. The time starts at the first page,
  so it does not include loading.
  """
  with tempfile.TemporaryDirectory() as folder:
    source = f'{folder}/pages.warc.gz'
    used = usable_pages(args.input) if args.input else generated_pages(args.count)
    count = pages.write_warc(pathlib.Path(source), used)
    if not count:
      raise UserError(
        field='--input',
        value=args.input,
        allowed='WARC files with a page of HTML that has status 200 and can be read',
      )
    found = {}

    def timed(name):
      with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
          [sys.executable, '-m', 'data.benchmarks.cleaning', name, source, out, args.extractor],
          capture_output=True,
        )
      if done.returncode:
        cause = done.stderr.decode(errors='replace').strip()[-500:]
        raise UserError(
          field=f'exit status of the cleaning of {name}',
          value=done.returncode,
          allowed='0',
          message=cause,
        )
      found[name] = json.loads(done.stdout.splitlines()[-1])
      return found[name]['seconds']

    seconds = timing.by_turns({name: functools.partial(timed, name) for name in SIDES}, args.rounds)
  ours, theirs = set(found['ours']['kept']), set(found['datatrove']['kept'])
  yield {
    'bench': 'clean',
    'source': args.input or 'generated',
    'pages': count,
    'extractor': args.extractor,
    'trafilatura': trafilatura.__version__,
    'ours_pages_read': found['ours']['read'],
    'ours_pages_extracted': found['ours']['extracted'],
    'datatrove_pages_read': found['datatrove']['read'],
    'datatrove_pages_extracted': found['datatrove']['extracted'],
    'ours_pages_per_s': count / statistics.median(seconds['ours']),
    'datatrove_pages_per_s': count / statistics.median(seconds['datatrove']),
    'speed_over_datatrove': timing.speedup(seconds['ours'], seconds['datatrove']),
    'kept_by_both': len(ours & theirs),
    'kept_by_ours_alone': len(ours - theirs),
    'kept_by_datatrove_alone': len(theirs - ours),
  }


def generated_pages(count: int) -> Iterator[tuple[str, str]]:
  """Yields (URL, HTML) of generated pages."""
  paragraphs = pages.prose()
  for number in range(count):
    yield f'http://host{number}.example/{number}', pages.page(paragraphs, number)[0]


def usable_pages(source: str) -> Iterator[tuple[str, str]]:
  """Yields (URL, HTML) of the pages of WARC files that the cleaning would extract text from.

  datatrove's reader detects the type of a page from its content and does not undo content codings,
  so it would drop many of them.
  """
  config = fineweb.get_config()
  for path, _ in warc_files(source):
    for page in read_pages(path, config.max_page_bytes):
      html = extraction.decode(page.body, page.content_type)
      if not blocks.unusable(page, config.max_page_bytes) and html.strip():
        yield page.url, html


def our_phases(paths: list[str], out: str, extractor: str) -> list[Phase]:
  """Returns the phases of this project's cleaning, with everything loaded."""
  config = fineweb.get_config()
  config.extractor = extractor
  urls = blocks.url_filter(config.url_soft_words)
  urls.tldextractor('loads.it')
  words.split('loads it', config.words)
  extraction.extract(b'<p>loads it', '', extractor)
  phases = cleaning.pipeline(config, paths, DataFolder(out), 1, {})
  return [phase for phase in phases if phase.name != 'report']


class DatatroveReader(WarcReader):
  """datatrove's reader for given files, wherever they are; it counts the pages that it yields."""

  def __init__(self, paths: list[str]):
    super().__init__('/')
    self.paths = paths

  def run(self, data=None, rank: int = 0, world_size: int = 1) -> Documents:
    for path in self.paths:
      for page in self.read_file(path):
        self.stat_update('forwarded')
        yield page


def _english(document: Document) -> bool:
  """Returns whether a document is English, in place of LanguageFilter, which needs a download."""
  code, score = language.detect(document.text)
  return code == 'en' and score > 0.65


def datatrove_phases(paths: list[str], out: str, extractor: str) -> list[Phase]:
  """Returns the phases of datatrove's examples/fineweb.py, with everything loaded.

  The threshold of duplicate lines is the paper's. The extractor is always datatrove's own.
  """
  config = dedup.minhash.MinhashConfig(
    num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(64, 'sha1')
  )
  signatures, buckets, remove = f'{out}/signatures', f'{out}/buckets', f'{out}/remove'
  filtered, documents = DataFolder(f'{out}/filtered'), DataFolder(f'{out}/documents')
  urls = blocks.url_filter(2)
  urls.tldextractor('loads.it')
  split_into_words('loads it')
  first = [
    DatatroveReader(paths),
    urls,
    Trafilatura(favour_precision=True, timeout=60),
    filters.LambdaFilter(_english),
    filters.GopherRepetitionFilter(),
    filters.GopherQualityFilter(),
    filters.C4QualityFilter(filter_no_terminal_punct=False),
    filters.FineWebQualityFilter(char_duplicates_ratio=0.1),
    blocks.WriteLines(filtered),
    dedup.MinhashDedupSignature(signatures, config),
  ]
  last = [
    blocks.ReadLines(filtered),
    dedup.MinhashDedupFilter(remove),
    PIIFormatter(),
    blocks.WriteLines(documents),
  ]
  pairs = dedup.MinhashDedupBuckets(signatures, buckets, config=config)
  clusters = dedup.MinhashDedupCluster(buckets, remove, config)
  return [
    Phase('filter', first, 1),
    Phase('pairs', [pairs], 14),
    Phase('clusters', [clusters], 1),
    Phase('finish', last, 1),
  ]


SIDES = {'ours': our_phases, 'datatrove': datatrove_phases}


def _run(side: str, source: str, out: str, extractor: str) -> dict:
  """Runs one side: {seconds, number of pages read and extracted, URLs kept}."""
  loguru.logger.disable('datatrove')
  language.detect('loads it')
  phases = SIDES[side]([path for path, _ in warc_files(source)], out, extractor)
  start = time.perf_counter()
  for phase in phases:
    for rank in range(phase.tasks):
      data = None
      for step in phase.steps:
        data = step.run(data, rank, phase.tasks)
      collections.deque(data or (), maxlen=0)  # runs the steps, which are generators
  seconds = time.perf_counter() - start
  written = f'{out}/documents*' + ('/*' if side == 'datatrove' else '')
  lines = []
  for opened in fsspec.open_files(written, compression='infer'):
    with opened as file:
      lines += file
  steps = [step for phase in phases for step in phase.steps]
  readers = [step for step in steps if isinstance(step, blocks.ReadWarc | DatatroveReader)]
  extractors = [step for step in steps if isinstance(step, blocks.Extract | Trafilatura)]
  return {
    'seconds': seconds,
    'read': forwarded(readers[0]),
    'extracted': forwarded(extractors[0]),
    'kept': [json.loads(line)['metadata']['url'] for line in lines],
  }


def forwarded(step: PipelineStep) -> int:
  """Returns the number of pages that a step has passed on."""
  return step.stats['forwarded'].total


if __name__ == '__main__':
  print(json.dumps(_run(*sys.argv[1:])))
