"""The on-disk form of a token stream: what data.tokenize writes and data.loader reads.

A folder holds manifest.json and, for each shard,

    tokens-00007.array_record     the ids, little-endian; a record holds RECORD_TOKENS of them, the last what is left
    mask-00007.array_record       conversations only: uint8, 1 where a token is to be learned (data.chat)
    documents-00007.npy           int64 [documents, 2]: where each starts in the shard; offset in it of its first token
                                  to be learned (its length if none)

The stream is the shards' tokens one after the other. A document of text begins with the id
`document_start`, which occurs nowhere else; where a conversation begins only documents-*.npy tells.
`chat_format` is a digest of how conversations were written.
"""

import concurrent.futures
import functools
import itertools
import pathlib
import threading
from collections.abc import Iterable, Sequence

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from data.records import sources
from lm.base import buckets, files
from lm.base.errors import UserError

VERSION = 2
RECORD_TOKENS = 4096
OPEN_READERS = 256
VERIFY_THREADS = 8
CACHE = pathlib.Path.home() / '.cache' / 'deepdive' / 'shards'  # copies of buckets' files
_COPYING = threading.Lock()


class Builder:
  """Collects the documents of one shard in memory, then writes its files."""

  def __init__(self, dtype: str):
    self._dtype = np.dtype(dtype).newbyteorder('<')
    self._ids, self._masks, self._documents = [], [], []
    self.tokens = self.bytes = 0

  def add(self, ids: Sequence[int], mask: Sequence[int] | None, size: int) -> None:
    """Adds a document: its ids, which of them are to be learned (None: all but the first), its
    bytes of UTF-8.
    """
    first = 1 if mask is None else next((i for i, m in enumerate(mask) if m), len(ids))
    self._documents.append((self.tokens, first))
    self._ids.append(np.array(ids, self._dtype))
    if mask is not None:
      self._masks.append(np.array(mask, np.uint8))
    self.tokens += len(ids)
    self.bytes += size

  def write(self, folder: files.AnyPath, index: int) -> dict | None:
    """Writes the shard's files, each whole or not at all; returns its line in the manifest, None if
    it is empty.
    """
    if not self._documents:
      return None
    line = {'tokens': self.tokens, 'documents': len(self._documents), 'bytes': self.bytes}
    line |= _write_records(folder / f'tokens-{index:05d}.array_record', np.concatenate(self._ids))
    if self._masks:
      line['mask'] = _write_records(
        folder / f'mask-{index:05d}.array_record', np.concatenate(self._masks)
      )
    path = folder / f'documents-{index:05d}.npy'
    with files.atomic_path(path) as temporary:
      with open(temporary, 'wb') as f:
        np.save(f, np.array(self._documents, '<i8'))
      return line | {'index': _describe(path.name, temporary)}


def _write_records(path: files.AnyPath, values: np.ndarray) -> dict:
  data, step = values.tobytes(), RECORD_TOKENS * values.itemsize
  with files.atomic_path(path) as temporary:
    writer = ArrayRecordWriter(str(temporary), 'group_size:1,uncompressed')
    for start in range(0, len(data), step):
      writer.write(data[start : start + step])
    writer.close()
    described = _describe(path.name, temporary)
  return described


def _describe(name: str, written: pathlib.Path) -> dict:
  return {'file': name, 'size': written.stat().st_size, 'sha256': files.sha256(written)}


def manifest(head: dict, shards: Iterable[dict | None]) -> dict:
  """A manifest of the shards that are not empty, with their totals."""
  shards = [shard for shard in shards if shard]
  return (
    head
    | {key: sum(s[key] for s in shards) for key in ('tokens', 'documents', 'bytes')}
    | {'shards': shards}
  )


def read_manifest(path: files.Path, verify: bool = True) -> dict:
  """Reads a manifest and checks its files: that they are there, and hold the bytes that were
  written.

  Args:
    path: manifest.json.
    verify: whether to compare digests too. That reads every file once, by several threads (about 1
      GB/s for each core); afterwards a large file is not read again until it changes
      (`data.records.sources.sha256`). Files in a bucket are compared when they are copied (`local_file`).

  Raises:
    FileNotFoundError: there is no manifest. UserError: it is not one, or names the file that is
      missing or damaged.
  """
  value = files.read_json(path)
  if not isinstance(value, dict) or value.get('version') != VERSION or 'shards' not in value:
    raise UserError(
      f'{path} is not a manifest of token shards of version {VERSION} (see python -m data.tokenize)'
    )
  described = [
    part for shard in value['shards'] for part in (shard, shard['index'], shard.get('mask')) if part
  ]
  folder = files.as_path(path).parent
  paths = [files.within(folder, part['file'], path) for part in described]
  if buckets.is_url(folder):
    listed = buckets.sizes(folder)
    sizes = [listed.get(part['file']) for part in described]
  else:
    sizes = [files.size(file) if file.exists() else None for file in paths]
  for part, file, size in zip(described, paths, sizes, strict=True):
    if size is None:
      raise UserError(f'shard file {file} is missing')
    if size != part['size']:
      raise UserError(f'shard file {file} is damaged: {size} bytes, {part["size"]} in the manifest')
  if verify and not buckets.is_url(folder):
    _verify(folder, described)
  return value


def local_file(folder: files.Path, part: dict, cache: str) -> pathlib.Path:
  """Where a file that a manifest describes can be read: itself, or in a bucket a copy of it, made
  when it is first asked for.

  Args:
    folder: the manifest's.
    part: its entry.
    cache: folder of copies, each under its SHA-256; '': CACHE.

  Raises UserError naming the file if it does not hold the bytes that were written.
  """
  source = files.as_path(folder) / part['file']
  if not buckets.is_url(source):
    return source
  copy = files.within(pathlib.Path(cache or CACHE).expanduser(), part['sha256'], folder)
  with _COPYING:  # the threads of a loader ask for one file at one time
    if not copy.exists():
      with files.atomic_path(copy) as temporary:
        buckets.download(source, temporary)
        if files.sha256(temporary) != part['sha256']:
          raise UserError(f'shard file {source} is damaged: its SHA-256 has changed')
  return copy


def _verify(folder: pathlib.Path, described: list[dict]) -> None:
  """Raises UserError that names a file whose digest is not the manifest's."""
  with concurrent.futures.ThreadPoolExecutor(VERIFY_THREADS) as pool:
    digests = pool.map(
      lambda part: sources.sha256(sources.describe(folder / part['file'])), described
    )
    for part, digest in zip(described, digests, strict=True):
      if digest != part['sha256']:
        pool.shutdown(cancel_futures=True)
        raise UserError(f'shard file {folder / part["file"]} is damaged: its SHA-256 has changed')


def document_index(folder: files.Path, manifest: dict, cache: str = '') -> np.ndarray:
  """int64 [documents, 2]: where each starts in the stream, and the offset in it of its first token
  to be learned.
  """
  base = 0
  parts = []
  for shard in manifest['shards']:
    parts.append(np.load(local_file(folder, shard['index'], cache)) + np.array([base, 0]))
    base += shard['tokens']
  return np.concatenate(parts)


class Stream:
  """Random access to the tokens (or the mask) of a manifest's shards, from several threads at once.

  Attributes:
    tokens: how many there are.
  """

  def __init__(self, folder: files.Path, manifest: dict, mask: bool = False, cache: str = ''):
    self._parts = [shard['mask'] if mask else shard for shard in manifest['shards']]
    self._folder, self._cache = files.as_path(folder), cache
    self._dtype = np.dtype('uint8' if mask else manifest['dtype']).newbyteorder('<')
    self._ends = np.cumsum([shard['tokens'] for shard in manifest['shards']])
    self._starts = [0, *self._ends[:-1].tolist()]
    self._reader = functools.lru_cache(OPEN_READERS)(self._open)
    self.tokens = manifest['tokens']

  def read(self, spans: Iterable[tuple[int, int]]) -> list[np.ndarray]:
    """The tokens [start, stop) of each span, each record read once.

    Raises UserError naming the file of a record that cannot be read.
    """
    rows = [list(self._pieces(start, stop)) for start, stop in spans]
    wanted = {}
    for shard, record, _, _ in itertools.chain.from_iterable(rows):
      wanted.setdefault(shard, {})[record] = None
    records = {shard: self._records(shard, list(numbers)) for shard, numbers in wanted.items()}
    return [np.concatenate([records[s][r][a:b] for s, r, a, b in row]) for row in rows]

  def _pieces(self, start, stop):
    """Where a span lies: (shard, record in it, start and stop in that record)."""
    shard = int(np.searchsorted(self._ends, start, side='right'))
    while start < stop:
      record, offset = divmod(start - self._starts[shard], RECORD_TOKENS)
      end = min(stop, self._starts[shard] + (record + 1) * RECORD_TOKENS, int(self._ends[shard]))
      yield shard, record, offset, offset + end - start
      shard += end == self._ends[shard]
      start = end

  def _records(self, shard: int, numbers: list[int]) -> dict[int, np.ndarray]:
    try:
      data = self._reader(shard).read(numbers)
    except (ValueError, IndexError, RuntimeError) as error:
      raise UserError(
        f'shard file {self._folder / self._parts[shard]["file"]} is damaged: {error}'
      ) from error
    return {n: np.frombuffer(d, self._dtype) for n, d in zip(numbers, data, strict=True)}

  def _open(self, shard: int) -> ArrayRecordReader:
    path = local_file(self._folder, self._parts[shard], self._cache)
    return ArrayRecordReader(str(path), options='readahead_buffer_size:0')
