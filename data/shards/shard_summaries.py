"""Describes token shards for people: their documents, and the batch of a step."""

import itertools

import numpy as np

from data.shards import token_shards
from data.tokenizers import loading as tokenizers
from lm.base import files

_LEARNED, _OTHER, _PLAIN = '\x1b[32m', '\x1b[90m', '\x1b[0m'


def summary(manifest: dict) -> str:
  """Returns a few lines about a whole manifest and one about each shard."""
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
  """Returns a line about each of `count` documents, from number `first` on.

  A line has the document's number, place in the stream, number of tokens, and the beginning and end
  of its text, up to `width` characters.
  """
  manifest, folder = token_shards.read_manifest(path), files.as_path(path).parent
  starts = token_shards.document_index(folder, manifest)[:, 0]
  stops = np.append(starts[1:], manifest['tokens'])
  chosen = list(zip(starts, stops, strict=True))[first : first + count]
  lines = [f'{"document":>10} {"starts at":>13} {"tokens":>9}  text']
  texts = token_shards.Stream(folder, manifest).read((int(a), int(b)) for a, b in chosen)
  for number, ((start, stop), ids) in enumerate(zip(chosen, texts, strict=True), first):
    text = repr(tokenizer.decode(ids))[1:-1]
    text = text if len(text) <= width else f'{text[: width // 2]} ... {text[-width // 2 :]}'
    lines.append(f'{number:>10,} {start:>13,} {stop - start:>9,}  {text}')
  return '\n'.join(lines)


def batch(fields: dict[str, np.ndarray], tokenizer: tokenizers.Tokenizer) -> str:
  """Returns the rows of a loader's batch: a line of figures about each, and its text."""
  lines = []
  for i in range(len(fields['targets'])):
    inputs, targets = fields['inputs'][i], fields['targets'][i]
    segments, weights = fields['segment_ids'][i], fields['weights'][i]
    used = int((segments > 0).sum())
    figures = (
      f'{used} of {len(targets)} used, {segments.max()} documents, {int(weights.sum())} learned'
    )
    text = [f'row {i}: {figures}\n{_OTHER}', tokenizer.decode(inputs[: min(used, 1)])]
    # A target is in the segment of the next input.
    target_segments = np.append(segments[1:used], segments[used - 1 : used])
    places = list(zip(target_segments, weights[:used] > 0, strict=True))
    at, segment = 0, 1
    for (number, learned), run in itertools.groupby(places):
      stop = at + len(list(run))
      text += [_PLAIN + '┃'] if number > segment else []
      text += [_LEARNED if learned else _OTHER, tokenizer.decode(targets[at:stop])]
      at, segment = stop, number
    lines.append(''.join(text) + _PLAIN + '␠' * (len(targets) - used))
  return '\n'.join(lines)
