"""Documents to token shards: OUT/train and OUT/val, in the form of data/shards/token_shards.py.

    python -m data.tokenize --input='clean/*.jsonl' --tokenizer=SPEC --out=DIR [--held-out=0.05
    --workers=N]

Input files are paths, URLs (s3://, gs://) or globs. Those named *.jsonl, or *.jsonl.gz and the
like, have a document a line, {"text": ..., "id": ..., "metadata": {"cluster": ...}}, or a
conversation a line, {"messages": [...]}; any other file is one document of plain text. What cannot
be used is skipped, counted, and listed with its cause in OUT/skipped.jsonl.

Which documents are held out is decided by data/records/split.py. The input is cut into parts of
`shard_bytes` whatever the number of workers, and a part makes one shard of each split. The work is
done in OUT/.tokenize and moved when complete: a killed run goes on where it was, and the bytes
depend neither on that nor on the number of workers. OUT is locked meanwhile.
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
  parser = argparse.ArgumentParser(
    prog='python -m data.tokenize', description='Documents to token shards.'
  )
  parser.add_argument(
    '--input', required=True, help='paths, URLs or globs of JSONL or text files, between commas'
  )
  parser.add_argument('--tokenizer', required=True, help=tokenizers.SPEC)
  parser.add_argument(
    '--chat-format', default='auto', help='of conversations: as config.data.chat_format'
  )
  parser.add_argument(
    '--no-tools', action='store_true', help='of conversations: as config.data.tools=False'
  )
  parser.add_argument('--out', required=True, help='folder for train/ and val/')
  parser.add_argument(
    '--held-out', type=float, default=0.05, help='share of near-duplicate clusters held out'
  )
  parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes')
  parser.add_argument(
    '--shard-bytes', type=int, default=64 << 20, help='input bytes that make one shard'
  )
  args = parser.parse_args(argv)
  talks = tokenization.holds_conversations(sources.find(args.input))
  chat_format = chat_formats.load(
    args.tokenizer, args.chat_format, extend=talks, tools=not args.no_tools
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
