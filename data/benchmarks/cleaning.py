"""`python -m data.bench extract|clean`: speed and accuracy of extraction, and the whole cleaning
beside datatrove's.
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
from data.web.read import read_pages, warc_files
from lm.base.errors import UserError

# What `--beside` runs; stands for datatrove's extractor, with the version of trafilatura that it
# asks for.
_BESIDE = """
import pickle, sys, time, trafilatura
pages = pickle.load(sys.stdin.buffer)
def extract(page):
  return trafilatura.extract(page, favor_precision=True, include_comments=False, deduplicate=False) or ''
extract(pages[0])
start = time.process_time()
texts = [extract(page) for page in pages]
pickle.dump((time.process_time() - start, texts, trafilatura.__version__), sys.stdout.buffer)
"""


def extract(args: argparse.Namespace) -> Iterator[dict]:
  """Pages a second of one core with each extractor, by turns, and the word 4-grams that it finds.

  --pages is laid out as the article extraction benchmark of Scrapinghub: ground-truth.json, {id:
  {articleBody}}, and html/ID.html.gz. Precision, recall and F1 are measured as there.
  """
  bodies, known = _pages_of(pathlib.Path(args.pages)) if args.pages else _made(args.count)
  names = [*extraction.EXTRACTORS, *(['beside'] if args.beside else [])]
  texts, version = {}, ''
  for name in extraction.EXTRACTORS:
    extraction.extract(bodies[0], '', name)  # imports what it needs

  def timed(name):
    nonlocal version
    if name == 'beside':
      done = subprocess.run(
        [args.beside, '-W', 'ignore', '-c', _BESIDE],
        input=pickle.dumps(bodies),
        capture_output=True,
      )
      if done.returncode:
        raise UserError(
          f'--beside={args.beside}: {done.stderr.decode(errors="replace").strip()[-300:]}'
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
  try:
    truth = json.loads((folder / 'ground-truth.json').read_text(encoding='utf-8'))
    bodies = [gzip.decompress((folder / 'html' / f'{name}.html.gz').read_bytes()) for name in truth]
  except FileNotFoundError as error:
    raise UserError(f'--pages={folder}: no {error.filename}') from error
  return bodies, [fields['articleBody'] for fields in truth.values()]


def _made(count: int) -> tuple[list[bytes], list[str]]:
  paragraphs = pages.prose()
  made = [pages.page(paragraphs, number) for number in range(count)]
  return [body.encode() for body, _ in made], [text for _, text in made]


def shingle_scores(known: Iterable[str], found: Iterable[str], n: int = 4) -> dict[str, float]:
  """Precision, recall and F1 of word n-grams, each page's true and false ones as shares, so that
  all pages weigh the same.
  """
  true = extra = missed = 0.0
  for pair in zip(known, found, strict=True):
    a, b = (collections.Counter(_shingles(re.findall(r'\w+', text), n)) for text in pair)
    common, either = (a & b).total(), max((a | b).total(), 1)
    true, extra, missed = (
      true + common / either,
      extra + (b - a).total() / either,
      missed + (a - b).total() / either,
    )
  precision, recall = true / max(true + extra, 1e-9), true / max(true + missed, 1e-9)
  return {
    'f1': 2 * precision * recall / max(precision + recall, 1e-9),
    'precision': precision,
    'recall': recall,
  }


def _shingles(words: list[str], n: int) -> list[tuple[str, ...]]:
  return [tuple(words[i : i + n]) for i in range(max(len(words) - n + 1, min(len(words), 1)))]


def clean(args: argparse.Namespace) -> Iterator[dict]:
  """Cleaning with FineWeb's settings beside datatrove's blocks for FineWeb, on the same pages.

  One task each, by turns, each in a process of its own, timed from the first page on: what both
  load before is left out.
  """
  with tempfile.TemporaryDirectory() as folder:
    source = f'{folder}/pages.warc.gz'
    count = pages.write_warc(
      pathlib.Path(source), usable_pages(args.input) if args.input else generated_pages(args.count)
    )
    if not count:
      raise UserError(
        f'--input={args.input}: no page of HTML that was answered with 200 and can be read'
      )
    found = {}

    def timed(name):
      with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
          [sys.executable, '-m', 'data.benchmarks.cleaning', name, source, out, args.extractor],
          capture_output=True,
        )
      if done.returncode:
        raise UserError(f'{name}: {done.stderr.decode(errors="replace").strip()[-500:]}')
      found[name] = json.loads(done.stdout.splitlines()[-1])
      return found[name]['seconds']

    seconds = timing.by_turns({name: functools.partial(timed, name) for name in SIDES}, args.rounds)
  ours, theirs = (set(found[name]['kept']) for name in SIDES)
  yield {
    'bench': 'clean',
    'source': args.input or 'generated',
    'pages': count,
    'extractor': args.extractor,
    'trafilatura': trafilatura.__version__,
    **{
      f'{name}_pages_{what}': found[name][what] for name in SIDES for what in ('read', 'extracted')
    },
    **{f'{name}_pages_per_s': count / statistics.median(times) for name, times in seconds.items()},
    'speed_over_datatrove': timing.speedup(*seconds.values()),
    'kept_by_both': len(ours & theirs),
    'kept_by_ours_alone': len(ours - theirs),
    'kept_by_datatrove_alone': len(theirs - ours),
  }


def generated_pages(count: int) -> Iterator[tuple[str, str]]:
  """(URL, HTML) of pages that are made up."""
  paragraphs = pages.prose()
  for number in range(count):
    yield f'http://host{number}.example/{number}', pages.page(paragraphs, number)[0]


def usable_pages(source: str) -> Iterator[tuple[str, str]]:
  """(URL, HTML) of the pages of WARC files that the cleaning would extract text from.

  datatrove's reader goes by the type that it sniffs, and does not undo codings of the content: it
  would drop many of them.
  """
  config = fineweb.get_config()
  for path, _ in warc_files(source):
    for page in read_pages(path, config.max_page_bytes):
      html = extraction.decode(page.body, page.content_type)
      if not blocks.unusable(page, config.max_page_bytes) and html.strip():
        yield page.url, html


Stages = list[tuple[list[PipelineStep], int]]  # steps, and in how many tasks


def our_stages(paths: list[str], out: str, extractor: str) -> Stages:
  config = fineweb.get_config()
  config.extractor = extractor
  urls = blocks.url_filter(config.url_soft_words)
  urls.tldextractor('loads.it')
  words.split('loads it', config.words)
  extraction.extract(b'<p>loads it', '', extractor)
  stages = cleaning.pipeline(config, paths, DataFolder(out), 1, {})
  return [(stage.steps, stage.tasks) for stage in stages if stage.name != 'report']


class DatatroveReader(WarcReader):
  """datatrove's reader, of these files wherever they are; counts the pages that it hands on."""

  def __init__(self, paths: list[str]):
    super().__init__('/')
    self.paths = paths

  def run(self, data=None, rank: int = 0, world_size: int = 1) -> blocks.Documents:
    for path in self.paths:
      for page in self.read_file(path):
        self.stat_update('forwarded')
        yield page


def _english(document: Document) -> bool:
  """Stands for LanguageFilter, whose model would be downloaded."""
  code, score = language.detect(document.text)
  return code == 'en' and score > 0.65


def datatrove_stages(paths: list[str], out: str, extractor: str) -> Stages:
  """As in datatrove's examples/fineweb.py, with the duplicate lines of the paper; `extractor` is
  always its own.
  """
  config = dedup.minhash.MinhashConfig(
    num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(64, 'sha1')
  )
  signatures, buckets, remove = (f'{out}/{name}' for name in ('signatures', 'buckets', 'remove'))
  filtered, documents = (DataFolder(f'{out}/{name}') for name in ('filtered', 'documents'))
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
  return [
    (first, 1),
    ([dedup.MinhashDedupBuckets(signatures, buckets, config=config)], 14),
    ([dedup.MinhashDedupCluster(buckets, remove, config)], 1),
    (last, 1),
  ]


SIDES = {'ours': our_stages, 'datatrove': datatrove_stages}


def _run(side: str, source: str, out: str, extractor: str) -> dict:
  """{seconds of all stages, number of pages read and extracted, URLs kept} of one side."""
  loguru.logger.disable('datatrove')
  language.detect('loads it')
  stages = SIDES[side]([path for path, _ in warc_files(source)], out, extractor)
  start = time.perf_counter()
  for steps, tasks in stages:
    for rank in range(tasks):
      data = None
      for step in steps:
        data = step.run(data, rank, tasks)
      collections.deque(data or (), maxlen=0)
  seconds = time.perf_counter() - start
  found = fsspec.open_files(
    f'{out}/documents*' + ('/*' if side == 'datatrove' else ''), compression='infer'
  )
  lines = []
  for opened in found:
    with opened as file:
      lines += file
  reader, extractor_step = (
    next(step for steps, _ in stages for step in steps if isinstance(step, kinds))
    for kinds in ((blocks.ReadWarc, DatatroveReader), (blocks.Extract, Trafilatura))
  )
  return {
    'seconds': seconds,
    'read': forwarded(reader),
    'extracted': forwarded(extractor_step),
    'kept': [json.loads(line)['metadata']['url'] for line in lines],
  }


def forwarded(step: PipelineStep) -> int:
  """How many pages a step has handed on."""
  return step.stats['forwarded'].total


if __name__ == '__main__':
  print(json.dumps(_run(*sys.argv[1:])))
