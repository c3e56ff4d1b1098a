import functools
import itertools
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from data.chat import chat_formats
from data.shards import loader, token_shards, tokenization
from lm.base import files
from lm.base.errors import UserError

BOS = 1000
FIELDS = {
  **dict.fromkeys(('inputs', 'targets', 'segment_ids', 'positions'), np.int32),
  'weights': np.float32,
}


def write(folder, lengths, masks=None, dtype='uint16', per_shard=3):
  """Shards of documents of these lengths, with ids that tell their place. Returns the manifest and
  the stream.
  """
  rng = np.random.default_rng(0)
  documents = [[BOS, *rng.integers(0, 1000, n - 1).tolist()] for n in lengths]
  lines = []
  for index, first in enumerate(range(0, len(documents), per_shard)):
    builder = token_shards.ShardWriter(dtype)
    for i in range(first, min(first + per_shard, len(documents))):
      builder.add(documents[i], masks[i] if masks else None, lengths[i])
    lines.append(builder.write(folder, index))
  kind = 'conversations' if masks else 'text'
  head = {'version': token_shards.VERSION, 'kind': kind, 'dtype': dtype, 'document_start': BOS}
  files.write_json(folder / 'manifest.json', token_shards.manifest(head, lines))
  return folder / 'manifest.json', documents


@pytest.fixture
def text(tmp_path):
  """30 documents in ten shards, one of which is longer than two records."""
  lengths = [*np.random.default_rng(1).integers(1, 60, 29).tolist(), 9000]
  return write(tmp_path, lengths)


def row_reference(stream, seq_len, packed=False, mask=None):
  """The fields of one row from its tokens, token by token."""
  row = {name: [0] * seq_len for name in FIELDS}
  segment = position = 0
  for t in range(seq_len):
    if t + 1 >= len(stream):
      break
    if t == 0 or stream[t] == BOS:
      segment, position = segment + 1, 0
    row['inputs'][t], row['targets'][t] = stream[t], stream[t + 1]
    row['segment_ids'][t], row['positions'][t] = segment, position
    own = not (packed and stream[t + 1] == BOS)
    row['weights'][t] = float(own and (mask is None or mask[t + 1] == 1))
    position += 1
  return row


def check_row(batch, i, expected):
  for name, values in expected.items():
    np.testing.assert_array_equal(batch[name][i], values, err_msg=name)


def equal(a, b):
  return all(np.array_equal(a[name], b[name]) for name in FIELDS)


def joined(parts):
  return {name: np.concatenate([part[name] for part in parts]) for name in FIELDS}


@pytest.mark.parametrize('seq_len', [7, 64, 5000])
@pytest.mark.parametrize('dtype', ['uint16', 'uint32'])
def test_evaluation_predicts_every_token_once(tmp_path, seq_len, dtype):
  lengths = [*np.random.default_rng(1).integers(1, 60, 29).tolist(), 9000]
  manifest, documents = write(tmp_path, lengths, dtype=dtype)
  stream = list(itertools.chain(*documents))
  data = loader.Loader(
    manifest, seq_len=seq_len, batch_size=4, seed=0, shuffle=False, pad_last=True
  )
  assert data.tokens == len(stream) and data.bytes == sum(lengths)
  batches = [data.batch(step) for step in range(data.steps_per_epoch)]
  for batch in batches:
    assert {name: batch[name].dtype for name in batch} == FIELDS
    assert all(values.shape == (4, seq_len) for values in batch.values())
  every = joined(batches)
  real = every['weights'] > 0
  assert every['targets'][real].tolist() == stream[1:]
  assert every['inputs'][real].tolist() == stream[:-1]
  for row in range(len(every['inputs'])):
    check_row(every, row, row_reference(stream[row * seq_len : (row + 1) * seq_len + 1], seq_len))
  with pytest.raises(IndexError, match=f'step {data.steps_per_epoch} '):
    data.batch(data.steps_per_epoch)


def test_training_holds_every_whole_window_once_an_epoch(text):
  manifest, documents = text
  stream = list(itertools.chain(*documents))
  seq_len, rows = 16, (sum(map(len, documents)) - 1) // 16
  data = loader.Loader(manifest, seq_len=seq_len, batch_size=7, seed=3)
  assert data.rows == rows and rows % 7  # so an epoch ends inside a batch
  every = joined([data.batch(step) for step in range(3 * rows // 7 + 1)])
  windows = [tuple(stream[i * seq_len : (i + 1) * seq_len + 1]) for i in range(rows)]
  got = [
    (*a, b[-1]) for a, b in zip(every['inputs'].tolist(), every['targets'].tolist(), strict=True)
  ]
  epochs = [got[i * rows : (i + 1) * rows] for i in range(3)]
  for epoch in epochs:
    assert sorted(epoch) == sorted(windows)
  assert epochs[0] != windows and epochs[0] != epochs[1] != epochs[2]
  for i, window in enumerate(got[:rows]):
    check_row(every, i, row_reference(window, seq_len))
  other = loader.Loader(manifest, seq_len=seq_len, batch_size=7, seed=4)
  assert not equal(other.batch(0), data.batch(0))
  plain = loader.Loader(manifest, seq_len=seq_len, batch_size=7, seed=4, shuffle=False)
  assert plain.batch(0)['inputs'].ravel().tolist() == stream[: 7 * seq_len]


def masks_for(lengths):
  """Some documents with nothing to learn, some whose first such token is far in."""
  masks = []
  for i, length in enumerate(lengths):
    mask = [0] * length
    for j in range(1 + 5 * (i % 4), length) if i % 5 else ():
      mask[j] = int((i + j) % 3 > 0)
    masks.append(mask)
  return masks


@pytest.mark.parametrize('with_mask', [True, False])
def test_packed_rows(tmp_path, with_mask):
  lengths = np.random.default_rng(2).integers(1, 60, 200).tolist()
  masks = masks_for(lengths) if with_mask else None
  manifest, documents = write(tmp_path, lengths, masks, per_shard=30)
  seq_len = 40
  data = loader.Loader(
    manifest, seq_len=seq_len, batch_size=1, seed=0, layout='packed', shuffle=False, pad_last=True
  )
  whole = masks or [[0] + [1] * (n - 1) for n in lengths]
  kept = {
    tuple(d[: seq_len + 1]): m
    for d, m in zip(documents, whole, strict=True)
    if any(m[: seq_len + 1])
  }
  assert data.dropped_tokens == sum(lengths) - sum(map(len, kept))
  seen = []
  for step in range(data.steps_per_epoch):
    batch = data.batch(step)
    assert batch['weights'].sum() > 0
    used = int((batch['segment_ids'][0] > 0).sum())
    stream = [*batch['inputs'][0, :used].tolist(), int(batch['targets'][0, used - 1])]
    starts = [*np.flatnonzero(np.array(stream) == BOS).tolist(), len(stream)]
    parts = [tuple(stream[a:b]) for a, b in itertools.pairwise(starts)]
    check_row(
      batch, 0, row_reference(stream, seq_len, True, [m for p in parts for m in kept[p][: len(p)]])
    )
    seen += parts
  assert sorted(seen) == sorted(kept)
  shuffled = loader.Loader(manifest, seq_len=seq_len, batch_size=5, seed=0, layout='packed')
  epoch = joined([shuffled.batch(step) for step in range(shuffled.rows)])
  counts = {row.tobytes(): 0 for row in epoch['inputs']}
  for row in epoch['inputs']:
    counts[row.tobytes()] += 1
  assert set(counts.values()) == {5} and len(counts) == data.rows


# the second begins with no token of its own
@pytest.mark.parametrize('name', ['deepdive', 'chatml'])
def test_conversations_learn_the_assistant_alone(name, tmp_path):
  turns = (
    [{'role': 'user', 'content': f'{i}?'}, {'role': 'assistant', 'content': f'{i}!'}]
    for i in range(9)
  )
  rows = [{'messages': turn} for turn in turns]
  (tmp_path / 'c.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  chat_format = chat_formats.load('bytes', name, extend=True)
  tokenization.tokenize(
    tmp_path / 'c.jsonl', tmp_path / 'out', chat_format, held_out=0, progress=False
  )
  data = loader.Loader(
    tmp_path / 'out/train/manifest.json',
    seq_len=140,
    batch_size=2,
    seed=0,
    layout='packed',
    pad_last=True,
  )
  learned, read = [], []
  for step in range(data.steps_per_epoch):
    batch = data.batch(step)
    for i in range(2):
      row = batch['targets'][i][batch['weights'][i] > 0]
      learned += re.split(r'<\|\w*end\|>', chat_format.tokenizer.decode(row))[:-1]
      segments = batch['segment_ids'][i]
      read += [batch['inputs'][i][segments == n].tolist() for n in range(1, segments.max() + 1)]
      assert all(batch['positions'][i][segments == n][0] == 0 for n in range(1, segments.max() + 1))
  assert sorted(learned) == [f'{i}!' for i in range(9)]
  documents = [chat_format.render(row)[0] for row in rows]
  # a row's last target is no input
  assert len(read) == 9 and all(any(ids in (d, d[:-1]) for d in documents) for ids in read)


@pytest.mark.slow
@pytest.mark.parametrize('layout', loader.LAYOUTS)
@pytest.mark.parametrize('pad_last', [True, False])
def test_hosts_share_the_global_batch(text, layout, pad_last):
  make = functools.partial(
    loader.Loader, text[0], seq_len=32, batch_size=8, seed=5, layout=layout, pad_last=pad_last
  )
  data = make()
  for step in (0, 1, data.steps_per_epoch - 1):
    for hosts in (1, 2, 4, 8):
      parts = [make().batch(step, host, hosts) for host in range(hosts)]
      assert all(len(part['inputs']) == 8 // hosts for part in parts)
      assert equal(joined(parts), data.batch(step))
  for part in range(2):  # a host's share of each of two microbatches
    shares = [make().batch(1, host, 2, parts=2) for host in range(2)]
    mine = [{name: np.split(x, 2)[part] for name, x in share.items()} for share in shares]
    assert equal(joined(mine), {name: np.split(x, 2)[part] for name, x in data.batch(1).items()})
  for host, hosts, field in ((0, 3, 'batch_size'), (2, 2, 'host'), (-1, 2, 'host')):
    with pytest.raises(UserError) as raised:
      data.batch(0, host, hosts)
    assert raised.value.field == field


@pytest.mark.slow
def test_iterating_and_going_on(text):
  make = functools.partial(loader.Loader, text[0], seq_len=32, batch_size=4, seed=5)
  expected = [make().batch(step) for step in range(200)]
  assert all(equal(a, b) for a, b in zip(make().iterate(0, 200), expected, strict=True))
  assert all(equal(a, b) for a, b in zip(make().iterate(123, 200), expected[123:], strict=True))
  assert equal(next(make().iterate(10**9, 10**9 + 1, 1, 2)), make().batch(10**9, 1, 2))
  last = loader.Loader(text[0], seq_len=32, batch_size=4, seed=5, pad_last=True)
  assert len(list(last.iterate(0, last.steps_per_epoch))) == last.steps_per_epoch


@pytest.mark.parametrize(
  'key, size, indexes, order',
  [
    ('7/0', 10, range(10), [4, 5, 7, 0, 3, 6, 9, 1, 2, 8]),
    ('7/1', 1, range(1), [0]),
    ('7/1', 3, range(3), [2, 1, 0]),
    ('7/1', 1000, range(10), [808, 523, 694, 582, 15, 22, 150, 182, 894, 544]),
    (
      '7/1',
      10**12,
      range(10**12 - 5, 10**12),
      [371643274194, 75587655102, 698705266125, 430658809203, 661689344300],
    ),
  ],
)
def test_the_order_never_changes(key, size, indexes, order):
  """With another order, a run that goes on after an update would see other data than it should."""
  assert loader.permute(np.array(indexes), size, key).tolist() == order


@settings(max_examples=60)
@given(st.integers(1, 3000), st.text(max_size=5))
def test_permutations(size, key):
  order = loader.permute(np.arange(size), size, key)
  assert sorted(order.tolist()) == list(range(size))
  some = np.arange(size)[:: 1 + size // 5]
  assert loader.permute(some, size, key).tolist() == order[some].tolist()


@pytest.mark.slow
def test_permutations_are_as_good_as_random():
  size, trials = 24, 2000
  table = np.zeros((size, size))
  neighbours = 0
  for t in range(trials):
    order = loader.permute(np.arange(size), size, f'{t}/0')
    table[np.arange(size), order] += 1
    neighbours += (np.diff(order) == 1).sum()
  expected = trials / size
  chi2 = ((table - expected) ** 2 / expected).sum()
  freedom = (size - 1) ** 2
  assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)
  assert neighbours == pytest.approx(trials * (size - 1) / size, rel=0.1)


@settings(max_examples=100)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=80), st.integers(50, 70))
def test_packing(lengths, size):
  rows = loader.pack(np.array(lengths), size)
  fill = np.bincount(rows, weights=lengths)
  assert fill.max() <= size and (fill > 0).all() and len(rows) == len(lengths)
  spaces = []  # best fit, longest first, one document at a time
  for length in sorted(lengths, reverse=True):
    fitting = [s for s in spaces if s >= length]
    space = min(fitting) if fitting else size
    if fitting:
      spaces.remove(space)
    spaces.append(space - length)
  assert sorted(size - fill.astype(int)) == sorted(spaces)


def test_missing_and_damaged_shards_are_named(text, tmp_path):
  folder = text[0].parent
  make = functools.partial(loader.Loader, seq_len=32, batch_size=4, seed=5)

  def copy(name):
    shutil.copytree(
      folder, tmp_path / name, ignore=lambda d, names: [n for n in names if '.' not in n]
    )
    return tmp_path / name / 'manifest.json'

  manifest = copy('missing')
  (manifest.parent / 'tokens-00003.array_record').unlink()
  with refused(f'shard file {manifest.parent}/tokens-00003.array_record', None):
    make(manifest)
  manifest = copy('short')
  (manifest.parent / 'documents-00002.npy').write_bytes(b'x')
  with refused(f'size of shard file {manifest.parent}/documents-00002.npy', 1):
    make(manifest)
  manifest = copy('changed')
  path = manifest.parent / 'tokens-00009.array_record'
  content = bytearray(path.read_bytes())
  at = content.index(np.array(text[1][29][:8], '<u2').tobytes()) + 6
  content[at] ^= 1
  path.write_bytes(content)
  with pytest.raises(UserError) as raised:
    make(manifest)
  assert raised.value.field.startswith('SHA-256') and str(path) in raised.value.field
  unverified = make(manifest, verify=False)
  with refused(f'shard file {path}', allowed='readable'):
    for step in range(unverified.steps_per_epoch):
      unverified.batch(step)
  with refused(f'shard file {path}', allowed='readable'):
    list(unverified.iterate(0, unverified.steps_per_epoch))


def test_bad_arguments(text, tmp_path):
  make = functools.partial(loader.Loader, text[0], seq_len=32, batch_size=4, seed=5)
  with refused('layout', 'window'):
    make(layout='window')
  with refused('batch_size', 0):
    make(batch_size=0)
  with refused('seq_len', 100_000) as raised:
    make(seq_len=100_000)
  assert '9905 tokens' in raised.value.message
  with pytest.raises(IndexError):
    make().batch(-1)
  with pytest.raises(FileNotFoundError, match='absent'):
    loader.Loader(tmp_path / 'absent.json', seq_len=8, batch_size=1, seed=0)
  files.write_json(tmp_path / 'other.json', {'version': 99})
  with pytest.raises(UserError) as raised:
    loader.Loader(tmp_path / 'other.json', seq_len=8, batch_size=1, seed=0)
  assert raised.value.field.startswith('version') and 'other.json' in raised.value.field


def test_fingerprint_is_of_the_content(text, tmp_path):
  data = loader.Loader(text[0], seq_len=32, batch_size=4, seed=5)
  other = write(tmp_path / 'other', [5] * 100)[0]
  assert data.fingerprint != loader.Loader(other, seq_len=32, batch_size=4, seed=5).fingerprint
  assert (
    data.fingerprint
    == loader.Loader(pathlib.Path(text[0]), seq_len=8, batch_size=1, seed=0).fingerprint
  )
