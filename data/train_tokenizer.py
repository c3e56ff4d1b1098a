"""Trains a byte-level BPE and writes it as tokenizer.json and as a tiktoken rank file.

  python -m data.train_tokenizer --input='clean/*.jsonl' --vocab-size=4096 --out=DIR_OR_FILE

Both files give identical ids and load as the same tokenizer (data/tokenizers/loading.py).
"""

import argparse
from collections.abc import Sequence

from data.chat import chat_formats
from data.tokenizers import bpe, training
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(
    prog='python -m data.train_tokenizer', description='Trains a byte-level BPE.'
  )
  parser.add_argument(
    '--input',
    required=True,
    help='paths, URLs or globs of JSONL, Parquet or text files, separated by commas',
  )
  parser.add_argument(
    '--vocab-size',
    type=int,
    default=4096,
    help='number of tokens without the special ones (%(default)s)',
  )
  parser.add_argument(
    '--out',
    required=True,
    help='folder to write; FILE.json or FILE.tiktoken writes these two files',
  )
  parser.add_argument(
    '--held-out',
    type=float,
    default=0.05,
    help='fraction of near-duplicate clusters to measure on (%(default)s)',
  )
  parser.add_argument(
    '--pattern',
    default='deepdive',
    choices=bpe.PATTERNS,
    help='how text is split before merging (%(default)s)',
  )
  args = parser.parse_args(argv)
  report = training.train_files(
    args.input,
    args.vocab_size,
    args.out,
    held_out=args.held_out,
    special_tokens=chat_formats.SPECIAL_TOKENS,
    pattern=args.pattern,
  )
  for key, value in report.items():
    print(f'{key:16} {value:,.3f}' if isinstance(value, float) else f'{key:16} {value}')
  print(f'wrote {args.out}')


if __name__ == '__main__':
  errors.run(main)
