"""The benchmark, at a shape that takes seconds."""

import argparse
import dataclasses
import json
import sys

import commands
import jax
import pytest
from refusals import refused

from lm import bench
from lm.base.errors import UserError
from lm.cost import decode_time, peers, rl_time, start_time, step_time, torch_steps, workers

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


def test_a_package_of_a_peer_that_is_missing_is_named(monkeypatch):
  with refused('package no_such_package'):
    workers.require(sys.executable, ('json', 'no_such_package'), 'it')
  missing = dataclasses.replace(torch_steps.PEERS['plain'], packages=('no_such_package',))
  monkeypatch.setitem(torch_steps.PEERS, 'plain', missing)
  with refused('package no_such_package'):
    bench.main(['train', '--beside=plain'])
  with refused('--beside-python', '/usr/bin/false'):
    bench.main(['train', '--beside=plain', '--beside-python=/usr/bin/false'])


@pytest.mark.parametrize(
  'flags, field, value',
  [
    (['--beside=plain', '--family=llama'], '--family', 'llama'),
    (['--beside=plain', '--dtype=bfloat16'], '--beside', 'plain'),
  ],
)
def test_what_a_peer_cannot_do_is_refused(flags, field, value):
  with refused(field, value):
    bench.main(['train', *flags])


@pytest.mark.slow
@pytest.mark.parametrize('family', ['gpt', 'llama'])
def test_the_models_of_a_peer_in_torch_have_our_parameters(family):
  pytest.importorskip('torch')
  args = argparse.Namespace(
    **dict(layers=2, width=32, heads=2, vocab=64, seq_len=16, batch=2, steps=1, chunk=32),
    **dict(family=family, optimizer='adamw', dtype='float32', remat='none', scan_layers=True),
  )
  _, state, _ = step_time.make_step(args)
  ours = sum(x.size for x in jax.tree.leaves(state['params']))
  args.system = 'plain' if family == 'gpt' else 'transformers-eager'
  peer = torch_steps.PEERS['plain' if family == 'gpt' else 'transformers-eager']
  _, facts = peer.build(args)
  offsets = (2 * 2 + 1) * 32 if family == 'gpt' else 0  # Our LayerNorm always has them.
  assert facts['params'] == ours - offsets


@pytest.fixture
def recorded(tmp_path, monkeypatch):
  """A comparison named `recorded`, whose benchmark prints the same lines in every round."""

  def line(batch, ours, theirs):
    beside = {'tokens_per_s': theirs, 'first_step_s': 4.0, 'share_of_ceiling': 0.5}
    mine = {'batch': batch, 'ratio': ours / theirs, 'tokens_per_s': ours, 'first_step_s': 1.0}
    memory = {'memory_ratio': 0.75, 'peak_rss_bytes': 3, 'share_of_ceiling': 0.25}
    return json.dumps(mine | memory | {'beside': beside})

  file = tmp_path / 'lines'
  file.write_text(f'{line(1, 30.0, 20.0)}\n{line(8, 10.0, 20.0)}\n')
  command = ('json.tool', '--json-lines', '--no-indent', str(file))
  comparison = peers.Comparison('a peer', ('json',), command, by=('batch',))
  monkeypatch.setattr(peers, 'COMPARISONS', {'recorded': (comparison,)})


def test_peers_print_ratios_with_their_range_and_write_a_table(recorded, tmp_path, capsys):
  table = tmp_path / 'table.md'
  bench.main(['peers', '--what=recorded', '--rounds=2', '--json', f'--table={table}'])
  one, two = map(json.loads, capsys.readouterr().out.splitlines())
  assert one['ratio'] == {'median': 1.5, 'min': 1.5, 'max': 1.5} and one['rounds'] == 2
  assert '--batch=8' in two['flags'] and two['ratio']['median'] == 0.5
  assert two['tokens_per_s']['median'] == 10 and two['beside_tokens_per_s']['median'] == 20
  assert one['first_step_ratio']['median'] == 0.25 and one['memory_ratio']['median'] == 0.75
  rows = [line.split('|')[2:6] for line in table.read_text().splitlines() if 'a peer' in line]
  assert [row[0].strip() for row in rows] == ['a peer'] * 2
  assert [row[1].split()[0] for row in rows] == ['1.50', '0.50']


@pytest.mark.parametrize(
  'flags, field, value',
  [
    (['--what=none'], '--what', 'none'),
    (['--what=recorded', '--rounds=0'], '--rounds', 0),
  ],
)
def test_what_peers_cannot_run_is_named(recorded, flags, field, value):
  with refused(field, value):
    bench.main(['peers', *flags])


def test_the_loader_is_timed(capsys):
  bench.main(['load', '--json', '--steps=1', '--rounds=1', '--seq-lens=64', '--batch-tokens=256'])
  results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert results and all(result['tokens_per_s'] > 0 for result in results)


def test_starts_are_timed_and_must_end_as_they_should(monkeypatch, capsys):
  commands = {'none': (['-c', 'print()'], 0), 'error': (['-c', 'exit(1)'], 1)}
  step = json.dumps({'first_step_s': 2.0})
  monkeypatch.setattr(start_time, 'COMMANDS', commands)
  monkeypatch.setattr(start_time, 'FIRST_STEP', ('-c', f'print({step!r})'))
  bench.main(['start', '--json', '--rounds=1'])
  results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [result['start'] for result in results[:2]] == ['none', 'error']
  assert [result['seconds']['median'] for result in results[2:]] == [2.0, 2.0]
  monkeypatch.setattr(start_time, 'COMMANDS', {'none': (['-c', 'exit(3)'], 0)})
  with refused('exit status of python -c exit(3)', 3):
    bench.main(['start', '--rounds=1'])


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
  with jax.numpy_dtype_promotion('standard'), jax.set_mesh(None):  # `ours` sets a mesh
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
