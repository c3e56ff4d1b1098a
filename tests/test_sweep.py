"""Sweeps from the command line: what is listed, run, gone on with and told."""

import copy
import json
import shlex

import commands
import pytest
import tiny
from refusals import refused

from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError
from lm.launch import sweep

CONFIG = """
import sys
sys.path[:0] = ['tests']
from configs import base
def get_config(arg=None):
  c = base.get_config()
  base.smoke(c)
  return c
def sweep(add, arg=None):
  for lr in (1e-3, {second}):
    add({{'optim.lr': lr}})
"""


def write(path, second='1e-2'):
  path.write_text(CONFIG.format(second=second))
  return path


def test_trials_are_listed_and_checked(tmp_path, monkeypatch):
  monkeypatch.chdir(commands.ROOT)
  config = write(tmp_path / 'c.py')
  assert [(t.name, t.fields) for t in sweep.trials(str(config))] == [
    ('lr=0.001', {'optim.lr': 0.001}),
    ('lr=0.01', {'optim.lr': 0.01}),
  ]
  assert [t.fields['optim.lr'] for t in sweep.trials('configs/gpt2_124m.py:smoke')] == [
    3e-3,
    1e-2,
    3e-2,
  ]
  assert sweep.trials('configs/ladder.py')[-1].name == 'width=96'
  with refused(f'name of a trial of {config}', 'lr=0.001', 'a name that no other trial has'):
    sweep.trials(str(write(config, '1e-3')))
  config.write_text(config.read_text().replace('optim.lr', 'optim.lrr'))
  with pytest.raises(UserError) as raised:
    sweep.trials(str(config))
  assert raised.value.value == 'config.optim.lrr' and 'config.optim.lr' in raised.value.allowed
  with refused(f'name of a trial of {config}', 'lr=a,b', 'letters, digits and _.=+-'):
    sweep.trials(str(write(config, '"a,b"')))
  with refused('function sweep() of configs/pretrain.py'):
    sweep.trials('configs/pretrain.py')


def test_a_sweep_may_take_add_alone(tmp_path, monkeypatch):
  monkeypatch.chdir(commands.ROOT)
  config = write(tmp_path / 'c.py')
  config.write_text(config.read_text().replace('def sweep(add, arg=None)', 'def sweep(add)'))
  assert len(sweep.trials(str(config))) == 2
  assert len(sweep.trials(f'{config}:smoke')) == 2


def test_trials_that_set_different_fields_are_complete_each_by_its_own(tmp_path, monkeypatch):
  monkeypatch.chdir(commands.ROOT)
  config = write(tmp_path / 'c.py')
  config.write_text(
    config.read_text() + "  add({'seed': 3}, 'seed')\n  add({'steps': 9}, 'steps')\n"
  )
  base = config_lib.load(str(config))
  for trial in sweep.trials(str(config)):
    fields = copy.deepcopy(base)
    fields.update_from_flattened_dict(trial.fields)
    report = {'eval/val/loss': 1.0, 'parameters': 1, 'tokens': 1}
    report['provenance'] = {'config': config_lib.as_json(fields)}
    files.write_json(tmp_path / 'work' / 'trials' / trial.name / 'report.json', report)
  options = {'free': (), 'parallel': 1, 'fit': False}
  sweep.run(str(config), base, [], tmp_path / 'work', **options)  # none of them is run
  assert len(files.read_json(tmp_path / 'work' / 'sweep.json')['trials']) == 4
  base.log_every += 1
  with refused('config.log_every'):
    sweep.run(str(config), base, [], tmp_path / 'work', **options)


def test_commands_for_a_scheduler(tmp_path):
  config = write(tmp_path / 'c.py')
  arguments = (
    'train.py',
    f'--config={config}',
    f'--workdir={tmp_path / "w"}',
    '--sweep',
    '--print-commands',
    '--config.steps=9',
  )
  status, out, err = commands.call(*arguments)
  assert status == 0, err
  first, second = map(shlex.split, out.splitlines())
  assert (
    first[:2] == ['python', 'train.py']
    and f'--workdir={tmp_path / "w" / "trials" / "lr=0.001"}' in first
  )
  assert (
    second[-2:] == ['--config.steps=9', '--config.optim.lr=0.01'] and not (tmp_path / 'w').exists()
  )


@pytest.mark.slow
def test_a_sweep_runs_what_is_missing_and_writes_its_table(tmp_path):
  config, work = write(tmp_path / 'c.py', '1e30'), tmp_path / 'work'
  options = [
    a
    for a in tiny.arguments('lm/model/*.py', steps=8, data__held_out=0.05)
    if not a.startswith('--config=')
  ]
  command = [*options[1:], f'--workdir={work}', '--sweep', '--parallel=2']
  status, _, err = commands.call('train.py', f'--config={config}', *command)
  last = err.splitlines()[-1]
  assert status == 1 and 'number of trials that failed is 1' in last and 'lr=1e+30: ' in last
  assert [row['name'] for row in files.read_json(work / 'sweep.json')['trials']] == ['lr=0.001']
  report = work / 'trials' / 'lr=0.001' / 'report.json'
  before = report.stat().st_mtime_ns
  status, out, err = commands.call('train.py', f'--config={write(config)}', *command)
  assert status == 0, err
  assert '2 trials, 1 complete' in out and report.stat().st_mtime_ns == before
  table = files.read_json(work / 'sweep.json')
  values = {row['name']: row['value'] for row in table['trials']}
  assert (
    table['best'] == min(values, key=values.get)
    and values['lr=0.001'] == json.loads(report.read_text())['eval/val/loss']
  )
  best, worst = (work / 'sweep.md').read_text().splitlines()[2:]
  assert best.endswith(f'| {min(values.values()):.4f} |') and worst.endswith(
    f'| {max(values.values()):.4f} |'
  )
  assert (work / 'sweep.png').exists()
  status, _, err = commands.call('train.py', f'--config={config}', *command, '--config.seed=3')
  assert status == 1 and 'config.seed is 3; allowed: 0' in err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_smoke_ladder_foretells_its_largest_size(tmp_path):
  status, _, err = commands.run(
    'train.py',
    '--config=configs/ladder.py:smoke',
    f'--workdir={tmp_path}',
    '--sweep',
    '--fit',
    '--parallel=2',
    '--config.data.train=lm/*/*.py',
    # Its steps take longer than their compilation, and both count.
    XLA_FLAGS=f'{commands.ENVIRONMENT["XLA_FLAGS"]} --xla_backend_optimization_level=1',
  )
  assert status == 0, err
  report = files.read_json(tmp_path / 'ladder.json')
  losses = [loss for _, loss in report['points']] + [report['next']['measured']]
  assert len(losses) == 5 and losses[-1] == min(losses)
  # So short runs follow the law only roughly, so that nothing is said about the interval's width.
  low, high = report['next']['interval']
  predicted = report['next']['predicted']
  assert low < predicted < high and predicted < losses[0]
  assert 'predicted:' in (tmp_path / 'ladder.md').read_text()
