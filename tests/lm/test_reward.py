"""Reward models, against the papers' formulas and against trl, and how their calibration is measured."""

import itertools
import json
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from data.batches import answer_groups, pairs
from data.chat import chat_formats
from lm import stages
from lm.base.errors import UserError
from lm.base.intervals import bootstrap
from lm.evals import calibration
from lm.model import heads, transformer
from lm.parallel import sharding
from lm.stages import reward
from lm.train import train_step

KEY = jax.random.key(0)
SIZE, ROWS, LENGTH = 4, 16, 8
SETTINGS = ConfigDict({'group_size': SIZE, 'margin': 0.5, 'center': 0.1})


@pytest.fixture
def model(tiny):
  return tiny(heads=('vocabulary', 'scalar'), vocab_size=24)  # which a mesh divides


def make_batch():
  """Four groups: of four answers, of two, of four with one comparison, and an empty one."""
  rng = np.random.default_rng(0)
  wins = np.zeros((4, SIZE, SIZE), np.float32)
  for i, j in itertools.combinations(range(4), 2):
    wins[0][(i, j) if rng.random() < 0.5 else (j, i)] = 1
  wins[1, 1, 0] = 2  # twice preferred, once not
  wins[1, 0, 1] = 1
  wins[2, 3, 1] = 1
  ends = rng.integers(2, LENGTH, size=ROWS).astype(np.int32)
  ends[6:8] = ends[12:] = -1
  return {
    'inputs': rng.integers(1, 23, size=(ROWS, LENGTH), dtype=np.int32),
    'ends': ends,
    'wins': wins.reshape(ROWS, SIZE),
    'margins': (rng.random((4, SIZE, SIZE)) * (wins > 0)).reshape(ROWS, SIZE).astype(np.float32),
  }


def plain_rewards(config, params, batch):
  """The product of the scalar head and the hidden state of the last token, in NumPy."""
  hidden, _ = transformer.Transformer(config).apply({'params': params}, batch['inputs'])
  hidden = np.asarray(hidden, np.float64)
  found = [
    x_TD[end] @ params[heads.SCALAR] for x_TD, end in zip(hidden, batch['ends'], strict=True)
  ]
  return np.where(batch['ends'] >= 0, found, 0)


@pytest.mark.slow
def test_the_loss_is_the_mean_over_the_comparisons_of_a_prompt_then_over_prompts(model):
  config, params = model
  batch = make_batch()
  rewards = plain_rewards(config, params, batch).reshape(-1, SIZE)
  wins, margins = (batch[name].reshape(-1, SIZE, SIZE) for name in ('wins', 'margins'))
  loss, minimized, right, gaps = [], [], [], []
  for r, w, m in zip(rewards, wins, margins, strict=True):
    of_group = []
    for i, j in itertools.permutations(range(SIZE), 2):
      for _ in range(int(w[i, j])):
        gap = r[i] - r[j]
        plain = np.log(1 + np.exp(-gap))
        regularized = np.log(1 + np.exp(-(gap - 0.5 * m[i, j]))) + 0.1 * (r[i] + r[j]) ** 2
        of_group.append((plain, regularized, gap > 0, gap))
    if of_group:
      means = np.mean(of_group, axis=0)
      loss.append(means[0])
      minimized.append(means[1])
      right += [x[2] for x in of_group]
      gaps += [x[3] for x in of_group]
  assert len(loss) == 3 and len(right) == 6 + 3 + 1
  sums = jax.jit(reward.make_loss(config, SETTINGS))(params, batch, KEY)
  expected = {
    'train/loss': (np.sum(loss), 3),
    'train/total': (np.sum(minimized), 3),
    'reward/accuracy': (np.sum(right), 10),
    'reward/gap': (np.sum(gaps), 10),
    'reward/mean_reward': (rewards.sum(), 10),
  }
  assert sums.keys() == expected.keys()
  for name, value in expected.items():
    assert tuple(map(float, sums[name])) == pytest.approx(value, rel=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize('margin', [0.0, 1.0])
def test_the_loss_of_pairs_equals_trls(model, margin):
  torch, trl = pytest.importorskip('torch'), pytest.importorskip('trl')
  import collections

  config, params = model
  batch = make_batch() | {'wins': np.tile(np.array([[0, 1], [0, 0]], np.float32), (8, 1))}
  batch['ends'] = np.maximum(batch['ends'], 1)
  batch['margins'] = batch['wins'] * np.linspace(0, 2, ROWS, dtype=np.float32)[:, None]
  rewards = torch.from_numpy(plain_rewards(config, params, batch))
  trainer = trl.RewardTrainer.__new__(trl.RewardTrainer)
  trainer.model = types.SimpleNamespace(training=False)
  trainer.args = types.SimpleNamespace(center_rewards_coefficient=0.1)
  trainer.accelerator = types.SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x)
  trainer._total_train_tokens = 0
  trainer._metrics = {'eval': collections.defaultdict(list)}
  logits = torch.cat([rewards[::2], rewards[1::2]])[:, None]
  given = {'margin': torch.from_numpy(batch['margins'][::2, 1])} if margin else {}
  theirs = trainer.compute_loss(lambda **_: types.SimpleNamespace(logits=logits), given)
  settings = ConfigDict({'group_size': 2, 'margin': margin, 'center': 0.1})
  total, count = jax.jit(reward.make_loss(config, settings))(params, batch, KEY)['train/total']
  assert total / count == pytest.approx(float(theirs), rel=1e-4)


@pytest.mark.slow
def test_the_reward_is_read_at_the_last_token_and_nothing_after_it_counts(model):
  config, params = model
  batch, score = make_batch(), jax.jit(reward.make_score(config))
  before = np.asarray(score(params, batch['inputs'], batch['ends']))
  assert (before[batch['ends'] < 0] == 0).all()
  padded = np.where(np.arange(LENGTH) > batch['ends'][:, None], 0, batch['inputs'])
  np.testing.assert_allclose(score(params, padded, batch['ends']), before, atol=1e-6)
  padded[np.arange(ROWS), batch['ends']] += 1
  after = np.asarray(score(params, padded, batch['ends']))
  assert (after[batch['ends'] >= 0] != before[batch['ends'] >= 0]).all()


@pytest.mark.slow
@pytest.mark.parametrize('axes', [{'data': 8}, {'data': 2, 'fsdp': 2, 'tensor': 2}, {'context': 4, 'data': 2}])  # fmt: skip
def test_microbatches_and_meshes_give_the_same_loss_and_gradient(model, axes):
  """On eight devices the four answers of a group are on several of them."""
  config, params = model
  batch = make_batch()
  settings = base.get_config()
  settings.stage = 'reward'
  settings.reward.update(SETTINGS)
  stage = stages.make(settings)
  results = []
  for microbatches, sizes in ((1, {}), (4, {}), (1, axes)):
    devices = jax.devices() if sizes else jax.devices()[:1]
    sizes = ConfigDict(dict.fromkeys(sharding.AXES, 1) | sizes)
    mesh = sharding.make_mesh(sizes, devices)
    rows = {name: x.reshape(microbatches, -1, *x.shape[1:]) for name, x in batch.items()}
    with jax.set_mesh(mesh):
      arrays = sharding.put_batch(rows, stage.batch_axes, mesh)
      accumulate = jax.jit(train_step.accumulate, static_argnums=0)
      loss_fn = stage.make_loss(config)
      results.append(jax.device_get(accumulate(loss_fn, params, arrays, microbatches, KEY)))
  for other in results[1:]:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), results[0], other)  # fmt: skip


@pytest.mark.slow
def test_answers_of_any_number_and_length_are_scored_over_a_mesh(model):
  config, params = model
  mesh = sharding.make_mesh(ConfigDict(dict.fromkeys(sharding.AXES, 1) | {'data': 8}))
  rng = np.random.default_rng(0)
  rows = [rng.integers(1, 23, size=n).tolist() for n in (1, 8, 5, 3, 7, 2, 8, 4, 6, 1, 2)]
  with jax.set_mesh(mesh):
    score = reward.make_scorer(config, mesh, batch_size=8, max_len=8)
    found = score(params, rows)
    assert score(params, []).shape == (0,)
    with pytest.raises(UserError) as raised:
      score(params, [[1] * 9])
  assert raised.value.value == 9
  expected = [
    plain_rewards(config, params, {'inputs': np.array([row]), 'ends': np.array([len(row) - 1])})[0]
    for row in rows
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  with pytest.raises(UserError) as raised:
    reward.make_scorer(config, mesh, batch_size=4, max_len=8)
  assert raised.value.field == 'config.batch_size'


def config_of(path, rows, **fields):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  config = base.get_config()
  config.update(stage='reward', seq_len=64, batch_size=8, microbatches=2)
  config.data.update(train=str(path), held_out=0.0)
  config.eval.batch_size = 8
  config.reward.update({'group_size': SIZE} | fields)
  return config


def test_all_comparisons_of_a_prompt_are_in_one_group(tmp_path):
  rows = [
    {'prompt': f'q{q}', 'answers': [f'{q} a', f'{q} b', f'{q} c'], 'ranks': [2, 1, 3]}
    for q in range(5)
  ]
  rows.append({'prompt': 'q0', 'a': '0 b', 'b': '0 a', 'winner': 'b'})
  rows.append({'prompt': 'q9', 'chosen': 'x', 'rejected': 'y'})
  chat_format = chat_formats.load('bytes')
  config = config_of(tmp_path / 'r.jsonl', rows)
  source = answer_groups.open_groups(config, chat_format, tmp_path)
  assert source.train.rows == 6 * SIZE and source.val is None
  seen = {}
  for step in range(3):
    batch = source.train.batch(step, parts=2)
    for start in (0, SIZE):  # Microbatches hold whole groups.
      group = {name: x[start : start + SIZE] for name, x in batch.items()}
      texts = []
      for ids, end in zip(group['inputs'], group['ends'], strict=True):
        text = chat_format.tokenizer.decode(ids[: end + 1])
        assert end < 0 or ids[end] in chat_format.stops
        texts.append(text.split('<|assistant|>')[-1].removesuffix('<|end|>'))
      for i, j in np.argwhere(group['wins']):
        seen[texts[i], texts[j]] = (group['wins'][i, j], group['margins'][i, j])
  expected = {('x', 'y'): (1, 0), ('0 a', '0 b'): (1, 0)}
  for q in range(5):
    expected |= {(f'{q} b', f'{q} a'): (1, 1), (f'{q} b', f'{q} c'): (1, 2), (f'{q} a', f'{q} c'): (1, 1)}  # fmt: skip
  assert seen == expected
  # Hosts read parts of groups, which make the whole.
  halves = [source.train.batch(1, i, 2, 1) for i in range(2)]
  for name, whole in source.train.batch(1).items():
    np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), whole)


def test_more_answers_than_a_group_holds_are_split_and_no_comparison_is_lost(tmp_path):
  rows = [{'prompt': 'q', 'answers': list('abcdef'), 'ranks': [1, 2, 3, 4, 5, 6]}]
  config = config_of(tmp_path / 'r.jsonl', rows)
  made, _ = pairs.read(config, chat_formats.load('bytes'), max_tokens=64)
  groups = answer_groups.gather(made, SIZE)
  assert sum(len(group.comparisons) for group in groups) == 15
  assert all(len(group.answers) <= SIZE for group in groups)
  assert len({group.prompt for group in groups}) == 1


def test_margins_that_no_comparison_has_and_groups_that_fill_no_batch_are_refused(tmp_path):
  rows = [{'prompt': 'q', 'chosen': 'x', 'rejected': 'y'}]
  config = config_of(tmp_path / 'r.jsonl', rows, margin=1.0)
  with pytest.raises(UserError) as raised:
    answer_groups.open_groups(config, chat_formats.load('bytes'), tmp_path)
  assert raised.value.field == 'config.reward.margin'
  config.batch_size = 4
  with pytest.raises(UserError) as raised:
    stages.make(config).check(base.get_config())
  assert (raised.value.field, raised.value.value) == ('config.batch_size / microbatches', 2)


def test_calibration_is_as_computed_by_hand():
  log_odds = np.array([0.05, -0.05, 0.1, 3.0, 3.0, -3.0], np.float32)
  prompts = ['a', 'b', 'c', 'd', 'e', 'f']
  found = calibration.reliability(log_odds, prompts)
  p = 1 / (1 + np.exp(-np.array([0.05, 0.05, 0.1, 3.0])))
  near, far = abs(p[:3].mean() - 2 / 3), abs(p[3] - 2 / 3)
  assert found['calibration_error']['value'] == pytest.approx(near / 2 + far / 2, rel=1e-5)
  assert found['accuracy']['accuracy'] == 4 / 6 and found['accuracy']['n'] == 6
  first, last = found['reliability']
  assert first['observed'] == last['observed'] == 2 / 3 and first['n'] == last['n'] == 3
  assert (first['predicted'], last['predicted']) == pytest.approx((p[:3].mean(), p[3]))


def test_the_interval_of_the_calibration_error_allows_for_noise():
  """Of a model whose probabilities are right, the error is above 0 and its interval begins at 0; of
  one that is twice too sure, the interval has the true error, which is far from 0.
  """
  rng = np.random.default_rng(0)
  log_odds = rng.normal(size=4000)
  wins = rng.random(4000) < 1 / (1 + np.exp(-log_odds))
  of_winner = np.where(wins, log_odds, -log_odds)
  right = calibration.reliability(of_winner, range(4000))['calibration_error']
  assert right['low'] == 0 < right['value'] < right['high'] + 0.02 and right['high'] < 0.03
  sure = calibration.reliability(2 * of_winner, range(4000))['calibration_error']
  p, q = (1 / (1 + np.exp(-factor * np.abs(log_odds))) for factor in (1, 2))
  assert 0.05 < sure['low'] < (q - p).mean() < sure['high'] < 0.15


def test_the_bootstrap_of_a_mean_is_its_normal_interval():
  rng = np.random.default_rng(0)
  sums = np.stack([rng.normal(size=400), np.ones(400)], axis=1)
  low, high = bootstrap(lambda x: x[..., 0] / x[..., 1], sums, rounds=20_000)
  mean, half = sums[:, 0].mean(), 1.96 * sums[:, 0].std() / 20
  assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.05 * half)
