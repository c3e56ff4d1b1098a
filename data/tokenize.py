"""Documents to token shards: OUT/train and OUT/val, in the form of data/shards.py.

    python -m data.tokenize --input='clean/*.jsonl' --tokenizer=SPEC --out=DIR [--held-out=0.05 --workers=N]

Input files: *.jsonl and *.jsonl.gz with a document a line, {"text": ..., "id": ..., "metadata": {"cluster": ...}}, or a
conversation a line, {"messages": [...]}; any other file is one document of plain text.

A document is held out by the hash of its near-duplicate cluster (else of its id), so that copies stay on one side.
The input is cut into parts of `shard_bytes` whatever the number of workers, and a part makes one shard of each split.
The work is done in OUT/.tokenize and moved when complete: a killed run goes on where it was, and the bytes depend
neither on that nor on the number of workers.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import glob
import gzip
import hashlib
import itertools
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import tqdm

from data import chat, shards
from data import tokenizer as tokenizers
from data.tokenizers.base import valid
from lm import errors, files, processes
from lm.errors import UserError

SPLITS = ('train', 'val')
Inputs = files.Path | Sequence[files.Path]


class Span(NamedTuple):
  """Bytes [start, stop) of a JSONL file, or a whole file of text or gzip; `name`: its path below the common folder."""

  path: str
  name: str
  start: int
  stop: int


def find(inputs: Inputs) -> list[str]:
  """The files that glob patterns (a sequence, or one string of them between commas) match, sorted, each once.

  Raises FileNotFoundError for a pattern that matches none.
  """
  patterns = inputs.split(',') if isinstance(inputs, str) else inputs
  found = set()
  for pattern in [patterns] if isinstance(patterns, os.PathLike) else patterns:
    matches = [p for p in glob.glob(os.fspath(pattern), recursive=True) if os.path.isfile(p)]
    if not matches:
      raise FileNotFoundError(f'no input file matches {os.fspath(pattern)!r}')
    found.update(matches)
  return sorted(found)


def spans(paths: Sequence[str], size: int) -> list[Span]:
  """The files in order, in spans of at most about `size` bytes where the format allows a cut."""
  root = os.path.commonpath([os.path.dirname(os.path.abspath(p)) for p in paths])
  result = []
  for path in paths:
    total, name = os.path.getsize(path), os.path.relpath(path, root)
    count = math.ceil(total / size) if path.endswith('.jsonl') else 1
    cuts = [total * i // count for i in range(count + 1)] if count else []
    result += [Span(path, name, a, b) for a, b in itertools.pairwise(cuts)]
  return result


def documents(all_spans: Iterable[Span]) -> Iterator[dict]:
  """The documents of spans; of JSONL, those whose line begins in one. Raises UserError naming file and place."""
  for span in all_spans:
    if span.path.endswith(('.jsonl', '.jsonl.gz')):
      yield from _lines(span)
      continue
    try:
      yield {'id': span.name, 'text': pathlib.Path(span.path).read_bytes().decode()}
    except UnicodeDecodeError as error:
      raise UserError(f'{span.path} is not UTF-8 text: {error}') from error


def _lines(span: Span) -> Iterator[dict]:
  packed = span.path.endswith('.gz')
  with files.unpacking(span.path), gzip.open(span.path) if packed else open(span.path, 'rb') as f:
    f.seek(max(span.start - 1, 0))
    at = f.tell() + len(f.readline() if span.start else b'')
    for line in f:
      if at >= span.stop and not packed:
        return
      where, at = f'{span.path} at byte {at}', at + len(line)
      if not line.strip():
        continue
      try:
        document = json.loads(line)
      except ValueError as error:
        raise UserError(f'{where}: not JSON: {error}') from error
      if not isinstance(document, dict) or not (isinstance(document.get('text'), str) or 'messages' in document):
        raise UserError(f'{where}: neither a document with "text" nor a conversation with "messages"')
      yield document


def place(document: dict) -> float:
  """A hash in [0, 1), equal for all documents of a cluster: held out are those below the held-out share."""
  key = (document.get('metadata') or {}).get('cluster') or document.get('id') or json.dumps(document, sort_keys=True)
  return int.from_bytes(hashlib.sha256(str(key).encode(errors='replace')).digest()[:8], 'big') / 2**64


def threshold(places: Iterable[float], held_out: float) -> float:
  """Below which place a document is held out: `held_out`, or so that the least is if that were none at all."""
  return max(held_out, math.nextafter(min(places), 1)) if held_out else 0.0


def tokenize(
  inputs: Inputs,
  out_dir: files.Path,
  chat_format: chat.Format,
  *,
  held_out: float = 0.05,
  workers: int = 1,
  shard_bytes: int = 64 << 20,
  progress: bool = True,
) -> dict[str, dict]:
  """Writes out_dir/train and out_dir/val (no val when `held_out` is 0); does nothing if they are there already.

  Args:
    inputs: glob patterns of the input files (see `find` and the module's first lines).
    out_dir: folder of the two.
    chat_format: a tokenizer, and how it writes conversations.
    held_out: share of the clusters to hold out; at least one cluster is, unless 0.
    workers: processes.
    shard_bytes: input bytes that make one shard.
    progress: whether to show a bar.

  Returns:
    {split: manifest}.

  Raises:
    UserError: no document, a broken one, or none left for a split; FileNotFoundError: no file.
  """
  if not 0 <= held_out < 1 or workers < 1 or shard_bytes < 1:
    raise UserError(f'held_out={held_out} must be in [0, 1), workers={workers}, shard_bytes={shard_bytes} positive')
  paths, out = find(inputs), pathlib.Path(out_dir)
  splits = SPLITS if held_out else SPLITS[:1]
  head = _head(paths, chat_format, held_out, shard_bytes)
  if done := _complete(out, splits, head):
    return done
  work = out / '.tokenize'
  if not (work / 'plan.json').exists() or files.read_json(work / 'plan.json') != head:
    shutil.rmtree(work, ignore_errors=True)
    files.write_json(work / 'plan.json', head)

  parts = dict(enumerate(_group(spans(paths, shard_bytes), shard_bytes)))
  write = functools.partial(_write_part, chat_format=chat_format, kind=head['kind'], dtype=head['dtype'], work=work)
  records = _run(functools.partial(write, below=held_out), parts, workers, progress)
  if not any(shard for record in records for shard in record['shards'].values()):
    raise UserError(f'all documents of {_names(paths)} are empty')
  least = [record['least'] for record in records]
  if (below := threshold(least, held_out)) > held_out:  # none was held out: hold out the cluster with the least place
    for i in parts:
      if least[i] == min(least):
        _record_path(work, i).unlink()
    records = _run(functools.partial(write, below=below), parts, workers, progress)

  manifests = {s: shards.manifest(head | {'split': s}, [r['shards'][s] for r in records]) for s in splits}
  if not manifests['train']['documents']:
    raise UserError(f'all documents of {_names(paths)} are of one cluster, which is held out; give more, or held_out=0')
  for split, manifest in manifests.items():
    _move(work, out, split, manifest)
  shutil.rmtree(work)
  return manifests


def holds_conversations(paths: list[str]) -> bool:
  """Whether the first document of files is a conversation. Raises UserError if there is no document."""
  first = next(documents(spans(paths, 1 << 62)), None)
  if first is None:
    raise UserError(f'no document in {_names(paths)}')
  return 'messages' in first


def _head(paths: list[str], chat_format: chat.Format, held_out: float, shard_bytes: int) -> dict:
  """What decides the bytes of the shards; the first fields of each manifest."""
  tokenizer = chat_format.tokenizer
  kind = {'kind': 'text', 'document_start': chat_format.document_start}
  if holds_conversations(paths):
    kind = {'kind': 'conversations', 'chat_format': chat_format.fingerprint}
  return kind | {
    'version': shards.VERSION,
    'dtype': 'uint16' if tokenizer.vocab_size <= 2**16 else 'uint32',
    'record_tokens': shards.RECORD_TOKENS,
    'tokenizer': {'fingerprint': tokenizer.fingerprint, 'vocab_size': tokenizer.vocab_size},
    'source': {
      'files': len(paths),
      'bytes': sum(map(os.path.getsize, paths)),
      'sha256': files.digest([files.sha256(path) for path in paths]),
      'held_out': held_out,
      'shard_bytes': shard_bytes,
    },
  }


def _complete(out: pathlib.Path, splits: Sequence[str], head: dict) -> dict[str, dict] | None:
  """The manifests if they are those of `head` and their files are whole."""
  paths = {split: out / split / 'manifest.json' for split in splits}
  if not all(path.exists() and files.read_json(path).items() >= head.items() for path in paths.values()):
    return None
  return {split: shards.read_manifest(path) for split, path in paths.items()}


def _move(work: pathlib.Path, out: pathlib.Path, split: str, manifest: dict) -> None:
  """Puts a finished split in its place, unless that is done."""
  target = out / split
  if (target / 'manifest.json').exists() and files.read_json(target / 'manifest.json') == manifest:
    return
  files.write_json(work / split / 'manifest.json', manifest)
  for stray in (work / split).glob('.*.tmp'):  # of a killed run
    stray.unlink()
  if target.exists():
    os.replace(target, work / f'old-{split}')
  os.replace(work / split, target)


def _names(paths: Sequence[str]) -> str:
  return ', '.join(paths[:3]) + (f' and {len(paths) - 3} more' if len(paths) > 3 else '')


def _group(all_spans: Iterable[Span], size: int) -> list[list[Span]]:
  """Parts: runs of spans of `size` bytes together, or a little more."""
  groups, filled = [[]], 0
  for span in all_spans:
    if filled >= size:
      groups.append([])
      filled = 0
    groups[-1].append(span)
    filled += span.stop - span.start
  return groups


def _run(write: Callable, parts: dict[int, list[Span]], workers: int, progress: bool) -> list[dict]:
  """The record of each part, in order; writes those that are missing."""
  size = {i: sum(span.stop - span.start for span in part) for i, part in parts.items()}
  bar = tqdm.tqdm(desc='tokenize', total=sum(size.values()), unit='B', unit_scale=True, disable=not progress)
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


def _record_path(work: pathlib.Path, index: int) -> pathlib.Path:
  return work / 'parts' / f'{index:05d}.json'


def _write_part(index: int, part: list[Span], *, chat_format, kind: str, dtype: str, work: pathlib.Path, below: float):
  """Tokenizes a part into one shard a split, unless its record says that it is done; returns the record."""
  path = _record_path(work, index)
  if path.exists():
    return files.read_json(path)
  tokenizer, start = chat_format.tokenizer, chat_format.document_start
  lengths = tokenizer.byte_lengths()
  builders = {split: shards.Builder(dtype) for split in SPLITS}
  least = 1.0
  for document in documents(part):
    if ('messages' in document) != (kind == 'conversations'):
      raise UserError(f'the first document is of kind {kind!r}; {document.get("id")!r} near {part[0].path} is not')
    if kind == 'conversations':
      ids, mask = chat_format.render(document)
      size = int(lengths[ids].sum())
    elif document['text']:
      ids, mask = [start, *tokenizer.encode(document['text'])], None
      size = len(valid(document['text']).encode())
    else:
      continue  # an empty text has nothing to predict
    at = place(document)
    least = min(least, at)
    builders['val' if at < below else 'train'].add(ids, mask, size)
  record = {'least': least, 'shards': {split: b.write(work / split, index) for split, b in builders.items()}}
  files.write_json(path, record)
  return record


def main() -> None:
  parser = argparse.ArgumentParser(prog='python -m data.tokenize', description='Documents to token shards.')
  parser.add_argument('--input', required=True, help='glob patterns of JSONL or text files, between commas')
  parser.add_argument('--tokenizer', required=True, help=tokenizers.SPEC)
  parser.add_argument('--chat-format', default='auto', help='of conversations: as config.data.chat_format')
  parser.add_argument('--no-tools', action='store_true', help='of conversations: as config.data.tools=False')
  parser.add_argument('--out', required=True, help='folder for train/ and val/')
  parser.add_argument('--held-out', type=float, default=0.05, help='share of near-duplicate clusters held out')
  parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes')
  parser.add_argument('--shard-bytes', type=int, default=64 << 20, help='input bytes that make one shard')
  args = parser.parse_args()
  talks = holds_conversations(find(args.input))
  chat_format = chat.load(args.tokenizer, args.chat_format, extend=talks, tools=not args.no_tools)
  options = {'held_out': args.held_out, 'workers': args.workers, 'shard_bytes': args.shard_bytes}
  for split, m in tokenize(args.input, args.out, chat_format, **options).items():
    sizes = f'{m["documents"]:,} documents, {m["tokens"]:,} tokens, {m["bytes"]:,} bytes, {len(m["shards"])} shards'
    print(f'{args.out}/{split}/manifest.json: {sizes}')


if __name__ == '__main__':
  errors.run(main)
