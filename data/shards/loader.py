"""Reads batches of a token stream: `Loader.batch(step)` is a pure function of the step.

A batch depends on the manifest, the seed, the step and the batch size alone, not on restarts or the
number of hosts (a host is one process of a run). Starting at any step costs nothing. Grain reads
ahead in `Loader.iterate`.
"""

import bisect
import hashlib
import math
from collections.abc import Callable, Iterator

import numpy as np

from data.records import hashing
from data.shards import token_shards
from lm.base import files
from lm.base.errors import UserError, unknown

LAYOUTS = ('windows', 'packed')
_ROUNDS = 8  # rounds of the Feistel network of `permute`


class Loader:
  """Rows of `seq_len` predictions, read from the token shards of a manifest.

  In the layout 'windows', row i predicts tokens i * seq_len + 1 .. (i + 1) * seq_len of the stream,
  each from those before it, so every token but the first is predicted once per epoch. What is left
  after the last whole row is dropped, or with `pad_last` padded to a row. In 'packed', whole
  documents share a row, as many as fit (see `pack`), and none predicts another's first token. A
  document longer than seq_len + 1 is cut there. A document without a learned token is left out, so
  every row has one.

  Training (`pad_last=False`) starts over forever: example n is in epoch n // rows, each epoch has
  an order of its own, and one batch may contain the end of an epoch and the start of the next. With
  `pad_last` there is one epoch of `steps_per_epoch` steps, the last filled up with empty rows, and
  a later step is an IndexError.

  Attributes:
    rows: number of rows in an epoch.
    steps_per_epoch: number of batches that contain all rows once; the last may be partly empty.
    tokens, bytes: size of the whole stream in tokens, and of its text in UTF-8 bytes.
    dropped_tokens: in 'packed', the number of tokens that are cut off or left out.
    manifest: the manifest's content.
    fingerprint: SHA-256 (hex) of the manifest's content.
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
      seq_len: number of predictions in a row.
      batch_size: number of rows in the batch of all hosts together.
      seed: seed of the order of rows.
      layout: 'windows' or 'packed'.
      shuffle: whether rows have a random order, another in each epoch, or that of the stream.
      pad_last: whether there is one epoch, for evaluation, as described above.
      verify: see token_shards.read_manifest.
      cache: folder for copies of remote files, see token_shards.local_file.

    Raises:
      UserError: a shard is missing or damaged (the error names it), the data is less than one row,
        or an argument is not allowed.
      FileNotFoundError: there is no manifest.
    """
    if layout not in LAYOUTS:
      raise unknown('layout', layout, LAYOUTS)
    for field, number in (('seq_len', seq_len), ('batch_size', batch_size)):
      if number < 1:
        raise UserError(field=field, value=number, allowed='at least 1')
    self.manifest = token_shards.read_manifest(manifest, verify)
    if not self.manifest['shards']:
      raise UserError(field=f'number of documents of {manifest}', value=0, allowed='at least 1')
    self.fingerprint = files.digest(self.manifest)
    self.tokens, self.bytes = self.manifest['tokens'], self.manifest['bytes']
    self.dropped_tokens = 0
    self._folder, self._width = files.as_path(manifest).parent, seq_len + 1
    self._batch_size, self._seed = batch_size, seed
    self._shuffle, self._pad_last, self._packed = shuffle, pad_last, layout == 'packed'
    self._stream = token_shards.Stream(self._folder, self.manifest, cache=cache)
    self._mask = self._starts = None
    if self.manifest['kind'] == 'conversations':
      self._mask = token_shards.Stream(self._folder, self.manifest, mask=True, cache=cache)
      self._starts = token_shards.document_index(self._folder, self.manifest, cache)[:, 0]
    if self._packed:
      self._documents, self._row_ends = self._pack()
      self.rows = len(self._row_ends)
    else:
      self.rows = (math.ceil if pad_last else math.floor)((self.tokens - 1) / seq_len)
    self.steps_per_epoch = math.ceil(self.rows / batch_size)
    if self.rows < 1:
      raise UserError(
        field='seq_len',
        value=seq_len,
        allowed='a length of which the tokens make at least one row',
        message=f'{manifest} has {self.tokens} tokens; the layout is {layout!r}.',
      )

  def batch(
    self, step: int, host: int = 0, hosts: int = 1, parts: int = 1
  ) -> dict[str, np.ndarray]:
    """Returns one host's rows of a step; all hosts' rows in order make the whole batch.

    The batch consists of `parts` equal parts (microbatches), which follow each other, and each host
    has its rows of every part.

    Returns:
      inputs, targets: int32 [batch_size / hosts, seq_len]; 0 on padding.
      segment_ids: int32, 1, 2, ... in each row, one for each document (or what the row has of it);
        0 on padding.
      positions: int32, counted from 0 in each segment.
      weights: float32; 0 on padding, on targets that are not learned and, in 'packed', on targets
        in another segment.

    Raises:
      IndexError: the step is negative, or past the end with `pad_last`.
      UserError: hosts do not divide each part, or a shard is damaged.
    """
    end = self.steps_per_epoch if self._pad_last else math.inf
    if not 0 <= step < end:
      raise IndexError(f'step {step} is not in [0, {end})')
    return self.rows_of(host_examples(step, self._batch_size, host, hosts, parts))

  def rows_of(self, examples: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the fields of `batch` for these examples.

    Args:
      examples: int64 [n], numbered from the first example of step 0.
    """
    row_spans = [self._spans(row) for row in self._order(examples)]
    tokens, length = self._read(self._stream, row_spans)
    valid = np.arange(1, self._width) < length[:, None]
    starts = self._document_starts(tokens, row_spans)
    weights = valid
    if self._mask is not None:
      learned, _ = self._read(self._mask, row_spans)
      weights = learned[:, 1:] * valid
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
    """Returns an iterator over the batches of steps start .. stop - 1, which reads ahead."""
    return read_ahead(lambda step: self.batch(step, host, hosts, parts), start, stop)

  def epoch(self, steps: int) -> float:
    """Returns how many times this many steps read the data."""
    return steps * self._batch_size / self.rows

  def _order(self, examples: np.ndarray) -> list[int]:
    """Returns the row of each example; numbers from `rows` on are the empty rows after the end."""
    if self._pad_last:
      shuffled = self._shuffled(np.minimum(examples, self.rows - 1), 0)
      return np.where(examples < self.rows, shuffled, examples).tolist()
    epochs, index = np.divmod(examples, self.rows)
    for epoch in np.unique(epochs).tolist():
      index[epochs == epoch] = self._shuffled(index[epochs == epoch], epoch)
    return index.tolist()

  def _shuffled(self, index: np.ndarray, epoch: int) -> np.ndarray:
    return permute(index, self.rows, f'{self._seed}/{epoch}') if self._shuffle else index

  def _spans(self, row: int) -> list[tuple[int, int]]:
    """Returns the parts of the stream that make a row."""
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
    """Returns int32 [rows, seq_len + 1], filled up with zeros, and the length of each row."""
    parts = iter(stream.read(span for row in row_spans for span in row))
    values = np.zeros((len(row_spans), self._width), np.int32)
    length = np.zeros(len(row_spans), np.int64)
    for i, row in enumerate(row_spans):
      for _ in row:
        part = next(parts)
        values[i, length[i] : length[i] + len(part)] = part
        length[i] += len(part)
    return values, length

  def _document_starts(
    self, tokens: np.ndarray, row_spans: list[list[tuple[int, int]]]
  ) -> np.ndarray:
    """Returns where documents begin: bool [rows, seq_len + 1].

    No special token begins a conversation, so its start is read from the document index.
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
    """Returns spans int64 [documents, 2] in the order of rows, and the end of each row in them."""
    starts, first = token_shards.document_index(self._folder, self.manifest).T
    lengths = np.minimum(np.diff(starts, append=self.tokens), self._width)
    useful = first < lengths
    self.dropped_tokens = int(self.tokens - lengths[useful].sum())
    starts, lengths = starts[useful], lengths[useful]
    rows = pack(lengths, self._width)
    order = np.argsort(rows, kind='stable')
    return np.stack([starts, starts + lengths], axis=1)[order], np.cumsum(np.bincount(rows))


def host_examples(step: int, batch_size: int, host: int, hosts: int, parts: int = 1) -> np.ndarray:
  """Returns the examples of a step that one host reads.

  Raises UserError if the hosts do not divide the parts of the batch.
  """
  if batch_size % (hosts * parts):
    raise UserError(
      field='batch_size',
      value=batch_size,
      allowed=f'a multiple of {hosts * parts}, for {parts} parts among {hosts} hosts',
    )
  if not 0 <= host < hosts:
    raise UserError(field='host', value=host, allowed=f'from 0 to {hosts - 1}')
  examples = step * batch_size + np.arange(batch_size).reshape(parts, hosts, -1)
  return examples[:, host].reshape(-1)


def read_ahead(
  batch: Callable[[int], dict], start: int, stop: int
) -> Iterator[dict[str, np.ndarray]]:
  """Returns an iterator over `batch` of steps start .. stop - 1 that reads ahead.

  It uses two of Grain's threads and no other process.
  """
  import grain  # it imports jax, which looking at batches does without

  steps = grain.MapDataset.range(start, stop).map(lambda step: batch(int(step)))
  return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)))


def pack(lengths: np.ndarray, size: int) -> np.ndarray:
  """Returns the row of each document when rows hold `size` tokens: best fit, longest first.

  It works on the histogram of lengths, as in Krell et al. 2021 (arXiv 2107.02027), so its time
  depends on the number of different lengths, not on the number of documents. All rows of a group
  have the same lengths and the same space left.

  Args:
    lengths: int [n], each in 1..size.
    size: number of tokens in a row.

  Returns:
    int64 [n], row numbers from 0 without a gap.
  """
  groups = {}  # {space left: [(number of rows, ((length, times), ...)), ...]}
  spaces = []  # the keys of `groups`, sorted
  full = []  # the same for rows without space

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
      if at < len(spaces):
        space = spaces[at]
        rows, held = groups[space].pop()
        if not groups[space]:
          del groups[spaces.pop(at)]
      else:  # no row has enough space: begin new ones
        space = size
        rows, held = math.ceil(count / (size // length)), ()
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
  """Returns where a pseudo-random permutation of range(size) sends each index.

  It is a Feistel network over the next even power of two, repeated while the result is out of range
  (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", section 3), so its cost does not
  depend on `size`. It is implemented here because no library promises the same order forever.

  Args:
    index: int [n], each in [0, size).
    size: number of elements, up to 2**62.
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
