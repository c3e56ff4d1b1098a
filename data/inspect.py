"""What token shards hold: their documents and where they begin, and what the batch of a step is
made of.

    python -m data.inspect tokens/train/manifest.json --tokenizer=SPEC [--documents=5] [--step=N
    --seq-len=256 ...]

In a batch, learned targets are green and the others grey; ┃ is where a document begins, and ␠
stands for padding.
"""

import argparse
import itertools

import numpy as np

from data import chat, shards
from data import tokenizer as tokenizers
from data.loader import LAYOUTS, Loader
from lm import errors, files
from lm.errors import UserError

_LEARNED, _OTHER, _PLAIN = '\x1b[32m', '\x1b[90m', '\x1b[0m'


def summary(manifest: dict) -> str:
  """A few lines on a whole manifest and one on each shard."""
  counts = {key: manifest[key] for key in ('documents', 'tokens', 'bytes')}
  per_token = manifest['bytes'] / manifest['tokens']
  tokenizer = manifest['tokenizer']
  lines = [
    f'{manifest["kind"]}: ' + ', '.join(f'{value:,} {key}' for key, value in counts.items()),
    f'{per_token:.3f} bytes per token; {manifest["dtype"]}, SHA-256 {files.digest(manifest)[:16]}',
    f'tokenizer: {tokenizer["vocab_size"]:,} ids, fingerprint {tokenizer["fingerprint"][:16]}',
  ]
  for shard in manifest['shards']:
    lines.append(
      f'  {shard["file"]}  {shard["documents"]:>9,} documents  {shard["tokens"]:>13,} tokens'
    )
  return '\n'.join(lines)


def documents(
  path: files.Path, tokenizer: tokenizers.Tokenizer, count: int, first: int = 0, width: int = 90
) -> str:
  """A line on each of `count` documents: number, place in the stream, tokens, and how its text
  begins and ends.
  """
  manifest, folder = shards.read_manifest(path), files.as_path(path).parent
  starts = shards.document_index(folder, manifest)[:, 0]
  stops = np.append(starts[1:], manifest['tokens'])
  chosen = list(zip(starts, stops, strict=True))[first : first + count]
  lines = [f'{"document":>10} {"starts at":>13} {"tokens":>9}  text']
  texts = shards.Stream(folder, manifest).read((int(a), int(b)) for a, b in chosen)
  for number, ((start, stop), ids) in enumerate(zip(chosen, texts, strict=True), first):
    text = repr(tokenizer.decode(ids))[1:-1]
    text = text if len(text) <= width else f'{text[: width // 2]} ... {text[-width // 2 :]}'
    lines.append(f'{number:>10,} {start:>13,} {stop - start:>9,}  {text}')
  return '\n'.join(lines)


def batch(fields: dict[str, np.ndarray], tokenizer: tokenizers.Tokenizer) -> str:
  """The rows of a batch of data.loader: a line of figures and the text of each."""
  lines = []
  for i in range(len(fields['targets'])):
    inputs, targets, segments, weights = (
      fields[k][i] for k in ('inputs', 'targets', 'segment_ids', 'weights')
    )
    used = int((segments > 0).sum())
    figures = (
      f'{used} of {len(targets)} used, {segments.max()} documents, {int(weights.sum())} learned'
    )
    text = [f'row {i}: {figures}\n{_OTHER}', tokenizer.decode(inputs[: min(used, 1)])]
    # A target is of the segment in which the next input is.
    places = list(
      zip(np.append(segments[1:used], segments[used - 1 : used]), weights[:used] > 0, strict=True)
    )
    at, segment = 0, 1
    for (number, learned), run in itertools.groupby(places):
      stop = at + len(list(run))
      text += [_PLAIN + '┃'] if number > segment else []
      text += [_LEARNED if learned else _OTHER, tokenizer.decode(targets[at:stop])]
      at, segment = stop, number
    lines.append(''.join(text) + _PLAIN + '␠' * (len(targets) - used))
  return '\n'.join(lines)


def main() -> None:
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
  args = parser.parse_args()
  manifest = shards.read_manifest(args.manifest)
  print(summary(manifest))
  if not args.tokenizer:
    return
  variants = ({'extend': False}, {'extend': True}, {'extend': True, 'tools': False})
  loaded = (
    chat.load(args.tokenizer, args.chat_format, **options).tokenizer for options in variants
  )
  tokenizer = next(
    (t for t in loaded if t.fingerprint == manifest['tokenizer']['fingerprint']), None
  )
  if tokenizer is None:
    raise UserError(f'{args.tokenizer} is not the tokenizer of {args.manifest}')
  print(documents(args.manifest, tokenizer, args.documents, args.first))
  if args.step is not None:
    options = {
      'seq_len': args.seq_len,
      'batch_size': args.batch_size,
      'seed': args.seed,
      'layout': args.layout,
    }
    print(batch(Loader(args.manifest, **options).batch(args.step), tokenizer))


if __name__ == '__main__':
  errors.run(main)
