"""The on-disk format of a token stream, which data.tokenize writes and the loader reads.

A folder contains manifest.json and, for each shard,

  tokens-00007.array_record: the ids, little-endian. A record has RECORD_TOKENS of them; the last
  has the rest.
  mask-00007.array_record: for conversations only, uint8, 1 where a token is learned (data.chat).
  documents-00007.npy: int64 [documents, 2]: where each document starts in the shard, and the offset
  in it of its first learned token (its length if there is none).

The stream consists of the shards' tokens one after the other. A text document begins with the id
`document_start`, which occurs nowhere else; where a conversation begins is only in documents-*.npy.
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
from lm.base.errors import UserError, invalid

VERSION = 2  # of the format
RECORD_TOKENS = 4096
OPEN_READERS = 256  # shard files that a stream keeps open
VERIFY_THREADS = 8
CACHE = pathlib.Path.home() / '.cache' / 'deepdive' / 'shards'  # copies of remote files
_COPYING = threading.Lock()


class ShardWriter:
  """Collects the documents of one shard in memory, then writes its files."""

  def __init__(self, dtype: str):
    self._dtype = np.dtype(dtype).newbyteorder('<')
    self._ids, self._masks, self._documents = [], [], []
    self.tokens = self.bytes = 0

  def add(self, ids: Sequence[int], mask: Sequence[int] | None, size: int) -> None:
    """Adds a document.

    Args:
      ids: its tokens.
      mask: which of them are learned; None for all but the first.
      size: its size in UTF-8 bytes.
    """
    first = 1
    self._ids.append(np.array(ids, self._dtype))
    if mask is not None:
      mask = np.array(mask, np.uint8)
      first = int(mask.argmax()) if mask.any() else len(ids)
      self._masks.append(mask)
    self._documents.append((self.tokens, first))
    self.tokens += len(ids)
    self.bytes += size

  def write(self, folder: files.AnyPath, index: int) -> dict | None:
    """Writes the shard's files and returns its entry in the manifest, or None if it is empty.

    Each file is written completely or not at all.
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
  """Writes an array as records of RECORD_TOKENS elements; returns the file's description."""
  data, step = values.tobytes(), RECORD_TOKENS * values.itemsize
  with files.atomic_path(path) as temporary:
    writer = ArrayRecordWriter(str(temporary), 'group_size:1,uncompressed')
    for start in range(0, len(data), step):
      writer.write(data[start : start + step])
    writer.close()
    described = _describe(path.name, temporary)
  return described


def _describe(name: str, written: pathlib.Path) -> dict:
  """Returns the description of a file in a manifest."""
  return {'file': name, 'size': written.stat().st_size, 'sha256': files.sha256(written)}


def manifest(head: dict, shards: Iterable[dict | None]) -> dict:
  """Returns a manifest of the shards that are not empty, with their totals."""
  shards = [shard for shard in shards if shard]
  totals = {key: sum(shard[key] for shard in shards) for key in ('tokens', 'documents', 'bytes')}
  return {**head, **totals, 'shards': shards}


def read_manifest(path: files.Path, verify: bool = True) -> dict:
  """Returns a manifest after checking that its files exist and have the bytes that were written.

  Args:
    path: manifest.json.
    verify: whether to compare digests, too. That reads every file once, in several threads (about 1
      GB/s per core); a large file is not read again until it changes
      (`data.records.sources.sha256`). Remote files are compared when they are copied
      (`local_file`).

  Raises:
    FileNotFoundError: there is no manifest.
    UserError: the file is not a manifest, or a shard file is missing or damaged; the error names
      it.
  """
  value = files.read_json(path)
  version = value.get('version') if isinstance(value, dict) and 'shards' in value else None
  if version != VERSION:
    raise UserError(
      field=f'version of the token shards of {path}',
      value=version,
      allowed=f'{VERSION}, which python -m data.tokenize writes',
    )
  described = []
  for shard in value['shards']:
    described += [shard, shard['index']]
    if 'mask' in shard:
      described.append(shard['mask'])
  folder = files.as_path(path).parent
  paths = [files.within(folder, part['file'], path) for part in described]
  if buckets.is_url(folder):
    listed = buckets.sizes(folder)
    sizes = [listed.get(part['file']) for part in described]
  else:
    sizes = [files.size(file) if file.exists() else None for file in paths]
  for part, file, size in zip(described, paths, sizes, strict=True):
    if size is None:
      raise UserError(field=f'shard file {file}', allowed=f'a file of {part["size"]} bytes')
    if size != part['size']:
      raise UserError(
        field=f'size of shard file {file}',
        value=size,
        allowed=f'{part["size"]} bytes',
        message='The file is damaged.',
      )
  if verify and not buckets.is_url(folder):
    _verify(folder, described)
  return value


def local_file(folder: files.Path, part: dict, cache: str) -> pathlib.Path:
  """Returns the local path of a file in a manifest, copying a remote file on first use.

  Args:
    folder: the manifest's folder.
    part: the file's entry in the manifest.
    cache: folder of copies, each named by its SHA-256; '' for CACHE.

  Raises UserError that names the file if it does not have the bytes that were written.
  """
  source = files.as_path(folder) / part['file']
  if not buckets.is_url(source):
    return source
  copy = files.within(pathlib.Path(cache or CACHE).expanduser(), part['sha256'], folder)
  with _COPYING:  # the threads of a loader request the same file at the same time
    if not copy.exists():
      with files.atomic_path(copy) as temporary:
        buckets.download(source, temporary)
        _check_digest(source, files.sha256(temporary), part['sha256'])
  return copy


def _check_digest(file: files.Path, digest: str, expected: str) -> None:
  """Raises UserError if the SHA-256 of a shard file is not the manifest's."""
  if digest != expected:
    raise UserError(
      field=f'SHA-256 of shard file {file}',
      value=digest,
      allowed=expected,
      message='The file is damaged.',
    )


def _verify(folder: pathlib.Path, described: list[dict]) -> None:
  """Raises UserError that names a file whose digest is not the manifest's."""
  with concurrent.futures.ThreadPoolExecutor(VERIFY_THREADS) as pool:
    digests = pool.map(
      lambda part: sources.sha256(sources.describe(folder / part['file'])), described
    )
    try:
      for part, digest in zip(described, digests, strict=True):
        _check_digest(folder / part['file'], digest, part['sha256'])
    except UserError:
      pool.shutdown(cancel_futures=True)
      raise


def document_index(folder: files.Path, manifest: dict, cache: str = '') -> np.ndarray:
  """Returns the start of each document and the offset of its first learned token.

  The result is int64 [documents, 2]; starts are positions in the stream.
  """
  base = 0
  parts = []
  for shard in manifest['shards']:
    parts.append(np.load(local_file(folder, shard['index'], cache)) + np.array([base, 0]))
    base += shard['tokens']
  return np.concatenate(parts)


class Stream:
  """Random access to the tokens (or the mask) of a manifest's shards, safe for several threads.

  Attributes:
    tokens: number of tokens.
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
    """Returns the tokens [start, stop) of each span; each record is read once.

    Raises UserError that names the file of a record that cannot be read.
    """
    rows = [list(self._pieces(start, stop)) for start, stop in spans]
    wanted = {}
    for shard, record, _, _ in itertools.chain.from_iterable(rows):
      wanted.setdefault(shard, {})[record] = None
    records = {shard: self._records(shard, list(numbers)) for shard, numbers in wanted.items()}
    return [np.concatenate([records[s][r][a:b] for s, r, a, b in row]) for row in rows]

  def _pieces(self, start, stop):
    """Yields the location of a span: (shard, record in it, start and stop in that record)."""
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
      path = self._folder / self._parts[shard]['file']
      raise invalid(f'shard file {path}', 'readable', error) from error
    return {n: np.frombuffer(d, self._dtype) for n, d in zip(numbers, data, strict=True)}

  def _open(self, shard: int) -> ArrayRecordReader:
    path = local_file(self._folder, self._parts[shard], self._cache)
    return ArrayRecordReader(str(path), options='readahead_buffer_size:0')
