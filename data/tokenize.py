"""Converts documents or conversations to token shards.

  python -m data.tokenize --input='clean/*.jsonl' --tokenizer=SPEC --out=DIR

DIR/train and DIR/val have the format of data/shards/token_shards.py. data/shards/tokenization.py
says what input files may contain. Rows that cannot be used are skipped, counted, and listed with
the cause in DIR/skipped.jsonl. The same command continues a killed run.
"""

import argparse
import os
from collections.abc import Sequence

from data.chat import chat_formats
from data.records import sources
from data.shards import tokenization
from data.tokenizers import loading as tokenizers
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(
    prog='python -m data.tokenize', description='Converts documents to token shards.'
  )
  parser.add_argument(
    '--input',
    required=True,
    help='paths, URLs or globs of JSONL, Parquet or text files, separated by commas',
  )
  parser.add_argument('--tokenizer', required=True, help=tokenizers.SPEC)
  parser.add_argument(
    '--chat-format',
    default='auto',
    help='format of conversations, as config.data.chat_format (%(default)s)',
  )
  parser.add_argument(
    '--no-tools',
    action='store_true',
    help='do not add tags of tool calls to the tokenizer, as config.data.tools=False',
  )
  parser.add_argument('--out', required=True, help='output folder, for train/ and val/')
  parser.add_argument(
    '--held-out',
    type=float,
    default=0.05,
    help='fraction of near-duplicate clusters to hold out (%(default)s)',
  )
  parser.add_argument(
    '--workers', type=int, default=os.cpu_count(), help='number of processes (%(default)s)'
  )
  parser.add_argument(
    '--shard-bytes', type=int, default=64 << 20, help='input bytes for one shard (%(default)s)'
  )
  args = parser.parse_args(argv)
  is_chat = tokenization.holds_conversations(sources.find(args.input))
  chat_format = chat_formats.load(
    args.tokenizer, args.chat_format, extend=is_chat, tools=not args.no_tools
  )
  options = {'held_out': args.held_out, 'workers': args.workers, 'shard_bytes': args.shard_bytes}
  for name, m in tokenization.tokenize(args.input, args.out, chat_format, **options).items():
    sizes = (
      f'{m["documents"]:,} documents, {m["tokens"]:,} tokens, {m["bytes"]:,} bytes, '
      f'{len(m["shards"])} shards'
    )
    print(f'{args.out}/{name}/manifest.json: {sizes}')


if __name__ == '__main__':
  errors.run(main)
