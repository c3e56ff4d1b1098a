"""Speed and accuracy of the stages before training: python -m data.bench tokenizer|language [options]

Prints one JSON object a line. What is compared runs by turns on the same texts, in the same process, and the ratio is the
median over the rounds, so that a load which comes and goes meets both.
"""

import argparse
import gettext
import json
import os
import pathlib
import re
import statistics
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator

import tiktoken

from data import tokenize, train_tokenizer
from data import tokenizer as tokenizers
from lm import errors
from lm.errors import UserError


def tokenizer(args: argparse.Namespace) -> Iterator[dict]:
  """`encode_batch` of each tokenizer, beside tiktoken's own on the same vocabulary where the tokenizer is a BPE."""
  texts = read_texts(args.input, args.megabytes)
  with tempfile.TemporaryDirectory() as folder:
    specs = args.tokenizer.split(',') if args.tokenizer else [folder]
    if not args.tokenizer:
      train_tokenizer.train(texts, 4096, (), folder)
    loaded = {spec: tokenizers.load(spec) for spec in specs}
  for spec, ours in loaded.items():
    systems = {'ours': ours.encode_batch}
    if isinstance(ours, tokenizers.BPE):
      pattern = ours.pattern or tokenizers.PATTERNS['gpt2']
      theirs = tiktoken.Encoding('bench', pat_str=pattern, mergeable_ranks=ours.ranks, special_tokens={})
      systems['tiktoken'] = theirs.encode_ordinary_batch
    yield {
      'bench': 'tokenizer',
      'tokenizer': spec if args.tokenizer else 'trained on these texts',
      'vocab_size': ours.vocab_size,
      'texts': len(texts),
      **by_turns(systems, texts, args.rounds),
    }


def language(args: argparse.Namespace) -> Iterator[dict]:
  """Share of pages whose language is recognised, for each language of the message catalogues (gettext) below --catalogues.

  A page is made of translated messages of one catalogue, over 500 characters of them, without marks of formatting.
  """
  from data.web import language as detector

  right, pages, unreadable = Counter(), Counter(), 0
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
    yield {'bench': 'language', 'language': code, 'pages': pages[code], 'right': right[code] / pages[code]}
  share = right.total() / pages.total()
  yield {'bench': 'language', 'language': 'all', 'pages': pages.total(), 'right': share, 'unreadable_files': unreadable}


def catalogue_pages(path: pathlib.Path, min_chars: int = 500) -> Iterator[str]:
  """Texts of over `min_chars` characters from the translated messages of a .mo file, in its order."""
  with open(path, 'rb') as file:
    messages = gettext.GNUTranslations(file)._catalog  # no public way leads to all of them
  page = ''
  for key, message in messages.items():
    if key and message and message != key:
      page += re.sub(r'%[-\w.]*|[{}<>&_]', '', message) + '\n'
    if len(page) > min_chars:
      yield page
      page = ''


def by_turns(
  systems: dict[str, Callable[[list[str]], object]],
  texts: list[str],
  rounds: int,
  clock: Callable[[], float] = time.perf_counter,
) -> dict:
  """Megabytes a second of each system (median over rounds); of the first beside the second, the ratio and if they agree."""
  size = sum(len(text.encode()) for text in texts)
  seconds, results = {name: [] for name in systems}, {}
  for _ in range(rounds + 1):
    for name, system in systems.items():
      start = clock()
      results[name] = system(texts)
      seconds[name].append(clock() - start)
  seconds = {name: times[1:] for name, times in seconds.items()}  # the first round warms up
  speeds = {f'{name}_mb_per_s': size / statistics.median(times) / 1e6 for name, times in seconds.items()}
  figures = {'bytes': size, 'cores': os.cpu_count(), 'rounds': rounds, **speeds}
  if len(systems) > 1:
    (a, mine), (b, theirs) = seconds.items()
    ratio = statistics.median(y / x for x, y in zip(mine, theirs, strict=True))
    figures |= {f'speed_over_{b}': ratio, f'same_as_{b}': results[a] == results[b]}
  return figures


def read_texts(inputs: str | None, megabytes: float) -> list[str]:
  """Documents up to a size: of `inputs`, or the source files of Python's standard library, which all have."""
  if inputs:
    documents = tokenize.documents(tokenize.spans(tokenize.find(inputs), 1 << 40))
  else:
    paths = sorted(pathlib.Path(sysconfig.get_path('stdlib')).glob('*.py'))
    documents = ({'text': path.read_text(encoding='utf-8')} for path in paths)
  texts, left = [], megabytes * 1e6
  for document in documents:
    if left <= 0:
      break
    if 'text' not in document:
      raise UserError(f'document {document.get("id")!r} of {inputs!r} has no "text"')
    texts.append(tokenizers.valid(document['text']))
    left -= len(texts[-1].encode())
  if not texts:
    raise UserError(f'no text in {inputs!r}')
  return texts


def main() -> None:
  parser = argparse.ArgumentParser(prog='python -m data.bench', description='Speed and accuracy of the stages before training.')
  commands = parser.add_subparsers(dest='command', required=True)
  command = commands.add_parser('tokenizer', help=tokenizer.__doc__)
  command.set_defaults(run=tokenizer)
  command.add_argument('--tokenizer', help=f'{tokenizers.SPEC}; several between commas; none: one trained on the texts')
  command.add_argument('--input', help='glob patterns of JSONL or text files; none: the standard library of Python')
  command.add_argument('--megabytes', type=float, default=8, help='of text, at most about this')
  command.add_argument('--rounds', type=int, default=7)
  command = commands.add_parser('language', help=language.__doc__.split('\n')[0])
  command.set_defaults(run=language)
  command.add_argument('--catalogues', default='/usr/share/locale', help='folder with LANGUAGE/LC_MESSAGES/*.mo')
  command.add_argument('--languages', default='cs,de,es,fi,fr,hu,it,ja,ko,nl,pl,pt,ru,sv,tr,zh_CN', help='between commas')
  args = parser.parse_args()
  for figures in args.run(args):
    print(json.dumps(figures), flush=True)


if __name__ == '__main__':
  errors.run(main)
