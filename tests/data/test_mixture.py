"""Mixtures of token streams: exact shares, nothing skipped or repeated, the same whatever the hosts
or the restarts.
"""

import collections
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from data.batches import prepare, readers
from data.chat import chat_formats
from data.shards import loader, token_shards, tokenization
from data.shards.mixture import Epochs, Mixture
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
      'data': {'weights': '3,1', 'epochs': '', 'cache': ''},
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


# ---- Epochs --------------------------------------------------------------------------------------


def test_every_row_comes_as_often_as_its_epochs_say(sources):
  epochs = Epochs(sources, [1, 2, 0.5], batch_size=BATCH, seed=1)
  total = 100 + 2000 + 18
  assert epochs.steps_per_epoch == -(-total // BATCH)
  batches = [epochs.batch(step) for step in range(epochs.steps_per_epoch)]
  source, row = map(np.concatenate, zip(*map(drawn, batches), strict=True))
  for i, rows in enumerate([range(100), [*range(1000)] * 2, range(18)]):
    assert row[source == i].tolist() == list(rows)  # an epoch after the other
  empty = batches[-1]['weights'].sum(1) == 0
  assert (source == -1).sum() == empty.sum() == len(source) - total  # all of them in the last batch
  assert all((batch['weights'].sum(1) > 0).all() for batch in batches[:-1])
  assert not any(field[empty].any() for field in batches[-1].values())
  assert 30 < (source[: total // 2] == 0).sum() < 70  # well mixed
  assert epochs.epoch(epochs.steps_per_epoch) == 2


def test_hosts_restarts_and_parts_change_nothing_of_epochs(sources):
  make = lambda seed=1: Epochs(sources, [1, 2, 1], batch_size=BATCH, seed=seed)  # noqa: E731
  last = make().steps_per_epoch - 1
  expected = make().batch(last)
  for batch in (next(make().iterate(last, last + 1)), _joined(make(), last, hosts=8)):
    for name, values in expected.items():
      np.testing.assert_array_equal(batch[name], values)
  assert not np.array_equal(make().batch(0)['inputs'], make(2).batch(0)['inputs'])
  assert len({make().fingerprint, make(2).fingerprint}) == 1
  assert make().fingerprint != Epochs(sources, [1, 2, 2], batch_size=BATCH, seed=1).fingerprint


def _joined(epochs, step, hosts):
  parts = [epochs.batch(step, host, hosts) for host in range(hosts)]
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def conversations(path, count):
  """A file of conversations, each with an answer of its own."""
  turns = [
    [{'role': 'user', 'content': 'Who?'}, {'role': 'assistant', 'content': f'{path.stem}{i}'}]
    for i in range(count)
  ]
  path.write_text(''.join(json.dumps({'messages': each}) + '\n' for each in turns))
  return str(path)


@pytest.fixture
def tuning(tmp_path):
  """The config of fine-tuning on two files, of 30 and 20 conversations."""
  c = base.get_config()
  c.stage, c.seq_len, c.batch_size, c.eval.batch_size = 'sft', 64, 4, 4
  names = conversations(tmp_path / 'a.jsonl', 30), conversations(tmp_path / 'b.jsonl', 20)
  c.data.update(train=','.join(names), epochs='1,3', held_out=0.0)
  return c


FORMAT = chat_formats.load('bytes')


def learned(batches):
  """How often each answer is learned in batches."""
  said = collections.Counter()
  for batch in batches:
    for targets, weights in zip(batch['targets'], batch['weights'], strict=True):
      text = FORMAT.tokenizer.decode(targets[weights > 0].tolist())
      said.update(text.split('<|end|>')[:-1])
  return said


def opened(config, folder):
  train, val = prepare.prepare_training_data(config, FORMAT, folder, 'packed')
  return readers.open_mixture(config, FORMAT, train, 'packed'), val


def test_every_conversation_of_a_file_is_learned_as_often_as_its_epochs_say(tuning, tmp_path):
  with pytest.raises(UserError) as raised:
    opened(tuning, tmp_path / 'run')
  assert (raised.value.field, raised.value.value) == ('config.steps', 1000)
  tuning.steps = int(raised.value.allowed.split(',')[0])
  loader, val = opened(tuning, tmp_path / 'run')
  said = learned(loader.iterate(0, tuning.steps))
  assert val is None
  assert said == {f'a{i}': 1 for i in range(30)} | {f'b{i}': 3 for i in range(20)}


def test_files_of_conversations_may_have_weights_too(tuning, tmp_path):
  tuning.data.update(epochs='', weights='1,3')
  said = learned(opened(tuning, tmp_path / 'run')[0].iterate(0, 200))
  of_b = sum(count for answer, count in said.items() if answer.startswith('b'))
  assert of_b / said.total() == pytest.approx(0.75, abs=0.05)


def test_what_is_held_out_of_each_file_is_validated_on_once_and_never_trained_on(tuning, tmp_path):
  tuning.data.held_out = 0.3
  folder = tmp_path / 'run'
  train, val = prepare.prepare_training_data(tuning, FORMAT, folder, 'packed')
  tuning.data.update(weights='1,1', epochs='')
  mixture = readers.open_mixture(tuning, FORMAT, train, 'packed')
  held_out = readers.open_held_out(tuning, FORMAT, val, 'packed')
  validated = learned(held_out.iterate(0, held_out.steps_per_epoch))
  trained = learned(mixture.iterate(0, 100))
  assert set(validated.values()) == {1} and {answer[0] for answer in validated} == {'a', 'b'}
  assert not validated.keys() & trained.keys()
  assert len(validated) + len(trained) == 50


@pytest.mark.parametrize(
  ('epochs', 'weights'), [('1', ''), ('1,0', ''), ('1,x', ''), ('1,inf', ''), ('1,1', '1,1')]
)
def test_bad_epochs_are_named(tuning, tmp_path, epochs, weights):
  tuning.data.update(epochs=epochs, weights=weights)
  with pytest.raises(UserError) as raised:
    opened(tuning, tmp_path / 'run')
  assert (raised.value.field, raised.value.value) == ('config.data.epochs', epochs)
  assert '2 numbers above 0' in raised.value.allowed
