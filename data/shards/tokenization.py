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

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from data.chat import chat_formats
from data.records import jsonl, sources, spans, split
from data.shards import token_shards
from data.tokenizers.interface import valid
from lm.base import files, processes
from lm.base import progress as progress_lib
from lm.base.errors import UserError

T = TypeVar('T')
SPLITS = ('train', 'val')


def tokenize(
  inputs: sources.Inputs,
  out_dir: files.Path,
  chat_format: chat_formats.Format,
  *,
  held_out: float = 0.05,
  max_tokens: int | None = None,
  workers: int = 1,
  shard_bytes: int = 64 << 20,
  progress: bool = True,
) -> dict[str, dict]:
  """Writes out_dir/train and out_dir/val (no val when `held_out` is 0); does nothing if they are
  there already.

  Args:
    inputs: paths, URLs or globs of the input files (see the module's first lines).
    out_dir: folder of the two.
    chat_format: a tokenizer, and how it writes conversations.
    held_out: share of the clusters to hold out (see data/records/split.py); of a single cluster nothing is,
      and val is empty.
    max_tokens: of a conversation; a longer one loses whole exchanges (see `chat.Format.render`).
    workers: processes.
    shard_bytes: input bytes that make one shard.
    progress: whether to show a bar.

  Returns:
    {split: manifest}.

  Raises:
    UserError: no document that can be used, or another process writes to `out_dir`;
      FileNotFoundError: no file.
  """
  if not 0 <= held_out < 1 or workers < 1 or shard_bytes < 1:
    raise UserError(
      f'held_out={held_out} must be in [0, 1), workers={workers}, shard_bytes={shard_bytes} '
      'positive'
    )
  found, out = sources.find(inputs), files.as_path(out_dir)
  splits = SPLITS if held_out else SPLITS[:1]
  head = _head(found, chat_format, held_out, shard_bytes, max_tokens)
  if done := _complete(out, splits, head):
    return done
  with files.locked(out):
    if done := _complete(out, splits, head):  # by the process that held the lock
      return done
    work = out / '.tokenize'
    if not (work / 'plan.json').exists() or files.read_json(work / 'plan.json') != head:
      files.remove(work, first='plan.json')
      files.write_json(work / 'plan.json', head)
    parts = dict(enumerate(_group(spans.spans(found, shard_bytes), shard_bytes)))
    write = functools.partial(
      _write_part,
      chat_format=chat_format,
      max_tokens=max_tokens,
      kind=head['kind'],
      dtype=head['dtype'],
      work=work,
    )
    records = _records(write, parts, work, held_out, workers, progress)
    skipped = jsonl.Skipped()
    for record in records:
      skipped.extend(jsonl.Skipped(**record['skipped']))
    if not any(shard for record in records for shard in record['shards'].values()):
      raise skipped.nothing_left(f'all documents of {sources.names(found)} are empty')
    manifests = {
      name: token_shards.manifest(
        head | {'split': name, 'skipped': skipped.count}, [r['shards'][name] for r in records]
      )
      for name in splits
    }
    _write_skipped(out / 'skipped.jsonl', skipped)
    for name, manifest in manifests.items():
      _move(work, out, name, manifest)
    files.remove(work)
  skipped.report()
  if held_out and not manifests['val']['documents']:
    print(
      f'all documents of {sources.names(found)} are of one cluster: nothing is held out',
      file=sys.stderr,
    )
  return manifests


def _records(
  write: Callable,
  parts: dict[int, list[spans.Span]],
  work: files.AnyPath,
  held_out: float,
  workers: int,
  progress: bool,
) -> list[dict]:
  """The record of each part. Parts of which documents change sides are written again, once all
  split hashes are known.
  """
  records = _run(functools.partial(write, below=held_out), parts, workers, progress)
  hashes = [value for record in records if record['hashes'] for value in record['hashes']]
  if not hashes or (below := split.cutoff(hashes, held_out)) == held_out:
    return records
  low, high = sorted((below, held_out))
  for i, record in enumerate(records):
    if record['hashes'] and record['hashes'][0] < high and record['hashes'][1] >= low:
      _record_path(work, i).unlink()
  return _run(functools.partial(write, below=below), parts, workers, progress)


def _write_skipped(path: files.AnyPath, skipped: jsonl.Skipped) -> None:
  """Writes place and cause of what was skipped, a JSON object a line; no file if that is
  nothing.
  """
  path.unlink(missing_ok=True)
  if skipped.count:
    rows = ({'place': place, 'cause': cause} for place, cause in skipped.rows)
    files.write_text(path, ''.join(json.dumps(row) + '\n' for row in rows))


def holds_conversations(found: Sequence[sources.File]) -> bool:
  """Whether the first document of files is a conversation. Raises UserError if there is no
  document.
  """
  skipped = jsonl.Skipped()
  first = next(spans.documents(spans.spans(found, 1 << 62), skipped), None)
  if first is None:
    raise skipped.nothing_left(f'no document in {sources.names(found)}')
  return 'messages' in first


def _head(
  found: Sequence[sources.File],
  chat_format: chat_formats.Format,
  held_out: float,
  shard_bytes: int,
  max_tokens: int | None,
) -> dict:
  """What decides the bytes of the shards; the first fields of each manifest."""
  tokenizer = chat_format.tokenizer
  kind = {'kind': 'text', 'document_start': chat_format.document_start}
  if holds_conversations(found):
    kind = {
      'kind': 'conversations',
      'chat_format': chat_format.fingerprint,
      'max_tokens': max_tokens,
    }
  return kind | {
    'version': token_shards.VERSION,
    'dtype': 'uint16' if tokenizer.vocab_size <= 2**16 else 'uint32',
    'record_tokens': token_shards.RECORD_TOKENS,
    'tokenizer': {'fingerprint': tokenizer.fingerprint, 'vocab_size': tokenizer.vocab_size},
    'source': {
      'files': len(found),
      'bytes': sum(file.size for file in found),
      'sha256': files.digest([sources.sha256(file) for file in found]),
      'held_out': held_out,
      'shard_bytes': shard_bytes,
    },
  }


def _complete(out: files.AnyPath, splits: Sequence[str], head: dict) -> dict[str, dict] | None:
  """The manifests if they are those of `head` and their files are whole."""
  paths = {name: out / name / 'manifest.json' for name in splits}
  if not all(
    path.exists() and files.read_json(path).items() >= head.items() for path in paths.values()
  ):
    return None
  return {name: token_shards.read_manifest(path) for name, path in paths.items()}


def _move(work: files.AnyPath, out: files.AnyPath, name: str, manifest: dict) -> None:
  """Puts a finished split in its place, unless that is done."""
  target = out / name
  if (target / 'manifest.json').exists() and files.read_json(target / 'manifest.json') == manifest:
    return
  files.write_json(work / name / 'manifest.json', manifest)
  for stray in (work / name).glob('.*.tmp'):  # of a killed run
    stray.unlink()
  files.replace_dir(work / name, target, last='manifest.json')


def _group(all_spans: Iterable[spans.Span], size: int) -> list[list[spans.Span]]:
  """Parts: runs of spans of `size` bytes together, or a little more."""
  groups, filled = [[]], 0
  for span in all_spans:
    if filled >= size:
      groups.append([])
      filled = 0
    groups[-1].append(span)
    filled += span.size
  return groups


def _run(
  write: Callable, parts: dict[int, list[spans.Span]], workers: int, progress: bool
) -> list[dict]:
  """The record of each part, in order; writes those that are missing."""
  size = {i: sum(span.size for span in part) for i, part in parts.items()}
  bar = progress_lib.bar(
    desc='tokenize', total=sum(size.values()), unit='B', unit_scale=True, disable=not progress
  )
  records = {}
  with bar, contextlib.ExitStack() as stack:
    if workers == 1 or len(parts) == 1:
      finished = ((i, write(i, part)) for i, part in parts.items())
    else:
      pool = stack.enter_context(processes.pool(min(workers, len(parts))))
      futures = {pool.submit(write, i, part): i for i, part in parts.items()}
      finished = ((futures[f], f.result()) for f in concurrent.futures.as_completed(futures))
    for i, record in finished:
      records[i] = record
      bar.update(size[i])
  return [records[i] for i in parts]


def _record_path(work: files.AnyPath, index: int) -> files.AnyPath:
  return work / 'parts' / f'{index:05d}.json'


def _write_part(
  index: int,
  part: list[spans.Span],
  *,
  chat_format,
  max_tokens: int | None,
  kind: str,
  dtype: str,
  work: files.AnyPath,
  below: float,
):
  """Tokenizes a part into one shard a split, unless its record says that it is done; returns the
  record.
  """
  path = _record_path(work, index)
  if path.exists():
    return files.read_json(path)
  lengths = chat_format.tokenizer.byte_lengths()
  encode = functools.partial(
    _encode, chat_format=chat_format, max_tokens=max_tokens, kind=kind, lengths=lengths
  )
  builders, skipped, hashes = (
    {name: token_shards.Builder(dtype) for name in SPLITS},
    jsonl.Skipped(),
    [],
  )
  for split_hash, *encoded in spans.documents(part, skipped, encode):
    if encoded[0]:
      hashes = [min([*hashes[:1], split_hash]), max([*hashes[1:], split_hash])]
      builders['val' if split_hash < below else 'train'].add(*encoded)
  record = {
    'hashes': hashes,
    'skipped': dataclasses.asdict(skipped),
    'shards': {name: b.write(work / name, index) for name, b in builders.items()},
  }
  files.write_json(path, record)
  return record


def _encode(
  document: dict,
  *,
  chat_format: chat_formats.Format,
  max_tokens: int | None,
  kind: str,
  lengths: np.ndarray,
) -> tuple:
  """(split hash, ids, mask, bytes) of a document; no ids if its text is empty.

  Raises UserError with the cause if it cannot be used.
  """
  if ('messages' in document) != (kind == 'conversations'):
    raise UserError(
      f'the first document is of kind {kind!r}; this is a '
      f'{"document" if kind == "conversations" else "conversation"}'
    )
  if kind == 'conversations':
    ids, mask = chat_format.render(document, max_tokens)
    return split.split_hash(document), ids, mask, int(lengths[ids].sum())
  text = document['text']
  ids = [chat_format.document_start, *chat_format.tokenizer.encode(text)] if text else []
  return split.split_hash(document), ids, None, len(valid(text).encode())
