"""The launcher from outside: each config's smoke variant, resumption to the bit, and what bad input
says.
"""

import contextlib
import gc
import json
import shutil
from unittest import mock

import chat_templates
import commands
import jax
import numpy as np
import pytest
from config_fields import fields
from ml_collections import ConfigDict, FrozenConfigDict
from tiny import lines

from configs import base
from data.chat import chat_formats
from data.tokenizers import loading as tokenizer_lib
from lm.base import config as config_lib
from lm.base import metrics
from lm.model import transformer
from lm.stages.rl import rollout
from lm.weights import checkpoint


def train(config, workdir, *overrides):
  return commands.call(
    'train.py', f'--config=configs/{config}.py:smoke', f'--workdir={workdir}', *overrides
  )


@contextlib.contextmanager
def recorded():
  """The fields that are read inside the block: (names of the fields of its part, its own name)."""
  read, plain = set(), ConfigDict.__getattr__

  def record(self, name):
    if not name.startswith('_'):
      read.add((tuple(sorted(self.keys())), name))
    return plain(self, name)

  with mock.patch.object(ConfigDict, '__getattr__', record):
    yield read


SMOKES = ('pretrain', 'sft', 'rl', 'ppo', 'dpo', 'reward', 'rlhf')


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  """A function that returns the folder of a smoke run, and the config fields that it read."""
  made = {}

  def run(name):
    if name not in made:
      folder = tmp_path_factory.mktemp(name) / 'run'
      more = ()
      if name == 'sft':
        more = ('--config.eval.probe=arithmetic', '--config.eval.probe_examples=8')
        more += ('--config.eval.probe_samples=2',)
        more += ('--config.eval.pass_at=1,3', '--config.eval.pass_samples=3')
      elif name == 'rlhf':
        more = (f'--config.rl.reward_model={run("reward")[0]}',)
      with recorded() as read:
        status, _, err = train(name, folder, *more)
      assert status == 0, err
      made[name] = folder, read
    return made[name]

  return run


@pytest.fixture(scope='module')
def pretrained(smoke):
  """A whole pretraining run."""
  return smoke('pretrain')[0]


def test_pretraining_learns_and_reports(pretrained):
  bpb = [line['eval/val/bpb'] for line in lines(pretrained) if 'eval/val/bpb' in line]
  assert bpb[-1] < bpb[0] - 1
  report = json.loads((pretrained / 'report.json').read_text())
  assert report['pretrain']['tokens'] == 20 * 8 * 128
  assert report['pretrain']['val_bpb'] == bpb[-1]
  assert 0 < report['pretrain']['bigram_bpb'] < report['pretrain']['unigram_bpb']
  assert [s['prompt'] for s in report['samples']['first']] == ['def main']
  assert {'config', 'code', 'data', 'tokenizer'} <= report['provenance'].keys()
  assert list(pretrained.glob('events.out.tfevents.*'))


def test_time_is_told_apart(pretrained):
  timed = [
    line
    for line in map(json.loads, (pretrained / 'metrics.jsonl').read_text().splitlines())
    if 'perf/step_s' in line
  ]
  assert len(timed) == sum('train/loss' in line for line in lines(pretrained)) > 0
  for line in timed:
    assert 0 < line['perf/input_s'] < line['perf/step_s']
    assert line['perf/tokens_per_s'] == pytest.approx(8 * 128 / line['perf/step_s'])
    assert line['perf/model_flops_per_s'] > 0 and line['perf/predicted_peak_bytes'] > 1e6
    parts = [value for name, value in line.items() if name.startswith('goodput/')]
    assert len(parts) == 8 and min(parts) >= 0 and 0 < sum(parts) < 1 + 1e-9
  assert [line['step'] for line in timed if 'perf/first_step_s' in line] == [5]
  report = json.loads((pretrained / 'report.json').read_text())
  assert 0 < report['goodput/step'] < 1


def test_last_checkpoint_is_of_the_last_update(pretrained):
  assert (
    sorted(int(p.name) for p in (pretrained / 'checkpoints').iterdir() if p.name.isdigit())[-1]
    == 20
  )


@pytest.mark.slow
def test_a_run_goes_on_from_its_checkpoint_to_the_same_numbers(pretrained, tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(pretrained, run)
  shutil.rmtree(run / 'checkpoints' / '20')
  (run / 'report.json').unlink()
  status, _, err = train('pretrain', run)
  assert status == 0, err
  assert lines(run) == lines(pretrained)


def test_another_config_does_not_go_on_with_a_run(pretrained, tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(pretrained, run)
  status, _, err = train('pretrain', run, '--config.optim.lr=0.5')
  assert (status, err.count('\n')) == (1, err.rstrip().count('\n') + 1)
  assert 'config.optim.lr is 0.5; allowed: 0.01' in err


@pytest.mark.slow
@pytest.mark.parametrize('config', ['sft', 'rl'])
def test_smoke_of_the_other_stages(config, smoke):
  run, _ = smoke(config)
  report = json.loads((run / 'report.json').read_text())
  assert report['scores']['arithmetic']['n'] == 8
  if config == 'sft':
    assert report['pass_at']['arithmetic'].keys() == {'1', '3'}
    assert all(found['n'] == 8 for found in report['pass_at']['arithmetic'].values())
  if config == 'rl':
    assert report['rl'].keys() == {
      'reward_first',
      'reward_last',
      'answer_length_first',
      'answer_length_last',
    }
    gaps = [line['rl/sampler_gap'] for line in lines(run) if line.get('train/weight')]
    # the second of two updates on one batch is a little off policy
    assert all(gap < 0.05 for gap in gaps)
    kept = metrics.rollouts(run)
    for line in lines(run):
      rewards = [row['reward'] for row in kept if row['step'] == line['step']]
      assert 'rl/reward' not in line or np.mean(rewards) == pytest.approx(line['rl/reward'])
    assert len(kept) == 4 * 32


@pytest.mark.slow
def test_ppo_trains_values_first_and_keeps_the_answers_it_is_asked_to(smoke):
  run, _ = smoke('ppo')
  first, *later = [line for line in lines(run) if 'rl/value_loss' in line]
  assert first['train/loss'] == 0 and all(line['train/loss'] != 0 for line in later)
  assert all(line['rl/value_loss'] > 0 and line['rl/kl'] >= 0 for line in (first, *later))
  assert later and later[-1]['rl/value_loss'] != first['rl/value_loss']
  assert first['rl/explained_variance'] < 1
  assert {row['step'] for row in metrics.rollouts(run)} == {2}


@pytest.mark.slow
def test_a_policy_that_does_not_stop_learns_to(tmp_path):
  run = tmp_path / 'run'
  options = ('--config=configs/rl.py:stop', f'--workdir={run}', '--config.steps=12')
  status, _, err = commands.call('train.py', *options)
  assert status == 0, err
  cut_off = [line['rl/truncated'] for line in lines(run) if 'rl/truncated' in line]
  assert cut_off[0] > 0.8 and cut_off[-1] < 0.7


@pytest.mark.slow
def test_a_policy_that_has_collapsed_stops_the_run_and_its_last_checkpoint_stays(smoke, tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(smoke('rl')[0], run)
  shutil.rmtree(run / 'checkpoints' / '4')
  status, _, err = train('rl', run, '--config.rl.health.min_length=1000')
  said = err.splitlines()[-1]
  assert status == 1 and said.startswith('error: rl/length of step 3 is ')
  assert said.endswith(
    'allowed: at least 1000, config.rl.health.min_length. Answers have become too short. The last '
    'checkpoint before it is 2.'
  )
  assert [path.name for path in (run / 'checkpoints').iterdir()] == ['2']
  assert lines(run)[-1]['step'] == 3 and lines(run)[-1]['rl/length'] < 1000


@pytest.mark.slow
def test_a_reward_model_reports_how_far_it_may_be_trusted(smoke):
  run, _ = smoke('reward')
  report = json.loads((run / 'report.json').read_text())
  accuracy, error = (report['comparisons'][name] for name in ('accuracy', 'calibration_error'))
  assert accuracy['accuracy'] == pytest.approx(report['eval/val/accuracy'])
  assert accuracy['low'] < accuracy['accuracy'] < accuracy['high'] and accuracy['n'] > 100
  assert error['value'] == pytest.approx(report['eval/val/calibration_error'])
  assert sum(part['n'] for part in report['comparisons']['reliability']) == accuracy['n']
  assert lines(run)[-1]['eval/val/calibration_error'] == report['eval/val/calibration_error']


@pytest.mark.slow
def test_comparisons_are_evaluated_without_training(smoke, tmp_path):
  run, _ = smoke('reward')
  pairs, out = tmp_path / 'pairs.jsonl', tmp_path / 'report.json'
  rows = [{'prompt': f'{i}?', 'chosen': f'{i}', 'rejected': 'no'} for i in range(6)]
  pairs.write_text(''.join(f'{json.dumps(row)}\n' for row in rows))
  options = f'--checkpoint={run}', f'--config.data.val={pairs}', f'--out={out}'
  status, _, err = commands.call('eval.py', '--config=configs/reward.py:smoke', *options)
  assert status == 0, err
  report = json.loads(out.read_text())
  assert report['comparisons']['accuracy']['n'] == 6
  assert 0 <= report['metrics']['eval/val/accuracy'] <= 1 and 'val_bpb' not in report
  status, _, err = commands.call('eval.py', '--config=configs/dpo.py:smoke', *options)
  assert status == 1 and 'config.data.val' in err.splitlines()[-1]


@pytest.mark.slow
def test_rl_against_a_reward_model_logs_its_rewards_and_the_true_ones(smoke):
  run, _ = smoke('rlhf')
  steps = [line for line in lines(run) if 'rl/proxy' in line]
  assert [line['step'] for line in steps] == [1, 2, 3]
  for line in steps:  # the grade of the task has no weight in this reward
    assert line['rl/reward'] == pytest.approx(line['rl/proxy'], abs=1e-5)
    assert -2 <= line['rl/gold'] <= 2
    assert line['rl/answer_kl'] == pytest.approx(0, abs=1e-3) or line['step'] > 1
  kept = metrics.rollouts(run)
  assert {row['step'] for row in kept} == {2} and len(kept) == 16
  assert np.mean([row['proxy'] for row in kept]) == pytest.approx(steps[1]['rl/proxy'], abs=1e-5)
  assert np.mean([row['gold'] for row in kept]) == pytest.approx(steps[1]['rl/gold'], abs=1e-5)
  report = json.loads((run / 'report.json').read_text())['held_out_rewards']
  last = [line for line in lines(run) if 'eval/rewards/proxy' in line][-1]
  for name in ('proxy', 'gold'):
    assert report[name]['low'] < report[name]['mean'] < report[name]['high']
    assert report[name]['n'] == 8
    assert last[f'eval/rewards/{name}'] == pytest.approx(report[name]['mean'])


@pytest.mark.slow
def test_best_of_n_from_the_command_line(smoke, tmp_path):
  policy, proxy = smoke('rl')[0], smoke('reward')[0]
  out = tmp_path / 'best'
  status, said, err = commands.call(
    '-m',
    'lm.best_of',
    '--config=configs/best_of.py:smoke',
    f'--workdir={out}',
    f'--config.init_from={policy}',
    f'--config.rl.reward_model={proxy}',
    '--config.rl.gold=style',
    '--config.data.tasks=arithmetic',
  )
  assert status == 0, err
  assert 'best of    4' in said
  rows = metrics.json_lines(out / 'answers.jsonl')
  assert len(rows) == 8 and {len(row['answers']) for row in rows} == {4}
  report = json.loads((out / 'report.json').read_text())
  curve = report['test']['rankings'][str(proxy)]['curve']
  rewards = np.array([row['proxies'][str(proxy)] for row in rows])
  assert curve[0]['proxy'] == pytest.approx(rewards.mean())
  assert curve[3]['proxy'] == pytest.approx(rewards.max(axis=1).mean())
  kept = metrics.json_lines(out / 'best.jsonl')
  assert report['asked'] == 8 and len(kept) == report['kept']
  assert all(row['messages'][-1]['role'] == 'assistant' for row in kept)


VARIANTS = [  # models that no config trains
  {'rope_scaling': 'llama3', 'rope_original_len': 8, 'layer_types': ('window',), 'window': 4},
  {'num_experts': 2},
  {'lora_rank': 2, 'heads': ('vocabulary', 'scalar')},
]


@pytest.mark.slow
def test_every_field_is_read(smoke):
  everything = set().union(*(smoke(name)[1] for name in SMOKES))
  for variant in VARIANTS:
    config = FrozenConfigDict(base.get_config().model.to_dict() | {'vocab_size': 8} | variant)
    with recorded() as read:
      transformer.check(config)
      jax.eval_shape(lambda config=config: transformer.init(config, jax.random.key(0)))
    everything |= read
  assert [
    name for name, field in fields(base.get_config()).items() if field not in everything
  ] == []


@pytest.mark.slow
@pytest.mark.parametrize('name', SMOKES)
def test_a_field_that_a_config_sets_is_read_when_it_runs(smoke, name):
  config, plain = config_lib.load(f'configs/{name}.py:smoke'), fields(base.get_config())
  defaults = _values(base.get_config())
  values = {field: value for field, value in _values(config).items() if value != defaults[field]}
  assert values
  assert [field for field in values if plain[field] not in smoke(name)[1]] == []


def _values(config, prefix=''):
  found = {}
  for name, value in config.items():
    found |= (
      _values(value, f'{prefix}{name}.')
      if isinstance(value, ConfigDict)
      else {prefix + name: value}
    )
  return found


@pytest.mark.slow
def test_rl_where_nothing_is_right_computes_no_update_and_skips_prompts_that_are_too_long(
  tmp_path, monkeypatch
):
  held, sample = [], rollout.sample

  def record(*arguments, **options):
    held.append(live_bytes())
    return sample(*arguments, **options)

  monkeypatch.setattr(rollout, 'sample', record)
  before = live_bytes()
  fields = {
    'steps': 3,
    'microbatches': 1,
    'seq_len': 24,
    'eval.tasks': '',
    'rl.kl': 0.0,
    'rl.log_kl': False,
    'rl.format_reward': 0.0,
  }
  options = [f'--config.{name}={value}' for name, value in fields.items()]
  status, _, err = train('rl', tmp_path / 'run', *options)
  assert status == 0, err
  steps = [
    json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  ]
  assert [line['step'] for line in steps] == [1, 2, 3]
  for line in steps:
    assert line['rl/equal_groups'] == 1 and line['perf/rollout_s'] > 0
    assert line['perf/tokens_per_s'] == line['perf/model_flops_per_s'] == 0
    assert not [name for name in line if name.startswith(('train/', 'opt/'))]
  notes = [
    json.loads(line) for line in (tmp_path / 'run' / 'samples.jsonl').read_text().splitlines()
  ]
  assert sum(line['rl/prompts_too_long'] for line in steps) == len(notes) > 0
  assert (
    'task arithmetic, training problem' in notes[0]['text'] and 'a prompt of' in notes[0]['text']
  )
  parameters = 4 * json.loads((tmp_path / 'run' / 'report.json').read_text())['parameters']
  # with two moments each, and no parameters of a reference
  assert held[1] - before < 3.5 * parameters


def live_bytes():
  """The size of all arrays of this process."""
  gc.collect()
  return sum(x.nbytes for x in jax.live_arrays())


@pytest.mark.parametrize(('field', 'value'), [('loss.balance', 0.5), ('data.epochs', '2')])
def test_rl_refuses_a_field_that_it_does_not_read(tmp_path, field, value):
  status, _, err = train('rl', tmp_path / 'run', f'--config.{field}={value}')
  assert status == 1 and err.splitlines()[-1].startswith(
    f'error: config.{field} is {value!r}; allowed: '
  )


@pytest.mark.slow
def test_evaluation_from_the_command_line(pretrained, tmp_path):
  out = tmp_path / 'report.json'
  val = pretrained / 'data' / 'val' / 'manifest.json'
  status, _, err = commands.call(
    'eval.py',
    '--config=configs/eval.py:smoke',
    f'--checkpoint={pretrained}',
    f'--out={out}',
    f'--config.data.val={val}',
    '--config.seq_len=128',
  )
  assert status == 0, err
  report = json.loads(out.read_text())
  trained = json.loads((pretrained / 'report.json').read_text())
  assert report['val_bpb'] == pytest.approx(trained['pretrain']['val_bpb'], rel=1e-5)
  assert report['metrics']['eval/val/loss'] == pytest.approx(trained['eval/val/loss'], rel=1e-5)
  assert report['scores']['arithmetic']['n'] == 8


@pytest.mark.slow
def test_int8_weights_change_the_perplexity_by_less_than_a_percent(pretrained, tmp_path):
  out = tmp_path / 'report.json'
  options = (
    f'--config.data.val={pretrained}/data/val/manifest.json',
    '--config.eval.tasks=',
    '--config.eval.prompts=()',
  )
  status, said, err = commands.call(
    'eval.py',
    '--config=configs/eval.py:smoke',
    f'--checkpoint={pretrained}',
    f'--out={out}',
    '--config.seq_len=128',
    '--quantize=int8',
    *options,
  )
  assert status == 0, err
  report, trained = (json.loads(path.read_text()) for path in (out, pretrained / 'report.json'))
  change = report['perplexity_change']
  assert 0 < abs(change) < 0.01 and '--quantize=int8' in said
  nats = (report['val_bpb'] / trained['pretrain']['val_bpb'] - 1) * trained['eval/val/loss']
  assert change == pytest.approx(nats, rel=0.05, abs=2e-5)


@pytest.mark.slow
def test_step_that_is_not_finite_stops_the_run_and_is_not_taken(tmp_path):
  status, _, err = train('pretrain', tmp_path / 'run', '--config.model.init_std=1e30')
  assert status == 1
  said = err.splitlines()[-1]
  assert said.startswith('error: gradient norm of step 1 is nan; allowed: a finite number. ')
  assert 'First not finite: gradient of layers/mlp_norm/scale, layer 1, in microbatch 0' in said
  assert not [p for p in (tmp_path / 'run' / 'checkpoints').iterdir()]


@pytest.mark.parametrize(
  'arguments, message',
  [
    (
      ['--config=configs/pretrain.py:smoke', '--config.optim.lrr=1'],
      "did you mean 'config.optim.lr'?",
    ),
    (['--config=configs/pretrain.py:smoek'], "did you mean 'smoke'?"),
    (['--config=configs/none.py'], 'configs/none.py'),
    (['--config=configs/pretrain.py:smoke', '--config.optim.lr=abc'], 'abc'),
    (['--config=configs/pretrain.py:smoke', '--config.data.train=nothing/*.txt'], 'nothing/*.txt'),
    (['--config=configs/sft.py', '--config.init_from=/no/such/run'], '/no/such/run'),
    (['--config=configs/pretrain.py:smoke', '--config.model.num_kv_heads=3'], 'num_kv_heads is 3'),
    (['--config=configs/pretrain.py:smoke', '--config.mesh.fsdp=3'], 'config.mesh'),
  ],
)
def test_bad_input_is_one_line_and_status_1(arguments, message, tmp_path):
  status, _, err = commands.call('train.py', *arguments, f'--workdir={tmp_path / "run"}')
  assert status == 1
  assert err.splitlines()[-1].startswith('error: ')
  assert message in err.splitlines()[-1]
  assert 'Traceback' not in err


def test_damaged_checkpoint_is_named(pretrained, tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(pretrained, run)
  victim = max(
    (p for p in (run / 'checkpoints' / '20' / 'params').rglob('*') if p.is_file()),
    key=lambda p: p.stat().st_size,
  )
  victim.write_bytes(victim.read_bytes()[:-7] + b'1234567')
  arguments = f'--checkpoint={run}', f'--out={tmp_path / "o.json"}'
  status, _, err = commands.call('eval.py', '--config=configs/eval.py:smoke', *arguments)
  assert (status, err.splitlines()[-1].startswith('error: SHA-256 of params/')) == (1, True)
  assert not (tmp_path / 'o.json').exists()


@pytest.fixture
def imported(tmp_path):
  """A tiny model as if from elsewhere: a ChatML template with a system turn of its own, a tokenizer
  without our tokens.
  """
  folder = tmp_path / 'imported'
  fields = config_lib.load('configs/sft.py:smoke').model
  tokenizer = tokenizer_lib.load('bytes', ['<|endoftext|>', '<|im_start|>', '<|im_end|>'])
  config = transformer.sized(fields, tokenizer.vocab_size)
  with checkpoint.Checkpointer(folder / 'checkpoints', keep_last=1) as saver:
    params = jax.jit(transformer.init_params, static_argnums=0)(config, jax.random.key(0))
    provenance = {'config': {'model': config.to_dict()}, 'tokenizer': tokenizer.fingerprint}
    saver.save(1, {'params': params, 'step': np.int32(1)}, provenance)
  tokenizer.save(folder / 'tokenizer')
  (folder / 'tokenizer' / 'chat_template.jinja').write_text(chat_templates.DEFAULT_SYSTEM)
  return folder


@pytest.mark.slow
def test_a_model_from_elsewhere_is_tuned_and_talked_to_in_its_own_format(imported, tmp_path):
  tuned = tmp_path / 'sft'
  status, _, err = train(
    'sft', tuned, f'--config.init_from={imported}', '--config.data.tasks=calculator,identity'
  )
  assert status == 0, err
  chat_format = chat_formats.load(str(tuned / 'tokenizer'))
  assert chat_format.layout == chat_formats.load(str(imported / 'tokenizer')).layout
  assert (chat_format.tokenizer.vocab_size, len(chat_format.banned_ids(384))) == (
    259 + 6,
    2 + 384 - 265,
  )
  # a multiple of 128
  assert json.loads((tuned / 'config.json').read_text())['model']['vocab_size'] == 384
  start = chat_format.render_prompt([{'role': 'user', 'content': 'Hi'}])
  assert chat_format.tokenizer.decode(start) == (
    '<|im_start|>system\nYou are '
    'Ann.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n'
  )
  losses = [line['train/loss'] for line in lines(tuned) if 'train/loss' in line]
  assert losses[-1] < losses[0] - 0.5
  for folder in (imported, tuned):
    status, out, err = commands.call(
      '-m', 'lm.chat', f'--checkpoint={folder}', '--max-new-tokens=4', text='Hi\n'
    )
    assert status == 0 and out, err
  status, _, err = train('rl', tmp_path / 'rl', f'--config.init_from={tuned}', '--config.steps=1')
  assert status == 0, err
  data = tuned / 'data' / 'train' / 'manifest.json'
  status, _, err = train(
    'sft',
    tmp_path / 'other',
    '--config.data.chat_format=deepdive',
    f'--config.init_from={tuned}',
    f'--config.data.train={data}',
  )
  assert status == 1 and f'tokenizer of {data} is ' in err
