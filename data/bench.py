"""Speed and accuracy of the stages before training: python -m data.bench [COMMAND [options]]

Commands: extract, clean, language, duplicates, tokenizer, loader; all of them in turn where none is
  given.

Prints one JSON object a line. What is compared runs by turns on the same texts (data/benchmarks/timing.py).
"""

import argparse
import json
from collections.abc import Sequence

from data.benchmarks import benchmarks
from data.tokenizers import loading as tokenizers
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog='python -m data.bench', description='Speed and accuracy of the stages before training.'
  )
  commands = parser.add_subparsers(dest='command')
  command = commands.add_parser('tokenizer', help=benchmarks.tokenizer.__doc__)
  command.set_defaults(run=benchmarks.tokenizer)
  command.add_argument(
    '--tokenizer', help=f'{tokenizers.SPEC}; several between commas; none: one trained on the texts'
  )
  command.add_argument(
    '--input', help='glob patterns of JSONL or text files; none: the standard library of Python'
  )
  command.add_argument('--megabytes', type=float, default=8, help='of text, at most about this')
  command.add_argument('--rounds', type=int, default=7, help='times each side is timed (7)')
  command = commands.add_parser('language', help=benchmarks.language.__doc__.split('\n')[0])
  command.set_defaults(run=benchmarks.language)
  command.add_argument(
    '--catalogues', default='/usr/share/locale', help='folder with LANGUAGE/LC_MESSAGES/*.mo'
  )
  command.add_argument(
    '--languages',
    default='cs,de,es,fi,fr,hu,it,ja,ko,nl,pl,pt,ru,sv,tr,zh_CN',
    help='between commas',
  )
  command = commands.add_parser('duplicates', help=benchmarks.duplicates.__doc__.split('\n')[0])
  command.set_defaults(run=benchmarks.duplicates)
  command.add_argument('--beside', type=int, default=2000, help='pages given to both')
  command.add_argument('--rounds', type=int, default=3, help='times each side is timed (3)')
  command.add_argument(
    '--sizes', default='10000,20000,50000,100000,200000', help='pages given to ours alone'
  )
  command = commands.add_parser(
    'extract', help='extraction of text from HTML: pages a second, and 4-grams found'
  )
  command.set_defaults(run=benchmarks.extract)
  command.add_argument(
    '--pages', help='folder with ground-truth.json and html/ID.html.gz; none: pages are made up'
  )
  command.add_argument('--count', type=int, default=100, help='of pages made up')
  command.add_argument(
    '--beside', help='another Python whose trafilatura is measured too, with precision favoured'
  )
  command.add_argument('--rounds', type=int, default=3, help='times each side is timed (3)')
  command = commands.add_parser(
    'clean', help="the whole cleaning beside datatrove's blocks for FineWeb: pages a second"
  )
  command.set_defaults(run=benchmarks.clean)
  command.add_argument('--input', help='WARC files, as of data.web; none: pages are made up')
  command.add_argument('--count', type=int, default=200, help='of pages made up')
  command.add_argument(
    '--extractor',
    default='trafilatura_fast',
    help='ours; theirs is trafilatura with precision favoured',
  )
  command.add_argument('--rounds', type=int, default=3, help='times each side is timed (3)')
  command = commands.add_parser('loader', help=benchmarks.loader.__doc__.split('\n')[0])
  command.set_defaults(run=benchmarks.loader)
  command.add_argument('--seq-lens', default='256,1024', help='tokens of a row, between commas')
  command.add_argument('--batch-tokens', type=int, default=1 << 18, help='of a batch')
  command.add_argument('--steps', type=int, default=100, help='batches read in a round (100)')
  command.add_argument('--rounds', type=int, default=3, help='times each side is timed (3)')
  args = parser.parse_args(argv)
  for name in [args.command] if args.command else benchmarks.ALL:
    chosen = args if args.command else parser.parse_args([name])
    for figures in chosen.run(chosen):
      print(json.dumps(figures), flush=True)


if __name__ == '__main__':
  errors.run(main)
