"""Mixtures of token streams: exact shares, nothing skipped or repeated, the same whatever the hosts
or the restarts.
"""

import numpy as np
import pytest
from ml_collections import ConfigDict

from data.batches import readers
from data.chat import chat_formats
from data.shards import loader, token_shards, tokenization
from data.shards.mixture import Mixture
from lm.base import files
from lm.base.errors import UserError

SEQ_LEN, BATCH = 4, 512
SIZES = (100, 1000, 37)  # rows of the sources


@pytest.fixture
def sources(tmp_path):
  """Loaders in order whose tokens tell the source (in hundreds of thousands) and the row."""
  made = []
  for i, rows in enumerate(SIZES):
    ids = [1 + i * 100_000 + n // SEQ_LEN for n in range(rows * SEQ_LEN + 1)]
    builder = token_shards.ShardWriter('uint32')
    builder.add(ids, None, len(ids))
    head = {'version': token_shards.VERSION, 'kind': 'text', 'dtype': 'uint32', 'document_start': 0}
    files.write_json(
      tmp_path / str(i) / 'manifest.json',
      token_shards.manifest(head, [builder.write(tmp_path / str(i), 0)]),
    )
    made.append(
      loader.Loader(
        tmp_path / str(i) / 'manifest.json',
        seq_len=SEQ_LEN,
        batch_size=BATCH,
        seed=0,
        shuffle=False,
      )
    )
  return made


def drawn(batch):
  """(source, row) of each row of a batch."""
  first = batch['inputs'][:, 0] - 1
  return first // 100_000, first % 100_000


@pytest.mark.slow
@pytest.mark.parametrize('weights', ['5,3,2', '0:5,3,2;45:1,0,0;46:1,1,8'])
def test_shares_are_exact_and_no_row_is_skipped_or_repeated(sources, weights):
  mixture = Mixture(sources, weights, batch_size=BATCH, seed=1)
  source, row = map(
    np.concatenate, zip(*(drawn(mixture.batch(step)) for step in range(100)), strict=True)
  )
  for i, rows in enumerate(SIZES):
    mine = row[source == i]
    np.testing.assert_array_equal(mine, np.arange(len(mine)) % rows)
  block = Mixture.BLOCK
  if ';' not in weights:
    for k in range(3):
      counts = np.bincount(source[k * block : (k + 1) * block])
      np.testing.assert_allclose(counts / block, (0.5, 0.3, 0.2), atol=1 / block)
    assert not np.array_equal(source[:block], source[block : 2 * block])  # an order of its own
    assert abs(np.bincount(source[:1000])[0] - 500) < 80  # and well mixed
    assert mixture.epoch(100) == pytest.approx(np.bincount(source)[2] / SIZES[2])
  else:
    after = source[46 * BATCH : 46 * BATCH + block]
    np.testing.assert_allclose(np.bincount(after) / block, (0.1, 0.1, 0.8), atol=1 / block)
    assert set(source[45 * BATCH : 46 * BATCH]) == {0}


def test_hosts_and_restarts_change_nothing(sources):
  make = lambda: Mixture(sources, '0:1,1,1;40:0,1,3', batch_size=BATCH, seed=1)  # noqa: E731
  expected = [make().batch(step) for step in range(38, 44)]
  for a, b in zip(make().iterate(38, 44), expected, strict=True):
    for name, values in a.items():
      np.testing.assert_array_equal(values, b[name])
  for hosts in (2, 4, 8):
    parts = [make().batch(41, host, hosts) for host in range(hosts)]
    for name, values in expected[3].items():
      np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
  assert make().batch(10**9)['inputs'].shape == (BATCH, SEQ_LEN)  # at once
  with pytest.raises(UserError) as raised:
    make().batch(0, 0, 3)
  assert raised.value.field == 'batch_size' and '3 hosts' in raised.value.allowed


def test_the_fingerprint_is_of_sources_and_weights(sources):
  prints = [
    Mixture(s, w, batch_size=BATCH, seed=0).fingerprint
    for s, w in (
      (sources, '1,1,1'),
      (sources, '1,1,2'),
      (sources[::-1], '1,1,1'),
      (sources, '0:1,1,1;3:1,1,2'),
    )
  ]
  assert len(set(prints)) == 4


@pytest.mark.parametrize(
  ('weights', 'allowed'),
  [
    ('1,1', '3 weights'),
    ('1,1,-1', '0 or more'),
    ('0,0,0', '0 or more'),
    ('a,b,c', "'W,W,...'"),
    ('', "'W,W,...'"),
    ('5:1,1,1', 'begin with 0'),
    ('0:1,1,1;9:1,1,1;9:1,1,1', 'steps'),
    ('1,1,inf', '0 or more'),
    ('1,1,1e-9', '1 / 16384'),
  ],
)
def test_bad_weights_are_named(sources, weights, allowed):
  with pytest.raises(UserError) as raised:
    Mixture(sources, weights, batch_size=BATCH, seed=0)
  assert (raised.value.field, raised.value.value) == ('config.data.weights', weights)
  assert allowed in raised.value.allowed


def test_a_config_names_manifests_and_their_weights(tmp_path):
  chat_format = chat_formats.load('bytes')
  for name in 'ab':
    (tmp_path / f'{name}.txt').write_text(name * 400)
    tokenization.tokenize(str(tmp_path / f'{name}.txt'), tmp_path / name, chat_format, held_out=0.0)
  names = [str(tmp_path / name / 'train' / 'manifest.json') for name in 'ab']
  config = ConfigDict(
    {
      'stage': 'pretrain',
      'seq_len': 8,
      'batch_size': 64,
      'seed': 0,
      'data': {'weights': '3,1', 'cache': ''},
    }
  )
  counts = np.zeros(2)
  mixture = readers.open_mixture(config, chat_format, ','.join(names), 'windows')
  for step in range(20):
    tokens = mixture.batch(step)['targets']
    counts += [(tokens == ord(name)).sum() for name in 'ab']
  assert counts[0] / counts[1] == pytest.approx(3, rel=0.15)
  for weights, given in (('', names), ('1', names[:1])):
    config.data.weights = weights
    with pytest.raises(UserError) as raised:
      readers.open_mixture(config, chat_format, ','.join(given), 'windows')
    assert (raised.value.field, raised.value.value) == ('config.data.weights', weights)
