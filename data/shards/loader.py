"""Batches of a token stream: `Loader.batch(step)` depends on the manifest, the seed, the step and
the batch size alone.

Neither restarts nor the number of hosts change what a step holds, and going on at a step costs
nothing. Grain reads ahead in `Loader.iterate`.
"""

import bisect
import hashlib
import math
from collections.abc import Callable, Iterator

import grain
import numpy as np

from data.records import hashing
from data.shards import token_shards
from lm.base import files
from lm.base.errors import UserError, unknown

LAYOUTS = ('windows', 'packed')
_ROUNDS = 8


class Loader:
  """Rows of `seq_len` predictions, cut from the token shards of a manifest.

  'windows': row i predicts tokens i * seq_len + 1 .. (i + 1) * seq_len of the stream from those one
  before, so every token but the first is predicted once an epoch. What is left after the last whole
  row is dropped, or with `pad_last` a padded row of its own. 'packed': whole documents share a row,
  as many as fit (see `pack`), and none predicts another's first token. One that is longer than
  seq_len + 1 is cut there; one without a token to be learned is left out, so no row is without.

  Training (`pad_last=False`) starts over for ever: example n is in epoch n // rows, each epoch in
  an order of its own, and one batch may hold the end of an epoch and the start of the next. With
  `pad_last` there is one epoch of `steps_per_epoch` steps, the last filled with empty rows, and a
  later step is an IndexError.

  Attributes:
    rows: rows of an epoch.
    steps_per_epoch: batches that hold all rows once (the last perhaps in part).
    tokens, bytes: of the whole stream, and the UTF-8 bytes of its text.
    dropped_tokens: in 'packed', those cut off or left out.
    manifest: the manifest's content; fingerprint: its SHA-256 (hex).
  """

  def __init__(
    self,
    manifest: files.Path,
    *,
    seq_len: int,
    batch_size: int,
    seed: int,
    layout: str = 'windows',
    shuffle: bool = True,
    pad_last: bool = False,
    verify: bool = True,
    cache: str = '',
  ):
    """Opens a manifest.

    Args:
      manifest: path of manifest.json.
      seq_len: predictions in a row.
      batch_size: rows in the batch of all hosts together.
      seed: of the order of rows.
      layout: 'windows' or 'packed'.
      shuffle: whether rows come in a random order, another each epoch, or as in the stream.
      pad_last: for evaluation, see above.
      verify: see shards.read_manifest.
      cache: where files of a bucket are copied, see shards.local_file.

    Raises:
      UserError: a shard is missing or damaged (named), the data is less than a row, or an argument
        is not allowed.
      FileNotFoundError: there is no manifest.
    """
    if layout not in LAYOUTS:
      raise unknown('layout', layout, LAYOUTS)
    if seq_len < 1 or batch_size < 1:
      raise UserError(f'seq_len is {seq_len} and batch_size {batch_size}; both must be at least 1')
    self.manifest = token_shards.read_manifest(manifest, verify)
    if not self.manifest['shards']:
      raise UserError(f'{manifest} holds no documents')
    self.fingerprint = files.digest(self.manifest)
    self.tokens, self.bytes = self.manifest['tokens'], self.manifest['bytes']
    self.dropped_tokens = 0
    self._folder, self._width = files.as_path(manifest).parent, seq_len + 1
    self._batch_size, self._seed = batch_size, seed
    self._shuffle, self._pad_last, self._packed = shuffle, pad_last, layout == 'packed'
    self._stream = token_shards.Stream(self._folder, self.manifest, cache=cache)
    has_mask = self.manifest['kind'] == 'conversations'
    self._mask = (
      token_shards.Stream(self._folder, self.manifest, mask=True, cache=cache) if has_mask else None
    )
    self._starts = (
      token_shards.document_index(self._folder, self.manifest, cache)[:, 0] if has_mask else None
    )
    if self._packed:
      self._documents, self._row_ends = self._pack()
      self.rows = len(self._row_ends)
    else:
      self.rows = (math.ceil if pad_last else math.floor)((self.tokens - 1) / seq_len)
    self.steps_per_epoch = math.ceil(self.rows / batch_size)
    if self.rows < 1:
      raise UserError(
        f'{manifest}: {self.tokens} tokens do not make one row of seq_len {seq_len} in layout '
        f'{layout!r}'
      )

  def batch(
    self, step: int, host: int = 0, hosts: int = 1, parts: int = 1
  ) -> dict[str, np.ndarray]:
    """The rows of one step that are one host's: hosts in order make the batch that one host alone
    would get.

    With `parts` that is so for each of that many equal parts of the batch (microbatches), which
    follow one another.

    Returns:
      inputs, targets: int32 [batch_size / hosts, seq_len]; 0 on padding.
      segment_ids: int32, 1.. in each row, one for each document (or what a row has of it); 0 on
        padding.
      positions: int32, from 0 in each segment.
      weights: float32, 0 on padding, on targets that are not to be learned and, in 'packed', on
        another segment's.

    Raises:
      IndexError: step < 0, or past the end with `pad_last`. UserError: hosts must divide each part;
        a damaged shard.
    """
    if step < 0 or (self._pad_last and step >= self.steps_per_epoch):
      raise IndexError(
        f'step {step} is not in [0, {self.steps_per_epoch if self._pad_last else "inf"})'
      )
    return self.rows_of(share(step, self._batch_size, host, hosts, parts))

  def rows_of(self, examples: np.ndarray) -> dict[str, np.ndarray]:
    """The fields of `batch` for these examples, int64 [n], numbered from the first of the first
    step.
    """
    row_spans = [self._spans(row) for row in self._order(examples)]
    tokens, length = self._read(self._stream, row_spans)
    valid = np.arange(1, self._width) < length[:, None]
    starts = self._document_starts(tokens, row_spans)
    weights = valid if self._mask is None else self._read(self._mask, row_spans)[0][:, 1:] * valid
    if self._packed:
      weights = weights * ~starts[:, 1:]
    starts[:, 0] = True
    starts, place = starts[:, :-1], np.arange(self._width - 1, dtype=np.int32)
    begun = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    return {
      'inputs': tokens[:, :-1] * valid,
      'targets': np.ascontiguousarray(tokens[:, 1:]),
      'segment_ids': np.cumsum(starts, axis=1, dtype=np.int32) * valid,
      'positions': (place - begun) * valid,
      'weights': weights.astype(np.float32),
    }

  def iterate(
    self, start: int, stop: int, host: int = 0, hosts: int = 1, parts: int = 1
  ) -> Iterator[dict[str, np.ndarray]]:
    """`batch` of steps start .. stop - 1, read ahead."""
    return read_ahead(lambda step: self.batch(step, host, hosts, parts), start, stop)

  def epoch(self, steps: int) -> float:
    """How often this many steps go through the data."""
    return steps * self._batch_size / self.rows

  def _order(self, examples: np.ndarray) -> list[int]:
    """The row of each example; `rows` and beyond are the empty rows after the end."""
    if self._pad_last:
      end = np.maximum(examples, self.rows)  # stay as they are
      return np.where(
        examples < self.rows, self._shuffled(np.minimum(examples, self.rows - 1), 0), end
      ).tolist()
    epochs, index = np.divmod(examples, self.rows)
    for epoch in np.unique(epochs).tolist():
      index[epochs == epoch] = self._shuffled(index[epochs == epoch], epoch)
    return index.tolist()

  def _shuffled(self, index: np.ndarray, epoch: int) -> np.ndarray:
    return permute(index, self.rows, f'{self._seed}/{epoch}') if self._shuffle else index

  def _spans(self, row: int) -> list[tuple[int, int]]:
    """The parts of the stream that make a row."""
    if row >= self.rows:
      return []
    if self._packed:
      first = self._row_ends[row - 1] if row else 0
      return [tuple(span) for span in self._documents[first : self._row_ends[row]].tolist()]
    start = row * (self._width - 1)
    return [(start, min(start + self._width, self.tokens))]

  def _read(
    self, stream: token_shards.Stream, row_spans: list[list[tuple[int, int]]]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Rows of int32 [rows, seq_len + 1], filled up with zeros, and how much of each is filled."""
    parts = iter(stream.read(span for row in row_spans for span in row))
    values, length = (
      np.zeros((len(row_spans), self._width), np.int32),
      np.zeros(len(row_spans), np.int64),
    )
    for i, row in enumerate(row_spans):
      for _ in row:
        part = next(parts)
        values[i, length[i] : length[i] + len(part)] = part
        length[i] += len(part)
    return values, length

  def _document_starts(
    self, tokens: np.ndarray, row_spans: list[list[tuple[int, int]]]
  ) -> np.ndarray:
    """bool [rows, seq_len + 1]: where documents begin. No token of its own begins a conversation:
    the index says.
    """
    if self._starts is None:
      return tokens == self.manifest['document_start']
    starts = np.zeros(tokens.shape, bool)
    for i, row in enumerate(row_spans):
      at = 0
      for start, stop in row:
        first, last = np.searchsorted(self._starts, [start, stop])
        starts[i, self._starts[first:last] - start + at] = True
        at += stop - start
    return starts

  def _pack(self) -> tuple[np.ndarray, np.ndarray]:
    """Spans int64 [documents, 2] in the order of rows, and the end of each row in them."""
    starts, first = token_shards.document_index(self._folder, self.manifest).T
    lengths = np.minimum(np.diff(starts, append=self.tokens), self._width)
    useful = first < lengths
    self.dropped_tokens = int(self.tokens - lengths[useful].sum())
    starts, lengths = starts[useful], lengths[useful]
    rows = pack(lengths, self._width)
    order = np.argsort(rows, kind='stable')
    return np.stack([starts, starts + lengths], axis=1)[order], np.cumsum(np.bincount(rows))


def share(step: int, batch_size: int, host: int, hosts: int, parts: int = 1) -> np.ndarray:
  """The examples of a step that are one host's. Raises UserError if hosts do not divide the parts
  of the batch.
  """
  if batch_size % (hosts * parts) or not 0 <= host < hosts:
    raise UserError(
      f'batch size {batch_size} cannot be divided into {parts} parts and among {hosts} hosts (host '
      f'{host})'
    )
  examples = step * batch_size + np.arange(batch_size).reshape(parts, hosts, -1)
  return examples[:, host].reshape(-1)


def read_ahead(
  batch: Callable[[int], dict], start: int, stop: int
) -> Iterator[dict[str, np.ndarray]]:
  """`batch` of steps start .. stop - 1, read ahead by two threads of Grain's; no process is
  started.
  """
  steps = grain.MapDataset.range(start, stop).map(lambda step: batch(int(step)))
  return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)))


def pack(lengths: np.ndarray, size: int) -> np.ndarray:
  """The row of each document when rows hold `size` tokens: best fit, longest first.

  Works on the histogram of lengths, as in Krell et al. 2021 (arXiv 2107.02027), so a million
  documents take no longer than the number of different lengths asks for. All rows of one group have
  the same space left and the same lengths.

  Args:
    lengths: int [n], each in 1..size.

  Returns:
    int64 [n], numbers from 0 without a gap.
  """
  groups = {}  # space left -> [(rows, ((length, times), ...)), ...]
  spaces = []  # its keys, sorted
  full = []

  def put(space, rows, held):
    if not space:
      full.append((rows, held))
    elif rows:
      if space not in groups:
        bisect.insort(spaces, space)
      groups.setdefault(space, []).append((rows, held))

  values, counts = np.unique(lengths, return_counts=True)
  for length, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
    while count:
      at = bisect.bisect_left(spaces, length)
      space = spaces[at] if at < len(spaces) else size
      rows, held = (
        groups[space].pop() if at < len(spaces) else (math.ceil(count / (size // length)), ())
      )
      if at < len(spaces) and not groups[space]:
        del groups[spaces.pop(at)]
      times = space // length
      whole = min(rows, count // times)
      put(space - times * length, whole, (*held, (length, times)))
      count -= whole * times
      if whole < rows:
        if count:
          put(space - count * length, 1, (*held, (length, count)))
          whole += 1
          count = 0
        put(space, rows - whole, held)
  full += [group for rest in groups.values() for group in rest]

  by_length = np.argsort(lengths, kind='stable')
  taken = dict(zip(values.tolist(), (np.cumsum(counts) - counts).tolist(), strict=True))
  result, first = np.empty(len(lengths), np.int64), 0
  for rows, held in full:
    for length, times in held:
      mine = by_length[taken[length] : taken[length] + rows * times]
      result[mine] = first + np.repeat(np.arange(rows), times)
      taken[length] += rows * times
    first += rows
  return result


def permute(index: np.ndarray, size: int, key: str) -> np.ndarray:
  """Where a pseudo-random permutation of range(size) sends each index, at a cost that does not
  depend on size.

  A Feistel network over the next even power of two, walked on while out of range (Black and Rogaway
  2002, "Ciphers with arbitrary finite domains", section 3). It is ours because no library's
  promises the same order for ever.

  Args:
    index: int [n], each in [0, size).
    size: up to 2**62.
    key: names the permutation.
  """
  half = np.uint64(max(1, math.ceil((size - 1).bit_length() / 2)))
  mask = (np.uint64(1) << half) - np.uint64(1)
  keys = np.frombuffer(hashlib.shake_128(key.encode()).digest(8 * _ROUNDS), '<u8').astype(np.uint64)

  def network(x):
    left, right = x >> half, x & mask
    for k in keys:
      left, right = right, left ^ (hashing.mix(right ^ k) & mask)
    return left << half | right

  x = network(np.asarray(index, np.uint64))
  while (outside := x >= size).any():
    x[outside] = network(x[outside])
  return x.astype(np.int64)
