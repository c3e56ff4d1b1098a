"""Converts documents to token shards, in the format of data/shards/token_shards.py.

Input files are paths, URLs (s3://, gs://) or globs. Files named *.jsonl, *.jsonl.gz and the like
have a document on each line, {"text": ..., "id": ..., "metadata": {"cluster": ...}}, or a
conversation, {"messages": [...]}. Any other file is one plain-text document. Rows that cannot be
used are skipped, counted, and listed with the cause in OUT/skipped.jsonl.

data/records/split.py decides which documents are held out. The input is divided into parts of
`shard_bytes` whatever the number of workers, and each part makes one shard of each split. Files are
written in OUT/.tokenize and moved when complete, and OUT is locked meanwhile. A killed run
continues where it was, and the bytes depend neither on that nor on the number of workers.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

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
  read: Callable[[Any], dict] | None = None,
  workers: int = 1,
  shard_bytes: int = 64 << 20,
  progress: bool = True,
) -> dict[str, dict]:
  """Writes out_dir/train and out_dir/val, unless they exist already.

  There is no val if `held_out` is 0.

  Args:
    inputs: paths, URLs or globs of the input files (see the first lines of this module).
    out_dir: output folder.
    chat_format: a tokenizer and its format of conversations.
    held_out: fraction of the clusters to hold out (see data/records/split.py). A single cluster is
      not held out, and val is then empty.
    max_tokens: largest length of a conversation; a longer one loses whole exchanges (see
      `chat_formats.Format.render`).
    read: makes a conversation of a row, as of `spans.documents`; None for rows as they are.
    workers: number of processes.
    shard_bytes: input bytes for one shard.
    progress: whether to show a progress bar.

  Returns:
    {split: manifest}.

  Raises:
    UserError: no document can be used, or another process is writing to `out_dir`.
    FileNotFoundError: no file matches.
  """
  if not 0 <= held_out < 1:
    raise UserError(field='held_out', value=held_out, allowed='at least 0 and below 1')
  for field, number in (('workers', workers), ('shard_bytes', shard_bytes)):
    if number < 1:
      raise UserError(field=field, value=number, allowed='at least 1')
  found, out = sources.find(inputs), files.as_path(out_dir)
  splits = SPLITS if held_out else SPLITS[:1]
  head = _head(found, chat_format, held_out, shard_bytes, max_tokens, read)
  if done := _complete(out, splits, head):
    return done
  with files.locked(out):
    if done := _complete(out, splits, head):  # the process that held the lock did the work
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
      read=read,
      kind=head['kind'],
      dtype=head['dtype'],
      work=work,
    )
    records = _records(write, parts, work, held_out, workers, progress)
    skipped = jsonl.Skipped()
    for record in records:
      skipped.extend(jsonl.Skipped(**record['skipped']))
    if not any(shard for record in records for shard in record['shards'].values()):
      raise skipped.nothing_left(f'text in the documents of {sources.names(found)}')
    manifests = {}
    for name in splits:
      first_fields = head | {'split': name, 'skipped': skipped.count}
      shards = [record['shards'][name] for record in records]
      manifests[name] = token_shards.manifest(first_fields, shards)
    _write_skipped(out / 'skipped.jsonl', skipped)
    for name, manifest in manifests.items():
      _move(work, out, name, manifest)
    files.remove(work)
  skipped.report()
  if held_out and not manifests['val']['documents']:
    print(
      f'all documents of {sources.names(found)} are in one cluster: nothing is held out',
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
  """Returns the record of each part.

  Parts with documents that change sides are written again once all split hashes are known.
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
  """Writes place and cause of skipped rows as JSONL, or no file if none was skipped."""
  path.unlink(missing_ok=True)
  if skipped.count:
    rows = ({'place': place, 'cause': cause} for place, cause in skipped.rows)
    files.write_text(path, ''.join(json.dumps(row) + '\n' for row in rows))


def holds_conversations(
  found: Sequence[sources.File], read: Callable[[Any], dict] | None = None
) -> bool:
  """Returns whether the first document of files is a conversation.

  Args:
    found: the files.
    read: as of `spans.documents`.

  Raises:
    UserError: there is no document.
  """
  skipped = jsonl.Skipped()
  first = next(spans.documents(spans.spans(found, 1 << 62), skipped, read=read), None)
  if first is None:
    what = 'conversation' if read else 'document'
    raise skipped.nothing_left(f'{what} in {sources.names(found)}')
  return 'messages' in first


def _head(
  found: Sequence[sources.File],
  chat_format: chat_formats.Format,
  held_out: float,
  shard_bytes: int,
  max_tokens: int | None,
  read: Callable[[Any], dict] | None,
) -> dict:
  """Returns what determines the bytes of the shards: the first fields of each manifest."""
  tokenizer = chat_format.tokenizer
  kind = {'kind': 'text', 'document_start': chat_format.document_start}
  if holds_conversations(found, read):
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
  """Returns the manifests if they begin with `head` and their files are intact, else None."""
  paths = {name: out / name / 'manifest.json' for name in splits}
  for path in paths.values():
    if not path.exists() or not files.read_json(path).items() >= head.items():
      return None
  return {name: token_shards.read_manifest(path) for name, path in paths.items()}


def _move(work: files.AnyPath, out: files.AnyPath, name: str, manifest: dict) -> None:
  """Moves a finished split to its place, unless it is there already."""
  target = out / name
  if (target / 'manifest.json').exists() and files.read_json(target / 'manifest.json') == manifest:
    return
  files.write_json(work / name / 'manifest.json', manifest)
  for stray in (work / name).glob('.*.tmp'):  # a killed run left them
    stray.unlink()
  files.replace_dir(work / name, target, last='manifest.json')


def _group(all_spans: Iterable[spans.Span], size: int) -> list[list[spans.Span]]:
  """Returns the spans in groups of `size` bytes or a little more."""
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
  """Returns the record of each part in order, writing the parts that are missing."""
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
  read: Callable[[Any], dict] | None,
  kind: str,
  dtype: str,
  work: files.AnyPath,
  below: float,
):
  """Tokenizes a part into one shard for each split, and returns its record.

  A part whose record exists is complete, and is not written again.
  """
  path = _record_path(work, index)
  if path.exists():
    return files.read_json(path)
  lengths = chat_format.tokenizer.byte_lengths()
  encode = functools.partial(
    _encode, chat_format=chat_format, max_tokens=max_tokens, kind=kind, lengths=lengths
  )
  writers = {name: token_shards.ShardWriter(dtype) for name in SPLITS}
  skipped, hashes = jsonl.Skipped(), []
  for split_hash, ids, mask, size in spans.documents(part, skipped, encode, read):
    if ids:
      hashes.append(split_hash)
      writers['val' if split_hash < below else 'train'].add(ids, mask, size)
  record = {
    'hashes': [min(hashes), max(hashes)] if hashes else [],
    'skipped': dataclasses.asdict(skipped),
    'shards': {name: writer.write(work / name, index) for name, writer in writers.items()},
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
  """Returns (split hash, ids, mask, bytes) of a document; without ids if its text is empty.

  Raises UserError with the cause if the document cannot be used.
  """
  if ('messages' in document) != (kind == 'conversations'):
    raise UserError(
      field='kind of the row',
      value='text' if 'text' in document else 'conversations',
      allowed=f'{kind!r}, as of the first row',
    )
  if kind == 'conversations':
    ids, mask = chat_format.render(document, max_tokens)
    return split.split_hash(document), ids, mask, int(lengths[ids].sum())
  text = document['text']
  ids = [chat_format.document_start, *chat_format.tokenizer.encode(text)] if text else []
  return split.split_hash(document), ids, None, len(valid(text).encode())
