"""What token shards hold: their documents and where they begin, and what the batch of a step is
made of.

    python -m data.inspect tokens/train/manifest.json --tokenizer=SPEC [--documents=5] [--step=N
    --seq-len=256 ...]

In a batch, learned targets are green and the others grey; ┃ is where a document begins, and ␠
stands for padding.
"""

import argparse
from collections.abc import Sequence

from data.chat import chat_formats
from data.shards import summaries, token_shards
from data.shards.loader import LAYOUTS, Loader
from data.tokenizers import loading as tokenizers
from lm.base import errors
from lm.base.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog='python -m data.inspect', description='Shows what token shards hold.'
  )
  parser.add_argument('manifest', help='manifest.json of token shards')
  parser.add_argument('--tokenizer', help=f'to show text: {tokenizers.SPEC}')
  parser.add_argument(
    '--chat-format', default='auto', help='that conversations were tokenized with'
  )
  parser.add_argument('--documents', type=int, default=5, help='how many documents to list')
  parser.add_argument('--first', type=int, default=0, help='number of the first of them')
  parser.add_argument('--step', type=int, help='show the batch of this step')
  parser.add_argument(
    '--seq-len', type=int, default=256, help='of that batch: tokens in a row (256)'
  )
  parser.add_argument('--batch-size', type=int, default=4, help='of that batch: rows (4)')
  parser.add_argument(
    '--seed', type=int, default=0, help='of that batch: config.seed of the run (0)'
  )
  parser.add_argument(
    '--layout',
    choices=LAYOUTS,
    default='windows',
    help='of that batch: packed in stage sft (windows)',
  )
  args = parser.parse_args(argv)
  manifest = token_shards.read_manifest(args.manifest)
  print(summaries.summary(manifest))
  if not args.tokenizer:
    return
  variants = ({'extend': False}, {'extend': True}, {'extend': True, 'tools': False})
  loaded = (
    chat_formats.load(args.tokenizer, args.chat_format, **options).tokenizer for options in variants
  )
  tokenizer = next(
    (t for t in loaded if t.fingerprint == manifest['tokenizer']['fingerprint']), None
  )
  if tokenizer is None:
    raise UserError(f'{args.tokenizer} is not the tokenizer of {args.manifest}')
  print(summaries.documents(args.manifest, tokenizer, args.documents, args.first))
  if args.step is not None:
    options = {
      'seq_len': args.seq_len,
      'batch_size': args.batch_size,
      'seed': args.seed,
      'layout': args.layout,
    }
    print(summaries.batch(Loader(args.manifest, **options).batch(args.step), tokenizer))


if __name__ == '__main__':
  errors.run(main)
