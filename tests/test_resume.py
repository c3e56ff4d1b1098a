"""What may change when a run goes on from its checkpoint, and when another begins from it."""

import json
import shutil

import commands
import pytest
import tiny
from ml_collections import ConfigDict

from configs import base
from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError
from lm.weights import checkpoint_folders
from lm.weights.pretrained import EXECUTION


def start(run, text, **fields):
  short = {'steps': 4, 'checkpoint.every': 2, 'optim.warmup': 1}
  return commands.call(*tiny.arguments(text, **short | fields), f'--workdir={run}')


@pytest.fixture(scope='module')
def text(tmp_path_factory):
  return tiny.write_text(tmp_path_factory.mktemp('text') / 'text.txt')


@pytest.fixture(scope='module')
def whole(tmp_path_factory, text):
  """A run of four updates with a checkpoint after the second."""
  run = tmp_path_factory.mktemp('whole') / 'run'
  status, _, err = start(run, text)
  assert status == 0, err
  return run


@pytest.fixture
def halfway(whole, tmp_path):
  """A copy of the run that was killed after its second update."""
  run = tmp_path / 'run'
  shutil.copytree(whole, run)
  shutil.rmtree(run / 'checkpoints' / '4')
  (run / 'report.json').unlink()
  return run


@pytest.mark.slow
def test_fields_that_change_no_number_may_change_or_have_been_added_later(halfway, whole, text):
  """The checkpoint lacks two fields, as one that is older than they are."""
  step = halfway / 'checkpoints' / '2'
  stored = files.read_json(step / 'provenance.json')
  del stored['config']['faults']['spike'], stored['config']['model']['rope_theta_window']
  files.write_json(step / 'provenance.json', stored)
  digests = files.read_json(step / 'digest.json')
  files.write_json(
    step / 'digest.json', digests | {'provenance.json': files.sha256(step / 'provenance.json')}
  )
  changed = {
    'log_every': 3,
    'checkpoint.every': 1,
    'checkpoint.keep_last': 1,
    'eval.every': 1,
    'eval.batch_size': 4,
    'mesh.data': 1,
    'mesh.fsdp': -1,
  }
  status, _, err = start(halfway, text, **changed)
  assert status == 0, err
  assert tiny.parameters(halfway) == tiny.parameters(whole)


@pytest.mark.slow
def test_microbatches_may_change_and_only_round_otherwise(halfway, whole, text):
  status, _, err = start(halfway, text, microbatches=4, loss__chunk=64)
  assert status == 0, err
  ours, theirs = (json.loads((run / 'report.json').read_text()) for run in (halfway, whole))
  assert tiny.lines(halfway)[-1]['train/loss'] == pytest.approx(
    tiny.lines(whole)[-1]['train/loss'], rel=1e-5
  )
  assert ours['tokens'] == theirs['tokens']


@pytest.mark.slow
def test_a_run_keeps_the_checkpoint_that_a_metric_says_is_best(tmp_path):
  """The loss falls, so that the largest one is that of the first evaluation."""
  run, text = tmp_path / 'run', 'configs/*.py'
  best = {'checkpoint__every': 100, 'eval__every': 2, 'data__held_out': 0.2}
  status, _, err = start(run, text, **best, checkpoint__best='max:eval/val/loss')
  assert status == 0, err
  assert checkpoint_folders.steps(run / 'checkpoints') == [2, 4]
  assert checkpoint_folders.locate(run).name == '2'
  line = next(line for line in tiny.lines(run) if line['step'] == 2 and 'eval/val/loss' in line)
  assert checkpoint_folders.provenance(run)['measured'] == pytest.approx(
    {name: value for name, value in line.items() if name.startswith('eval/')}
  )
  status, _, err = start(tmp_path / 'b', text, **best, checkpoint__best='min:eval/val/lost')
  assert status == 1 and "is 'eval/val/lost'; allowed: eval/val/bpb" in err.splitlines()[-1]


@pytest.mark.slow
def test_other_fields_and_other_data_may_be_gone_on_with_by_name(halfway, text, tmp_path):
  lr = {'optim.lr': 0.02, 'optim.b1': 0.8}
  status, _, err = start(halfway, text, **lr)
  assert status == 1 and err.splitlines()[-1].startswith('error: config.optim.b1 is 0.8; ')
  assert 'config.checkpoint.allow_mismatch=optim.b1,optim.lr ' in err.splitlines()[-1]
  status, _, err = start(halfway, text, **lr, checkpoint__allow_mismatch='optim.lrr')
  assert status == 1 and "did you mean 'config.optim.lr'?" in err.splitlines()[-1]
  other = tiny.write_text(tmp_path / 'other.txt', noise=3)
  status, _, err = start(halfway, other)
  assert status == 1 and 'config.checkpoint.allow_mismatch=data.train,data ' in err.splitlines()[-1]
  allow = 'optim.lr,optim.b1,data'
  status, _, err = start(halfway, other, **lr, checkpoint__allow_mismatch=allow)
  assert status == 0, err
  assert checkpoint_folders.provenance(halfway)['config']['optim']['lr'] == 0.02


@pytest.mark.slow
def test_a_run_is_continued_at_twice_the_context(whole, text, tmp_path):
  context = {'init_from': whole, 'seq_len': 512}
  status, _, err = start(tmp_path / 'a', text, **context)
  assert (
    status == 1
    and 'config.seq_len is 512; allowed: at most max_len of the model, 256' in err.splitlines()[-1]
  )
  longer = {'model.max_len': 512, 'model.rope_scaling': 'linear', 'model.rope_factor': 2.0}
  status, _, err = start(tmp_path / 'b', text, **context, **longer)
  assert status == 0, err
  model = json.loads((tmp_path / 'b' / 'config.json').read_text())['model']
  assert (model['max_len'], model['rope_scaling'], model['rope_factor'], model['num_layers']) == (
    512,
    'linear',
    2.0,
    1,
  )
  assert checkpoint_folders.provenance(tmp_path / 'b')['config']['model'] == model


def test_a_field_that_is_set_to_its_default_is_not_ignored(whole, text, tmp_path):
  default = base.get_config().model.num_layers
  status, _, err = start(tmp_path / 'run', text, init_from=whole, model__num_layers=default)
  message = f'config.model.num_layers is {default}; allowed: 1, which the checkpoint of'
  assert status == 1 and message in err.splitlines()[-1]


def test_every_field_is_compared_on_resume_or_free():
  """A new field has to be put into one class: FREE_ON_RESUME if it changes no number, else this."""
  config = base.get_config()
  compared = {
    'stage',
    'seed',
    'init_from',
    'steps',
    'batch_size',
    'seq_len',
    *(f'data.{field}' for field in config.data if field != 'cache'),
    'train',
    'optim',
    'faults',
    *(f'rl.{field}' for field in config.rl if field not in ('gold', 'health', 'rollouts_every')),
    'sft',
    'preference',
    'reward',
    'tools',
    'loss.balance',
    'loss.z_loss',
    'model.dtype',
    'model.param_dtype',
    *(f'model.{field}' for field in config.model if field not in EXECUTION),
  }
  for field in leaves(config):
    assert config_lib.covers(base.FREE_ON_RESUME, field) != config_lib.covers(compared, field), (
      field
    )
  for name in (*base.FREE_ON_RESUME, *compared):
    config_lib.check_field(config, name)


def leaves(config, prefix=''):
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield prefix + name


def test_names_that_allow_are_checked():
  config = base.get_config()
  config.checkpoint.allow_mismatch = 'optim.lr, data,code'
  assert config_lib.allowed_mismatches(config) == ('optim.lr', 'data', 'code')
  for wrong, near in (
    ('tokeniser', 'tokenizer'),
    ('optim.lrr', 'config.optim.lr'),
    ('optm.lr', 'optim'),
  ):
    config.checkpoint.allow_mismatch = wrong
    with pytest.raises(UserError) as raised:
      config_lib.allowed_mismatches(config)
    assert raised.value.value.removeprefix('config.') == wrong and near in raised.value.allowed
