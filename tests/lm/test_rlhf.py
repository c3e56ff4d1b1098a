"""Rewards of reward models in RL: how they are loaded, added and measured."""

import types

import numpy as np
import pytest
from commands import ROOT
from config_fields import training_runs
from ml_collections import ConfigDict
from refusals import refused
from serving import TOKENIZER

from configs import base
from lm import stages
from lm.base.config import load
from lm.evals import best_of_n, held_out_rewards
from lm.infer.requests import Completion
from lm.model import heads, transformer
from lm.parallel import sharding
from lm.stages import reward
from lm.stages.rl import rl_checks, rollout, rollout_batches
from lm.weights import checkpoint

FINGERPRINT = TOKENIZER.fingerprint


@pytest.fixture
def reward_run(tiny, tmp_path):
  """A function that saves a reward model and returns (folder, config, params)."""

  def save(name, **fields):
    config, params = tiny(vocab_size=TOKENIZER.vocab_size, **fields)
    with checkpoint.Checkpointer(tmp_path / name / 'checkpoints', keep_last=1) as saver:
      provenance = {'config': {'model': config.to_dict()}, 'tokenizer': FINGERPRINT}
      saver.save(1, {'params': params, 'step': np.int32(1)}, provenance)
    TOKENIZER.save(tmp_path / name / 'tokenizer')
    return str(tmp_path / name), config, params

  return save


def open_scorers(runs, **options):
  defaults = base.get_config().model
  mesh = sharding.make_mesh(ConfigDict(dict.fromkeys(sharding.AXES, 1) | {'data': 8}))
  settings = {'tokenizer': FINGERPRINT, 'batch_size': 8, 'max_len': 8} | options
  return reward.open_scorers(runs, defaults, defaults, mesh, **settings)


@pytest.mark.slow
def test_a_reward_model_is_read_from_a_run_of_any_shape(reward_run):
  run, config, params = reward_run('one', heads=('vocabulary', 'scalar'))
  row = [3, 1, 4, 1, 5]
  hidden, _ = transformer.Transformer(config).apply({'params': params}, np.array([row]))
  expected = float(np.asarray(hidden)[0, -1] @ params[heads.SCALAR])
  (score,) = open_scorers([run]).values()
  assert score([row, row[:2]])[0] == pytest.approx(expected, rel=1e-4)
  with refused('config.seq_len', 65):
    open_scorers([run], max_len=65)
  with refused('tokenizer', 'another'):
    open_scorers([run], tokenizer='another')
  plain, *_ = reward_run('plain')
  with refused(f'heads of the reward model {plain}', ('vocabulary',)):
    open_scorers([plain])


def groups_of(lengths, grade):
  answers = [Completion([7] * n, [-1.0] * n, [True] * n, True) for n in lengths]
  return [rollout.Group([3], answers, [grade] * len(lengths))]


def test_the_models_reward_of_each_answer_is_added_to_its_own():
  batches = rollout_batches.RolloutBatches.__new__(rollout_batches.RolloutBatches)
  batches._reward_model = lambda rows: np.array([10.0 * len(row) for row in rows])
  grade = rollout.Grade(0.5, True, {'gold': 2.0})
  (group,) = batches._add_proxy(groups_of((1, 3), grade))
  assert [g.reward for g in group.grades] == [20.5, 40.5]
  assert [g.parts for g in group.grades] == [{'proxy': 20, 'gold': 2}, {'proxy': 40, 'gold': 2}]
  assert all(g.right for g in group.grades)
  metrics = rollout.measure([group])
  assert (metrics['rl/proxy'], metrics['rl/gold'], metrics['rl/reward']) == (30, 2, 30.5)


def test_the_divergence_of_answers_is_summed_over_their_tokens():
  rng = np.random.default_rng(0)
  batch = {
    'weights': np.array([[[0, 1, 1], [0, 0, 0]], [[1, 0, 1], [1, 1, 1]]], np.float32),
    'old_log_probs': rng.normal(size=(2, 2, 3)).astype(np.float32),
    'reference_log_probs': rng.normal(size=(2, 2, 3)).astype(np.float32),
  }
  away = batch['old_log_probs'] - batch['reference_log_probs']
  expected = (away[0, 0, 1:].sum() + away[1, 0, 0] + away[1, 0, 2] + away[1, 1].sum()) / 3
  assert rollout.answer_kl(batch) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(('field', 'value'), [('gold', 'style'), ('grade_weight', 0.5)])
def test_fields_of_reward_models_are_refused_without_one(field, value):
  rl, defaults = base.get_config().rl, base.get_config().rl
  rl[field] = value
  with refused(f'config.rl.{field}', value):
    rl_checks.check(rl, defaults)
  rl.reward_model = 'runs/reward'
  rl_checks.check(rl, defaults)


@pytest.mark.parametrize('name', ['rlhf.py', 'rlhf.py:grpo', 'rlhf.py:smoke'])
def test_the_fields_of_rlhf_fit_together(name, monkeypatch):
  monkeypatch.chdir(ROOT)
  config = load(f'configs/{name}')
  stages.make(config).check(base.get_config())
  assert config.rl.kl > 0 and config.rl.grade_weight == 0


@pytest.mark.parametrize('name', ['overoptimization', 'rejection'])
@pytest.mark.parametrize('variant', ['', ':smoke'])
def test_every_run_of_the_recipes_sets_only_what_its_stage_reads(name, variant, monkeypatch):
  monkeypatch.chdir(ROOT)
  recipe = load(f'configs/{name}.py{variant}')
  runs = training_runs(recipe)
  assert {job.rpartition(':')[2] for job in recipe.stages} >= set(runs)
  for part, config in runs.items():
    if part in recipe.stages:
      stages.make(config).check(base.get_config())
    else:
      best_of_n.check(config, base.get_config())


def test_held_out_rewards_are_means_with_their_intervals():
  values = {'proxy': np.array([1.0, 2.0, 3.0, 6.0]), 'gold': np.array([0.0, 0.0, 1.0, 1.0])}
  settings = ConfigDict({'eval': {'tasks_every': 7, 'examples': 4, 'batch_size': 2}})

  def judge(params, examples, batch_size):
    assert (params, examples, batch_size) == ('params', 4, 2)
    return values

  context = types.SimpleNamespace(config=settings, judge=judge)
  result = held_out_rewards.HeldOutRewards.open(context).run('params')
  assert result.metrics == {'eval/rewards/proxy': 3.0, 'eval/rewards/gold': 0.5}
  half = 1.96 * np.sqrt(14 / 3 / 4)
  found = result.report['held_out_rewards']['proxy']
  assert found == pytest.approx({'mean': 3, 'low': 3 - half, 'high': 3 + half, 'n': 4})
  without = types.SimpleNamespace(config=settings, judge=None)
  assert held_out_rewards.HeldOutRewards.open(without) is None
