"""The benchmark, at a shape that takes seconds."""

import argparse
import json

import commands
import jax
import pytest
from refusals import refused

from lm import bench
from lm.base.errors import UserError
from lm.cost import decode_time, rl_time

SHAPE = (
  '--layers=1',
  '--width=16',
  '--heads=2',
  '--vocab=32',
  '--seq-len=8',
  '--batch=2',
  '--chunk=8',
  '--steps=3',
)


@pytest.mark.slow
@pytest.mark.parametrize(
  'options', [(), ('--optimizer=muon', '--scan-layers', '--remat=full', '--dtype=bfloat16')]
)
def test_prints_one_line_of_json_that_adds_up(options):
  status, out, err = commands.run('-m', 'lm.bench', 'train', '--json', *SHAPE, *options)
  assert status == 0, err
  (result,) = map(json.loads, out.splitlines())
  assert result['step_s']['min'] <= result['step_s']['median'] <= result['step_s']['max']
  assert result['first_step_s'] > 0
  assert result['tokens_per_s'] == pytest.approx(16 / result['step_s']['median'])
  # One layer of width D: 12 D^2 matrices, 13 D vectors, 2 D of the final norm; tables of V and T
  # rows.
  assert result['params'] == 12 * 256 + 13 * 16 + 2 * 16 + (32 + 8) * 16
  flops = 6 * (12 * 256 + 15 * 16 + 32 * 16) + 12 * 8 * 16
  assert result['model_flops_per_s'] == pytest.approx(result['tokens_per_s'] * flops)
  assert result['peak_rss_bytes'] > 50e6
  assert result['last_loss'] < result['first_loss'] == pytest.approx(3.47, abs=0.1)  # log 32


@pytest.mark.slow
def test_a_missing_peer_is_named():
  status, _, err = commands.run(
    '-m',
    'lm.bench',
    'train',
    *SHAPE,
    '--beside=transformers',
    f'--beside-python={commands.sys.executable}',
  )
  assert status == 1 and 'answer of the benchmark of transformers is missing' in err


def test_heads_must_divide_the_width():
  status, _, err = commands.run('-m', 'lm.bench', 'train', '--width=10', '--heads=3')
  assert status == 1 and '--heads is 3' in err and '10' in err


@pytest.mark.slow
@pytest.mark.parametrize('command', ['decode', 'prefill', 'serve'])
def test_the_engine_is_timed_at_every_batch_size(run_folder, command):
  status, out, err = commands.run(
    *('-m', 'lm.bench', command, '--json', f'--model={run_folder}', '--batch=1,2'),
    *('--prompt=17', '--new=3', '--turns=2', '--requests=4'),
  )
  assert status == 0, err
  results = [json.loads(line) for line in out.splitlines()]
  assert [result['batch'] for result in results] == [1, 2]
  for result in results:
    assert result['command'] == command and len(result['seconds']) == 2
    seconds = sum(result['seconds']) / 2
    drawn = result['batch'] * {'decode': 3, 'prefill': 17}.get(command, 0)
    if command == 'serve':
      assert result['requests'] == 4
      assert 0 < result['first_token_s']['median'] <= result['first_token_s']['p95']
    else:
      assert result['tokens_per_s'] == pytest.approx(drawn / seconds)
      assert result['limits']['bytes_per_s'] > 1e8 and result['limits']['flops_per_s'] > 1e8


@pytest.mark.slow
def test_transformers_serves_the_same_requests(run_folder):
  pytest.importorskip('torch')
  pytest.importorskip('transformers')
  status, out, err = commands.run(
    *('-m', 'lm.bench', 'serve', '--json', f'--model={run_folder}', '--batch=2', '--turns=1'),
    *('--prompt=17', '--new=3', '--requests=3', '--beside=transformers'),
  )
  assert status == 0, err
  result = json.loads(out)
  speeds = result['tokens_per_s'], result['beside']['tokens_per_s']
  assert speeds[0] / speeds[1] == pytest.approx(result['ratio'])


RL = argparse.Namespace(
  command='rl',
  model='tiny',
  prompts=2,
  answers=4,
  prompt=5,
  new=6,
  rows=8,
  turns=1,
  kl=0.1,
  beside='trl',
)


@pytest.mark.slow
def test_a_whole_step_of_rl_is_timed_in_parts(run_folder):
  with jax.numpy_dtype_promotion('standard'):
    facts, answer = rl_time.ours(RL, {'tiny': run_folder}.get)
    first, second = answer(), answer()
  assert facts['system'].startswith('deepdive')
  for step in (first, second):
    assert step['drawn'] == 2 * 4 * 6 and 0 < step['reward'] < 1 and step['sampler_gap'] < 1e-4
    parts = [step[part] for part in rl_time.PARTS]
    assert min(parts) > 0 and sum(parts) == pytest.approx(step['seconds'])
  assert rl_time.prompts(RL, 0, 64) == rl_time.prompts(RL, 0, 64) != rl_time.prompts(RL, 1, 64)


def test_steps_of_rl_are_compared_turn_by_turn():
  shared = {'drawn': 48, 'reward': 0.5}
  mine = {**shared, 'sampling': 1.0, 'scoring': 0.0, 'update': 3.0, 'sampler_gap': 1e-6}
  turns = [
    [{**mine, 'seconds': 4.0}, {**shared, 'seconds': 8.0}],
    [{**mine, 'seconds': 5.0}, {**shared, 'seconds': 15.0}],
    [{**mine, 'seconds': 6.0}, {**shared, 'seconds': 24.0}],
  ]
  result = rl_time._result(RL, ['ours', 'theirs'], turns)
  assert (result['step_s'], result['beside']['step_s'], result['ratio']) == (5, 15, 3)
  assert result['shares'] == {'sampling': 0.25, 'scoring': 0, 'update': 0.75}
  assert result['beside']['tokens_drawn'] == [48] * 3 and result['prompts'] == 2


@pytest.mark.parametrize(('option', 'field'), [('--rows=5', '--rows'), ('--new=0', '--new')])
def test_shapes_of_rl_that_do_not_fit_are_named(option, field):
  with refused(field):
    bench.main(['rl', option])


def test_the_limits_of_the_machine_are_what_one_would_compute_by_hand():
  facts = {
    'weight_bytes_per_token': 4000.0,
    'cache_bytes_per_token': 10,
    'layer_params': 1000,
    'vocabulary_params': 500,
    'bytes_per_s': 1e6,
    'flops_per_s': 1e7,
  }
  got = decode_time.limits(facts, 2, 16, 4, seconds=0.1)
  # four steps, which read the weights and 16, 17, 18 and 19 tokens of two rows
  assert got['memory_s'] == pytest.approx((4 * 4000 + 2 * 10 * (16 + 17 + 18 + 19)) / 1e6)
  assert got['products_s'] == pytest.approx(2 * 2 * (1000 * 19 + 500 * 4) / 1e7)
  assert got['share_of_limit'] == pytest.approx(got['memory_s'] / 0.1)


@pytest.mark.parametrize(
  'options, field',
  [
    (['--batch=0'], '--batch'),
    (['--batch=a'], '--batch'),
    (['--beside=transformers', '--quantize=int8'], '--beside'),
  ],
)
def test_what_cannot_be_timed_is_named(options, field):
  with pytest.raises(UserError) as raised:
    bench.main(['serve', *options])
  assert raised.value.field == field
