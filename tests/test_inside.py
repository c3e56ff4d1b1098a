"""Looking inside a run: traces, shapes without a run, debuggers' modes, how often a step compiles."""

import gzip
import json

import commands
import pytest
import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def text(tmp_path_factory):
  return tiny.write_text(tmp_path_factory.mktemp('text') / 'text.txt')


def test_a_trace_holds_the_steps_asked_for(text, tmp_path):
  status, _, err = commands.call(
    *tiny.arguments(text, steps=8), f'--workdir={tmp_path}', '--profile=3:5'
  )
  assert status == 0, err
  (path,) = (tmp_path / 'profile').rglob('*.trace.json.gz')
  events = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
  assert {event['args']['step_num'] for event in events if event.get('name') == 'train'} == {
    '3',
    '4',
    '5',
  }
  status, _, err = commands.call(
    *tiny.arguments(text, steps=8), f'--workdir={tmp_path}', '--profile=3:5'
  )
  assert (
    status == 1
    and "--profile is '3:5'; allowed: steps of this start of the run, from 9 to 8"
    in err.splitlines()[-1]
  )
  status, _, err = commands.call(
    *tiny.arguments(text, steps=8), f'--workdir={tmp_path}', '--profile=5:3'
  )
  assert status == 1 and "--profile is '5:3'; allowed: FIRST:LAST" in err.splitlines()[-1]


def test_a_dry_run_prints_shapes_and_shardings_and_trains_nothing(text, tmp_path):
  fields = {'batch_size': 16, 'mesh__fsdp': 4, 'mesh__data': 2}
  status, out, err = commands.call(
    *tiny.arguments(text, **fields), f'--workdir={tmp_path}', '--dry', devices=8
  )
  assert status == 0, err
  (kernel,) = [
    line.split()
    for line in out.splitlines()
    if line.startswith('state/params/layers/mlp/up/kernel')
  ]
  assert (
    kernel[1:4] == ['float32[1,', '32,', '64]']
    and kernel[-1] == f'{32 * 64 * 4 // 4:,}'
    and "'fsdp'" in ' '.join(kernel)
  )
  assert 'batch/inputs' in out and "'fsdp': 4" in out.splitlines()[0]
  assert (
    'data=2 fsdp=4' in out and 'all, at the peak' in out and 'sent along fsdp: all-gather' in out
  )
  assert not (tmp_path / 'checkpoints').exists() and not (tmp_path / 'metrics.jsonl').exists()


def test_without_jit_the_losses_are_the_same(text, tmp_path):
  fields = {'steps': 2, 'batch_size': 2, 'microbatches': 1}
  command = tiny.arguments(text, **fields)
  for status, _, err in (
    commands.call(*command, f'--workdir={tmp_path / "jit"}'),
    commands.run(*command, f'--workdir={tmp_path / "nojit"}', '--nojit', anew=True),
  ):
    assert status == 0, err
  jit, nojit = (tiny.lines(tmp_path / folder) for folder in ('jit', 'nojit'))
  for a, b in zip(jit, nojit, strict=True):
    assert a == pytest.approx(b, rel=1e-4)


def test_debug_nans_shows_where_a_nan_comes_from(text, tmp_path):
  status, _, err = commands.run(
    *tiny.arguments(text, model__init_std=1e30),
    f'--workdir={tmp_path}',
    '--debug-nans',
    anew=True,
  )
  assert status == 1 and 'FloatingPointError' in err and 'lm/' in err


def test_a_step_compiles_once_and_comes_from_the_cache_the_second_time(text, tmp_path, monkeypatch):
  cache = {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache'), 'JAX_LOG_COMPILES': '1'}
  # as it is by default
  monkeypatch.delitem(commands.ENVIRONMENT, 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS')
  for hits, folder in enumerate(('first', 'second')):
    fields = {'steps': 2, 'model__num_layers': 2, 'model__scan_layers': False}
    status, _, err = commands.run(
      *tiny.arguments(text, **fields), f'--workdir={tmp_path / folder}', **cache
    )
    assert status == 0, err
    assert err.count('Finished XLA compilation of jit(step)') == 1
    assert err.count("Persistent compilation cache hit for 'jit_step'") == hits
