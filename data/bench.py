"""Measures speed and accuracy of data processing: `python -m data.bench [COMMAND [options]]`.

The commands are extract, clean, language, duplicates, tokenizer and loader; without one, all run in
turn. Each prints JSON objects, one per line. Alternatives take turns on the same input
(data/benchmarks/timing.py).
"""

import argparse
import json
from collections.abc import Sequence

from data.benchmarks import benchmarks
from data.tokenizers import loading as tokenizers
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(
    prog='python -m data.bench',
    description='Measures speed and accuracy of data processing.',
  )
  rounds, generated = 'number of measurements (%(default)s)', 'pages to generate (%(default)s)'
  commands = parser.add_subparsers(dest='command')
  command = commands.add_parser('tokenizer', help=benchmarks.tokenizer.__doc__.split('\n')[0])
  command.set_defaults(run=benchmarks.tokenizer)
  command.add_argument(
    '--tokenizer',
    help=f'{tokenizers.SPEC}; several separated by commas (default: train one on the texts)',
  )
  command.add_argument(
    '--input', help="globs of JSONL, Parquet or text files (default: Python's standard library)"
  )
  command.add_argument(
    '--megabytes', type=float, default=8, help='approximate limit on the text (%(default)s)'
  )
  command.add_argument('--rounds', type=int, default=7, help=rounds)
  command = commands.add_parser('language', help=benchmarks.language.__doc__.split('\n')[0])
  command.set_defaults(run=benchmarks.language)
  command.add_argument(
    '--catalogues',
    default='/usr/share/locale',
    help='folder with LANGUAGE/LC_MESSAGES/*.mo (%(default)s)',
  )
  command.add_argument(
    '--languages',
    default='cs,de,es,fi,fr,hu,it,ja,ko,nl,pl,pt,ru,sv,tr,zh_CN',
    help='languages, separated by commas (%(default)s)',
  )
  command = commands.add_parser('duplicates', help=benchmarks.duplicates.__doc__.split('\n')[0])
  command.set_defaults(run=benchmarks.duplicates)
  command.add_argument(
    '--beside', type=int, default=2000, help='number of pages given to both (%(default)s)'
  )
  command.add_argument('--rounds', type=int, default=3, help=rounds)
  command.add_argument(
    '--sizes',
    default='10000,20000,50000,100000,200000',
    help='numbers of pages given to this implementation alone (%(default)s)',
  )
  command = commands.add_parser('extract', help=benchmarks.extract.__doc__.split('\n')[0])
  command.set_defaults(run=benchmarks.extract)
  command.add_argument(
    '--pages',
    help='folder with ground-truth.json and html/ID.html.gz (default: generate pages)',
  )
  command.add_argument('--count', type=int, default=100, help=generated)
  command.add_argument(
    '--beside', help='another Python, whose trafilatura is measured with precision favoured'
  )
  command.add_argument('--rounds', type=int, default=3, help=rounds)
  command = commands.add_parser('clean', help=benchmarks.clean.__doc__.split('\n')[0])
  command.set_defaults(run=benchmarks.clean)
  command.add_argument(
    '--input', help='WARC files, as --input of data.web (default: generate pages)'
  )
  command.add_argument('--count', type=int, default=200, help=generated)
  command.add_argument(
    '--extractor',
    default='trafilatura_fast',
    help='extractor of this project (%(default)s); datatrove uses trafilatura',
  )
  command.add_argument('--rounds', type=int, default=3, help=rounds)
  command = commands.add_parser('loader', help=benchmarks.loader.__doc__.split('\n')[0])
  command.set_defaults(run=benchmarks.loader)
  command.add_argument(
    '--seq-lens', default='256,1024', help='tokens in a row, separated by commas (%(default)s)'
  )
  command.add_argument(
    '--batch-tokens', type=int, default=1 << 18, help='tokens in a batch (%(default)s)'
  )
  command.add_argument('--steps', type=int, default=100, help='batches per round (%(default)s)')
  command.add_argument('--rounds', type=int, default=3, help=rounds)
  args = parser.parse_args(argv)
  for name in [args.command] if args.command else benchmarks.ALL:
    chosen = args if args.command else parser.parse_args([name])
    for figures in chosen.run(chosen):
      print(json.dumps(figures), flush=True)


if __name__ == '__main__':
  errors.run(main)
