"""Runs of train.py under signals, damaged checkpoints and bad steps, against runs that nothing
befell.
"""

import json
import shutil
import signal

import commands
import pytest
import tiny

from lm.base import metrics

pytestmark = pytest.mark.slow

SHORT = {'steps': 24, 'checkpoint__every': 10, 'checkpoint__keep_last': 3}


@pytest.fixture(scope='module')
def text(tmp_path_factory):
  return tiny.write_text(tmp_path_factory.mktemp('text') / 'text.txt')


@pytest.fixture(scope='module')
def unbroken(text, tmp_path_factory):
  run = tmp_path_factory.mktemp('unbroken') / 'run'
  status, _, err = commands.call(*tiny.arguments(text, **SHORT), f'--workdir={run}')
  assert status == 0, err
  return run


def assert_same(run, other):
  assert tiny.lines(run) == tiny.lines(other)
  assert tiny.parameters(run) == tiny.parameters(other)


def stop_at(step, number, command):
  """Runs a command that is told to stop when it logs a step; returns what it printed."""
  write = metrics.Metrics.write

  def told(self, now, values):
    write(self, now, values)
    if now == step and 'train/loss' in values:
      signal.raise_signal(number)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(metrics.Metrics, 'write', told)
    status, _, err = commands.call(*command)
  assert status == 0, err
  return err


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_saves_and_the_same_command_goes_on(unbroken, text, tmp_path, number):
  run = tmp_path / 'run'
  command = *tiny.arguments(text, **SHORT), f'--workdir={run}'
  said = stop_at(5, number, command)
  (step,) = [int(p.name) for p in (run / 'checkpoints').iterdir()]
  assert 5 <= step < 10 and f'stopped at step {step}' in said
  status, _, err = commands.call(*command)
  assert status == 0, err
  assert_same(run, unbroken)


def test_a_damaged_newest_checkpoint_is_not_used(unbroken, text, tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(unbroken, run)
  shutil.rmtree(run / 'checkpoints' / '24')
  victim = max(
    (p for p in (run / 'checkpoints' / '20' / 'params').rglob('*') if p.is_file()),
    key=lambda p: p.stat().st_size,
  )
  victim.write_bytes(victim.read_bytes()[:-100])
  status, _, err = commands.call(*tiny.arguments(text, **SHORT), f'--workdir={run}')
  assert status == 0, err
  assert 'corrupt' in err and 'going on from step 10' in err
  assert sorted(p.name for p in (run / 'checkpoints').iterdir()) == [
    '10',
    '20',
    '20.corrupt',
    '24',
  ]
  assert_same(run, unbroken)


@pytest.fixture(scope='module')
def noisy(tmp_path_factory):
  return tiny.write_text(tmp_path_factory.mktemp('noisy') / 'text.txt', noise=3)


SPIKES = {'steps': 150, 'checkpoint__every': 40, 'faults__spike': 2.5, 'optim__lr': 0.01}


def test_a_spike_stops_the_run(noisy, tmp_path):
  status, _, err = commands.call(*tiny.arguments(noisy, **SPIKES), f'--workdir={tmp_path / "run"}')
  last = err.splitlines()[-1]
  assert status == 1 and last.startswith('error: loss of step ') and 'at most 2.5 times' in last


def test_bad_steps_are_skipped_until_there_are_too_many(noisy, tmp_path):
  command = tiny.arguments(noisy, **SPIKES, faults__on_bad_step='skip')
  status, _, err = commands.call(*command, f'--workdir={tmp_path / "run"}')
  assert status == 0, err
  lines = [line for line in tiny.lines(tmp_path / 'run') if 'train/bad' in line]
  bad = [line for line in lines if line['train/bad']]
  assert len(lines) == 150 and bad and all(line['train/spike'] > 2.5 for line in bad)
  assert err.count(': skip (') == len(bad) == lines[-1]['train/bad_steps']
  assert (tmp_path / 'run' / 'checkpoints' / '150').exists()
  status, _, err = commands.call(
    *command, f'--config.faults.max_bad_steps={len(bad) - 1}', f'--workdir={tmp_path / "less"}'
  )
  assert (
    status == 1
    and f'config.faults.max_bad_steps = {len(bad) - 1} is reached' in err.splitlines()[-1]
  )


def test_a_rewound_run_leaves_the_batches_out_and_does_so_again_after_a_kill(noisy, tmp_path):
  command = tiny.arguments(noisy, **SPIKES, faults__on_bad_step='rewind')
  status, _, err = commands.call(*command, f'--workdir={tmp_path / "run"}')
  assert status == 0, err
  jumps = json.loads((tmp_path / 'run' / 'jumps.json').read_text())
  lines = tiny.lines(tmp_path / 'run')
  assert jumps and all(jump['step'] % 40 == 0 and 0 < jump['batches'] <= 41 for jump in jumps)
  assert (
    err.count(': rewind (') == len(jumps) == max(line.get('faults/rewinds', 0) for line in lines)
  )
  trained = [line for line in lines if 'train/loss' in line]
  assert [line['step'] for line in trained] == list(range(1, 151)) and not any(
    line['train/bad'] for line in trained
  )
  assert json.loads((tmp_path / 'run' / 'report.json').read_text())['left_out'] == jumps
  left_out = sum(jump['batches'] for jump in jumps)
  rows = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  per_batch = trained[0]['data/epoch']
  assert len(rows) == len(lines) and trained[-1]['data/epoch'] == pytest.approx(
    (150 + left_out) * per_batch
  )
  commands.kill_at(tmp_path / 'killed' / 'jumps.json', *command, f'--workdir={tmp_path / "killed"}')
  status, _, err = commands.call(*command, f'--workdir={tmp_path / "killed"}')
  assert status == 0, err
  assert json.loads((tmp_path / 'killed' / 'jumps.json').read_text()) == jumps
  assert tiny.parameters(tmp_path / 'killed') == tiny.parameters(tmp_path / 'run')
