"""Shows the documents of token shards and the batch of a step: `python -m data.inspect MANIFEST`.

With --tokenizer=SPEC it shows texts, and with --step=N the batch of that step. In a batch, learned
targets are green and the others grey; ┃ marks where a document begins, and ␠ is padding.
"""

import argparse
from collections.abc import Sequence

from data.chat import chat_formats
from data.shards import shard_summaries, token_shards
from data.shards.loader import LAYOUTS, Loader
from data.tokenizers import loading as tokenizers
from lm.base import errors
from lm.base.errors import UserError


def _tokenizer_of(manifest: dict, spec: str, chat_format: str) -> tokenizers.Tokenizer | None:
  """Returns the tokenizer of a spec with the special tokens that a manifest was made with."""
  for options in ({'extend': False}, {'extend': True}, {'extend': True, 'tools': False}):
    tokenizer = chat_formats.load(spec, chat_format, **options).tokenizer
    if tokenizer.fingerprint == manifest['tokenizer']['fingerprint']:
      return tokenizer
  return None


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(
    prog='python -m data.inspect',
    description='Shows the documents of token shards and the batch of a step.',
  )
  parser.add_argument('manifest', help='manifest.json of token shards')
  parser.add_argument('--tokenizer', help=f'needed to show texts: {tokenizers.SPEC}')
  parser.add_argument(
    '--chat-format',
    default='auto',
    help='format with which conversations were tokenized (%(default)s)',
  )
  parser.add_argument(
    '--documents', type=int, default=5, help='number of documents to list (%(default)s)'
  )
  parser.add_argument(
    '--first', type=int, default=0, help='index of the first document to list (%(default)s)'
  )
  parser.add_argument('--step', type=int, help='show the batch of this step')
  parser.add_argument(
    '--seq-len', type=int, default=256, help='tokens in a row of the batch (%(default)s)'
  )
  parser.add_argument('--batch-size', type=int, default=4, help='rows of the batch (%(default)s)')
  parser.add_argument(
    '--seed', type=int, default=0, help='seed of the batch, config.seed of a run (%(default)s)'
  )
  parser.add_argument(
    '--layout',
    choices=LAYOUTS,
    default='windows',
    help='layout of the batch; stage sft uses packed (%(default)s)',
  )
  args = parser.parse_args(argv)
  manifest = token_shards.read_manifest(args.manifest)
  print(shard_summaries.summary(manifest))
  if not args.tokenizer:
    return
  tokenizer = _tokenizer_of(manifest, args.tokenizer, args.chat_format)
  if tokenizer is None:
    raise UserError(
      field='--tokenizer', value=args.tokenizer, allowed=f'the tokenizer of {args.manifest}'
    )
  print(shard_summaries.documents(args.manifest, tokenizer, args.documents, args.first))
  if args.step is not None:
    options = {
      'seq_len': args.seq_len,
      'batch_size': args.batch_size,
      'seed': args.seed,
      'layout': args.layout,
    }
    print(shard_summaries.batch(Loader(args.manifest, **options).batch(args.step), tokenizer))


if __name__ == '__main__':
  errors.run(main)
