"""Speed and accuracy of data processing: one function for each command of data.bench."""

import argparse
import collections
import functools
import gettext
import os
import pathlib
import re
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import loguru
import numpy as np
import tiktoken
from datatrove.data import Document
from datatrove.io import DataFolder

from data.benchmarks import timing
from data.chat import chat_formats
from data.records import jsonl, sources, spans
from data.shards import tokenization
from data.tokenizers import bpe, training
from data.tokenizers import loading as tokenizers
from data.tokenizers.interface import valid
from lm.base.errors import UserError


def tokenizer(args: argparse.Namespace) -> Iterator[dict]:
  """Measures the speed of `encode_batch` of each tokenizer, beside tiktoken's for a BPE."""
  texts = read_texts(args.input, args.megabytes)
  with tempfile.TemporaryDirectory() as folder:
    specs = args.tokenizer.split(',') if args.tokenizer else [folder]
    if not args.tokenizer:
      training.train(texts, 4096, (), folder)
    loaded = {spec: tokenizers.load(spec) for spec in specs}
  for spec, ours in loaded.items():
    systems = {'ours': ours.encode_batch}
    if isinstance(ours, bpe.BPE):
      pattern = ours.pattern or bpe.PATTERNS['gpt2']
      theirs = tiktoken.Encoding(
        'bench', pat_str=pattern, mergeable_ranks=ours.ranks, special_tokens={}
      )
      systems['tiktoken'] = theirs.encode_ordinary_batch
    yield {
      'bench': 'tokenizer',
      'tokenizer': spec if args.tokenizer else 'trained on these texts',
      'vocab_size': ours.vocab_size,
      'texts': len(texts),
      **encoding_speeds(systems, texts, args.rounds),
    }


def language(args: argparse.Namespace) -> Iterator[dict]:
  """Measures how often the language of a page is recognised, for each language.

  A page consists of translated messages of one gettext catalogue below --catalogues, over 500
  characters of them, without formatting marks.
  """
  from data.web import language as detector

  right, pages, unreadable = collections.Counter(), collections.Counter(), 0
  for code in args.languages.split(','):
    for path in sorted(pathlib.Path(args.catalogues).glob(f'{code}/LC_MESSAGES/*.mo')):
      try:
        found = list(catalogue_pages(path))
      except UnicodeDecodeError:  # the file is not in the encoding that it names
        unreadable += 1
        continue
      pages[code] += len(found)
      right[code] += sum(detector.detect(page)[0] == code.partition('_')[0] for page in found)
  if not pages.total():
    raise UserError(
      field='--languages',
      value=args.languages,
      allowed=f'languages of {args.catalogues}/LANGUAGE/LC_MESSAGES/*.mo',
      message='They have no page of these.',
    )
  for code in +pages:
    yield {
      'bench': 'language',
      'language': code,
      'pages': pages[code],
      'right': right[code] / pages[code],
    }
  share = right.total() / pages.total()
  yield {
    'bench': 'language',
    'language': 'all',
    'pages': pages.total(),
    'right': share,
    'unreadable_files': unreadable,
  }


def catalogue_pages(path: pathlib.Path, min_chars: int = 500) -> Iterator[str]:
  """Yields texts of over `min_chars` characters from the translated messages of a .mo file."""
  with open(path, 'rb') as file:
    messages = gettext.GNUTranslations(file)._catalog  # no public method returns all of them
  page = ''
  for key, message in messages.items():
    if key and message and message != key:
      page += re.sub(r'%[-\w.]*|[{}<>&_]', '', message) + '\n'
    if len(page) > min_chars:
      yield page
      page = ''


def duplicates(args: argparse.Namespace) -> Iterator[dict]:
  """Measures the removal of near-duplicates: beside datatrove's, then alone at growing sizes.

  Both use 14 x 8 MinHash. The pages are random words with the frequencies of English, and a fifth
  of them are copies with a few words changed. The last line fits seconds = c pages^exponent; the
  exponent of a cost that is linear in the pages is 1.
  """
  loguru.logger.disable('datatrove')
  pages = list(random_pages(args.beside))
  systems = {
    'ours': functools.partial(timed, our_duplicates, pages),
    'datatrove': functools.partial(timed, datatrove_duplicates, pages),
  }
  seconds = timing.by_turns(systems, args.rounds)
  yield {
    'bench': 'duplicates',
    'pages': len(pages),
    'rounds': args.rounds,
    'ours_pages_per_s': len(pages) / statistics.median(seconds['ours']),
    'datatrove_pages_per_s': len(pages) / statistics.median(seconds['datatrove']),
    'speed_over_datatrove': timing.speedup(seconds['ours'], seconds['datatrove']),
  }
  sizes = [int(size) for size in args.sizes.split(',')]
  took = []
  for size in sizes:
    took.append(timed(our_duplicates, random_pages(size)))
    yield {
      'bench': 'duplicates',
      'pages': size,
      'seconds': took[-1],
      'ours_pages_per_s': size / took[-1],
    }
  if len(sizes) > 1:
    yield {'bench': 'duplicates', 'sizes': sizes, 'exponent': fit_exponent(sizes, took)}


def fit_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
  """Returns the exponent e of the power law seconds = c size^e that fits best."""
  exponent, _ = np.polyfit(np.log(sizes), np.log(seconds), 1)
  return float(exponent)


def random_pages(count: int, words: int = 150) -> Iterator[Document]:
  """Yields pages of random words.

  Every fifth page is the one before it with one word in fifty replaced.
  """
  rng = np.random.default_rng(0)
  page = np.empty(0, np.int64)
  for i in range(count):
    if i % 5 == 4:
      page = np.where(rng.random(len(page)) < 0.02, rng.integers(20_000, size=len(page)), page)
    else:
      page = np.minimum(rng.zipf(1.1, words), 20_000)
    yield Document(
      ' '.join(f'w{word}' for word in page), str(i), metadata={'url': f'http://host/{i}'}
    )


def timed(steps: Callable[[Iterable[Document], str], None], pages: Iterable[Document]) -> float:
  """Returns the seconds that `steps` take for the pages, without those of making the pages.

  `steps` writes into a temporary folder.
  """
  waited = 0.0

  def made():
    nonlocal waited
    pending = iter(pages)
    while True:
      start = time.perf_counter()
      page = next(pending, None)
      waited += time.perf_counter() - start
      if page is None:
        return
      yield page

  with tempfile.TemporaryDirectory() as folder:
    start = time.perf_counter()
    steps(made(), folder)
    return time.perf_counter() - start - waited


def our_duplicates(pages: Iterable[Document], folder: str) -> None:
  """Runs the steps of data/web that find duplicates."""
  from data.web.duplicates import Clusters, Signatures, pairs
  from data.web.filtering import Context

  place = DataFolder(folder)
  context = Context(DataFolder(f'{folder}/pages'), pii=True, step_seconds=60.0)
  signatures = Signatures('signatures', context, place, bands=14, rows=8, ngram=5, clusters=False)
  collections.deque(signatures.run(pages), maxlen=0)
  for band in range(15):
    pairs(place, 14, 8).run(None, band, 15)
  Clusters(place, 1, 0.0).run()


def datatrove_duplicates(pages: Iterable[Document], folder: str) -> None:
  """Runs datatrove's steps that find duplicates, with FineWeb's settings."""
  from datatrove.pipeline.dedup import minhash
  from datatrove.utils.hashing import HashConfig

  config = minhash.MinhashConfig(
    num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(64, 'sha1')
  )
  signatures, buckets, remove = f'{folder}/signatures', f'{folder}/buckets', f'{folder}/remove'
  minhash.MinhashDedupSignature(signatures, config).run(pages, 0, 1)
  for band in range(14):
    minhash.MinhashDedupBuckets(signatures, buckets, config=config).run(None, band, 14)
  minhash.MinhashDedupCluster(buckets, remove, config).run(None, 0, 1)


def loader(args: argparse.Namespace) -> Iterator[dict]:
  """Measures tokens per second of the loader on all cores, reading ahead as in training.

  The text is Python's standard library, as bytes.
  """
  from data.shards import loader as loaders

  with tempfile.TemporaryDirectory() as folder:
    stdlib = sysconfig.get_path('stdlib')
    tokenization.tokenize(
      f'{stdlib}/*.py', folder, chat_formats.load('bytes', extend=True), held_out=0, progress=False
    )
    for length in map(int, args.seq_lens.split(',')):
      for layout in loaders.LAYOUTS:
        rows = args.batch_tokens // length
        opened = loaders.Loader(
          f'{folder}/train/manifest.json', seq_len=length, batch_size=rows, seed=0, layout=layout
        )
        speeds = []
        for turn in range(args.rounds + 1):
          start = time.perf_counter()
          for _ in opened.iterate(turn * args.steps, (turn + 1) * args.steps):
            pass
          speeds.append(args.steps * rows * length / (time.perf_counter() - start))
        figures = {
          'tokens_per_s': statistics.median(speeds[1:]),
          'cores': os.cpu_count(),
          'rounds': args.rounds,
        }
        yield {
          'bench': 'loader',
          'layout': layout,
          'seq_len': length,
          'batch_size': rows,
          'tokens': opened.tokens,
          **figures,
        }


def extract(args: argparse.Namespace) -> Iterator[dict]:
  """Measures the extraction of text from HTML: pages per second, and 4-grams found."""
  from data.benchmarks import cleaning  # what it imports takes seconds

  return cleaning.extract(args)


def clean(args: argparse.Namespace) -> Iterator[dict]:
  """Measures pages per second of the whole cleaning, beside datatrove's blocks for FineWeb."""
  from data.benchmarks import cleaning  # what it imports takes seconds

  return cleaning.clean(args)


def encoding_speeds(
  systems: dict[str, Callable[[list[str]], object]],
  texts: list[str],
  rounds: int,
  clock: Callable[[], float] = time.perf_counter,
) -> dict:
  """Returns the median megabytes per second of each system.

  For the first system the result also has its speed relative to the second, and whether both agree.
  """
  size = sum(len(text.encode()) for text in texts)
  results = {}

  def timed(name):
    start = clock()
    results[name] = systems[name](texts)
    return clock() - start

  seconds = timing.by_turns({name: functools.partial(timed, name) for name in systems}, rounds + 1)
  seconds = {name: times[1:] for name, times in seconds.items()}  # the first round warms up
  figures = {'bytes': size, 'cores': os.cpu_count(), 'rounds': rounds}
  for name, times in seconds.items():
    figures[f'{name}_mb_per_s'] = size / statistics.median(times) / 1e6
  if len(systems) > 1:
    (a, mine), (b, theirs) = seconds.items()
    figures |= {
      f'speed_over_{b}': timing.speedup(mine, theirs),
      f'same_as_{b}': results[a] == results[b],
    }
  return figures


def read_texts(inputs: str | None, megabytes: float) -> list[str]:
  """Returns documents of `inputs`, or files of Python's standard library, up to a size."""
  if inputs:
    documents = spans.documents(spans.spans(sources.find(inputs), 1 << 40), jsonl.Skipped())
  else:
    paths = sorted(pathlib.Path(sysconfig.get_path('stdlib')).glob('*.py'))
    documents = ({'text': path.read_text(encoding='utf-8')} for path in paths)
  texts, left = [], megabytes * 1e6
  for document in documents:
    if left <= 0:
      break
    if 'text' not in document:
      raise UserError(field=f'text of document {document.get("id")!r} of {inputs}')
    texts.append(valid(document['text']))
    left -= len(texts[-1].encode())
  if not texts:
    raise UserError(field=f'document in {inputs}')
  return texts


ALL = ('extract', 'clean', 'language', 'duplicates', 'tokenizer', 'loader')
