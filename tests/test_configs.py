"""Every config field is read by the code that runs it: a field that nobody reads is a knob that
turns nothing.
"""

import inspect
import socket

import jax
import pytest
from commands import ROOT, call
from config_fields import fields, training_runs
from datatrove.io import DataFolder
from ml_collections import ConfigDict, FrozenConfigDict
from refusals import refused

from configs import base
from configs.data import fineweb
from data.web import classifier_training
from data.web.blocks import Quality
from data.web.clean import pipeline
from data.web.executors import ray_options, run_ray, slurm_options
from lm import stages
from lm.base import metrics
from lm.base.config import load, parse
from lm.launch.options import train_flags
from lm.model import transformer
from lm.train import optimizers


def test_every_field_of_web_cleaning_is_read(tmp_path, monkeypatch):
  """The thresholds go to the rules as keywords, where an unknown one is a TypeError."""
  read, plain = set(), ConfigDict.__getattr__
  config = fineweb.get_config()
  config.passage_lines = 3
  monkeypatch.setattr(
    ConfigDict, '__getattr__', lambda self, name: read.add(name) or plain(self, name)
  )
  settings = ('gopher_repetition', 'gopher_quality', 'c4_lines', 'c4', 'fineweb', 'languages')
  (tmp_path / 'items.txt').write_text('word ' * 13)
  config.decontaminate = f'{tmp_path}/*.txt'
  config.quality.model = str(tmp_path / 'classifier')
  classifier_training.train(
    [classifier_training.Row('a', 0), classifier_training.Row('b', 1)],
    config.quality.model,
    buckets=1,
  )
  out = DataFolder(str(tmp_path))
  stages = pipeline(config, [], out, 1, {})
  slurm_options(config)
  with socket.socket() as free:  # nothing listens there
    free.bind(('127.0.0.1', 0))
    config.ray_address = f'127.0.0.1:{free.getsockname()[1]}'
    with refused('config.ray_address', config.ray_address):
      run_ray([], out, config, workers=1)
  ray_options(config)
  assert [
    f
    for f in fields(config)
    if f.partition('.')[0] not in settings and f.rpartition('.')[2] not in read
  ] == []
  assert set(settings) <= read
  for step in stages[0].steps:
    if isinstance(step, Quality):
      assert inspect.signature(step.rule).parameters.keys() == {'text', *step.thresholds}


CONFIGS = sorted(p.stem for p in (ROOT / 'configs').glob('*.py') if p.stem != 'base')


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_may_be_cut_to_a_few_steps(name, monkeypatch):
  """A first look at any config is --config.steps=2: no field of its schedule may refuse that."""
  monkeypatch.chdir(ROOT)
  config = load(f'configs/{name}.py')
  stages = list(training_runs(config).values()) if config.stage == 'recipe' else [config]
  for settings in stages:
    for steps in (1, 2):
      schedule = optimizers.make_schedule(settings.optim, settings.optim.lr, steps)
      assert float(schedule(steps - 1)) == pytest.approx(settings.optim.lr)


@pytest.mark.parametrize('name', ['pretrain', 'sft', 'dpo', 'reward', 'rl', 'rlhf'])
def test_the_command_line_gives_a_config_that_its_stage_accepts(name, monkeypatch):
  """It is locked, which must not count as a difference from the defaults."""
  monkeypatch.chdir(ROOT)
  config = parse(train_flags(), [f'--config=configs/{name}.py'], '')
  stages.make(config).check(base.get_config())
  if 'rl' not in stages.make(config).sections:
    config.rl.health.max_repeats = 0.5
    with refused('config.rl.health.max_repeats', 0.5):
      stages.make(config).check(base.get_config())


PUBLISHED = {  # parameters
  'gpt2_124m': 124_439_808,
  'gpt2_350m': 354_823_168,
  'gpt2_774m': 774_030_080,
  'gpt2_1558m': 1_557_611_200,
  'llama3_8b': 8_030_261_248,
  'llama3_70b': 70_553_706_496,
  'llama3_405b': 405_853_388_800,
  'smollm2_135m': 134_515_008,
  'qwen3_0_6b': 596_049_920,
  'mixtral_8x7b': 46_702_792_704,
}


@pytest.mark.slow
@pytest.mark.parametrize('name', PUBLISHED)
def test_a_shape_has_the_published_number_of_parameters(name, monkeypatch):
  monkeypatch.chdir(ROOT)
  config = FrozenConfigDict(load(f'configs/{name}.py').model.to_dict())
  transformer.check(config)
  params = jax.eval_shape(lambda: transformer.init_params(config, jax.random.key(0)))
  assert sum(x.size for x in jax.tree.leaves(params)) == PUBLISHED[name]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['llama3_70b', 'mixtral_8x7b'])
def test_a_shape_trains_in_miniature(name, tmp_path):
  status, _, err = call(
    'train.py', f'--config=configs/{name}.py:smoke', f'--workdir={tmp_path}', '--config.steps=6'
  )
  assert status == 0, err
  losses = [line['train/loss'] for line in metrics.read(tmp_path) if 'train/loss' in line]
  assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_adds_no_field(name, monkeypatch):
  monkeypatch.chdir(ROOT)
  config = load(f'configs/{name}.py')
  plain = set(fields(base.get_config()))
  if config.stage == 'recipe':
    plain = {f'{run}.{field}' for run in training_runs(config) for field in plain}
    plain |= {*fields(base.get_recipe()), 'world.seed'}
  assert [
    f for f in fields(config) if f not in plain and not f.startswith('clean.languages.')
  ] == []


@pytest.mark.parametrize('name', ['quickstart', 'facts', 'distill', 'rejection'])
def test_all_steps_of_a_recipe_share_one_seed(name, monkeypatch):
  monkeypatch.chdir(ROOT)
  config = load(f'configs/{name}.py')
  config.seed = 7
  assert {config[run].seed for run in training_runs(config)} == {7}
  if name == 'facts':
    assert config.world.seed == config.pretrain.data.task_seed == 7
