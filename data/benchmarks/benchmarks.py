"""Speed and accuracy of the stages before training, a function for each command of data.bench."""

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
from collections.abc import Callable, Iterable, Iterator

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
  """`encode_batch` of each tokenizer, beside tiktoken's own on the same vocabulary where the
  tokenizer is a BPE.
  """
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
  """Share of pages whose language is recognised, for each language of the message catalogues
  (gettext) below --catalogues.

  A page is made of translated messages of one catalogue, over 500 characters of them, without marks
  of formatting.
  """
  from data.web import language as detector

  right, pages, unreadable = collections.Counter(), collections.Counter(), 0
  for code in args.languages.split(','):
    for path in sorted(pathlib.Path(args.catalogues).glob(f'{code}/LC_MESSAGES/*.mo')):
      try:
        found = list(catalogue_pages(path))
      except UnicodeDecodeError:  # it is not in the encoding that it names
        unreadable += 1
        continue
      pages[code] += len(found)
      right[code] += sum(detector.detect(page)[0] == code.partition('_')[0] for page in found)
  if not pages.total():
    raise UserError(f'no page of {args.languages!r} in {args.catalogues}/LANGUAGE/LC_MESSAGES/*.mo')
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
  """Texts of over `min_chars` characters from the translated messages of a .mo file, in its
  order.
  """
  with open(path, 'rb') as file:
    messages = gettext.GNUTranslations(file)._catalog  # no public way leads to all of them
  page = ''
  for key, message in messages.items():
    if key and message and message != key:
      page += re.sub(r'%[-\w.]*|[{}<>&_]', '', message) + '\n'
    if len(page) > min_chars:
      yield page
      page = ''


def duplicates(args: argparse.Namespace) -> Iterator[dict]:
  """Removal of near-duplicates (14 x 8 MinHash): beside datatrove's four steps, then alone at
  growing sizes.

  The pages are random words in English's frequencies, a fifth of them copies with a few words
  changed. The last line fits seconds = c pages^exponent; cost that is linear in the pages has the
  exponent 1.
  """
  loguru.logger.disable('datatrove')
  pages = list(random_pages(args.beside))
  systems = {
    name: functools.partial(timed, steps, pages) for name, steps in DUPLICATE_STEPS.items()
  }
  seconds = timing.by_turns(systems, args.rounds)
  speeds = {
    f'{name}_pages_per_s': len(pages) / statistics.median(times) for name, times in seconds.items()
  }
  figures = {**speeds, 'speed_over_datatrove': timing.speedup(*seconds.values())}
  yield {'bench': 'duplicates', 'pages': len(pages), 'rounds': args.rounds, **figures}
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
    exponent, _ = np.polyfit(np.log(sizes), np.log(took), 1)
    yield {'bench': 'duplicates', 'sizes': sizes, 'exponent': float(exponent)}


def random_pages(count: int, words: int = 150) -> Iterator[Document]:
  """Pages of random words; every fifth is the one before it with one word in fifty replaced."""
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
  """Seconds that `steps` took for the pages, in a folder that is removed, the making of the pages
  left out.
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
  """The steps of data/web that find what to drop."""
  from data.web.blocks import Context
  from data.web.duplicates import Clusters, Signatures, pairs

  place = DataFolder(folder)
  context = Context(DataFolder(f'{folder}/pages'), pii=True, step_seconds=60.0)
  signatures = Signatures('signatures', context, place, 14, 8, 5, False)
  collections.deque(signatures.run(pages), maxlen=0)
  for band in range(15):
    pairs(place, 14, 8).run(None, band, 15)
  Clusters(place, 1, 0.0).run()


def datatrove_duplicates(pages: Iterable[Document], folder: str) -> None:
  """datatrove's, as FineWeb sets them."""
  from datatrove.pipeline.dedup import minhash
  from datatrove.utils.hashing import HashConfig

  config = minhash.MinhashConfig(
    num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(64, 'sha1')
  )
  signatures, buckets, remove = (f'{folder}/{name}' for name in ('signatures', 'buckets', 'remove'))
  minhash.MinhashDedupSignature(signatures, config).run(pages, 0, 1)
  for band in range(14):
    minhash.MinhashDedupBuckets(signatures, buckets, config=config).run(None, band, 14)
  minhash.MinhashDedupCluster(buckets, remove, config).run(None, 0, 1)


DUPLICATE_STEPS = {'ours': our_duplicates, 'datatrove': datatrove_duplicates}


def loader(args: argparse.Namespace) -> Iterator[dict]:
  """Tokens a second of the loader on all cores, read ahead as in training.

  The text is the standard library of Python, in bytes.
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
  """Extraction of text from HTML: pages a second, and 4-grams found."""
  from data.benchmarks import cleaning  # what it imports takes seconds

  return cleaning.extract(args)


def clean(args: argparse.Namespace) -> Iterator[dict]:
  """The whole cleaning beside datatrove's blocks for FineWeb: pages a second."""
  from data.benchmarks import cleaning  # what it imports takes seconds

  return cleaning.clean(args)


def encoding_speeds(
  systems: dict[str, Callable[[list[str]], object]],
  texts: list[str],
  rounds: int,
  clock: Callable[[], float] = time.perf_counter,
) -> dict:
  """Megabytes a second of each system (median over rounds); of the first beside the second, the
  ratio and if they agree.
  """
  size = sum(len(text.encode()) for text in texts)
  results = {}

  def timed(name):
    start = clock()
    results[name] = systems[name](texts)
    return clock() - start

  seconds = timing.by_turns({name: functools.partial(timed, name) for name in systems}, rounds + 1)
  seconds = {name: times[1:] for name, times in seconds.items()}  # the first round warms up
  speeds = {
    f'{name}_mb_per_s': size / statistics.median(times) / 1e6 for name, times in seconds.items()
  }
  figures = {'bytes': size, 'cores': os.cpu_count(), 'rounds': rounds, **speeds}
  if len(systems) > 1:
    (a, mine), (b, theirs) = seconds.items()
    figures |= {
      f'speed_over_{b}': timing.speedup(mine, theirs),
      f'same_as_{b}': results[a] == results[b],
    }
  return figures


def read_texts(inputs: str | None, megabytes: float) -> list[str]:
  """Documents up to a size: of `inputs`, or the source files of Python's standard library, which
  all have.
  """
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
      raise UserError(f'document {document.get("id")!r} of {inputs!r} has no "text"')
    texts.append(valid(document['text']))
    left -= len(texts[-1].encode())
  if not texts:
    raise UserError(f'no text in {inputs!r}')
  return texts


ALL = ('extract', 'clean', 'language', 'duplicates', 'tokenizer', 'loader')
