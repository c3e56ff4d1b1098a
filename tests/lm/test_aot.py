"""Steps compiled for TPUs that are not there, beside the formulas. Needs libtpu."""

import json
import pickle
import re

import commands
import jax
import pytest

from lm import aot, budget
from lm.base.errors import UserError
from lm.cost import ahead_of_time, chips


def needs_libtpu(test):
  """Marks a test that compiles for TPUs, which takes long."""
  missing = pytest.mark.skipif(
    not ahead_of_time.has_libtpu(), reason="libtpu is not installed: pip install -e '.[tpu]'"
  )
  return missing(pytest.mark.slow(test))


# Wide, so that activations and weights are most of what is held, and few layers; nothing is
# allocated.
SHAPE = {
  'batch_size': 8,
  'microbatches': 1,
  'seq_len': 4096,
  'model.vocab_size': 32_768,
  'model.num_layers': 6,
  'model.embed_dim': 2048,
  'model.num_heads': 16,
  'model.num_kv_heads': 8,
  'model.head_dim': 128,
  'model.mlp_dim': 8192,
  'model.max_len': 4096,
  'model.tie_embeddings': False,
  'model.dtype': 'bfloat16',
  'model.remat': 'full',
  'model.attention': 'splash',
}


def given(config, **fields):
  """The options of a config of SHAPE."""
  return [
    f'--config={config}',
    *(f'--config.{name}={value}' for name, value in (SHAPE | fields).items()),
  ]


def run(topology, *options, **fields):
  """Runs lm.aot in a process of its own, which libtpu takes for itself."""
  config = given('configs/pretrain.py', **fields)
  return commands.run('-m', 'lm.aot', *config, f'--topology={topology}', *options)


@needs_libtpu
@pytest.mark.parametrize(
  'topology, fields',
  [
    ('v5e:2x2', {'mesh.data': 2, 'mesh.tensor': 2, 'microbatches': 2, 'batch_size': 16}),
    ('v5e:2x2', {'mesh.data': 1, 'mesh.fsdp': 4, 'model.remat': 'dots'}),
  ],
)
def test_the_formula_is_within_a_tenth_of_the_compiler(topology, fields, tmp_path):
  status, out, err = run(topology, '--json', f'--save={tmp_path}/step', **fields)
  assert status == 0, err
  (result,) = map(json.loads, out.splitlines())
  for name in ('argument_bytes', 'peak_bytes', 'hlo_flops', 'collective_bytes'):
    assert result['predicted'][name] == pytest.approx(result[name], rel=0.1), name
  assert result['predicted'].keys() >= result.keys() - {
    'topology',
    'compile_seconds',
    'temp_size_bytes',
    'predicted',
  }
  for axes, kinds in result['predicted']['collectives'].items():
    sent = (
      sum(kind['bytes'] for kind in told.values()) for told in (kinds, result['collectives'][axes])
    )
    assert next(sent) == pytest.approx(next(sent), rel=0.2), axes
  assert result['compile_seconds'] > 0 and result['peak_bytes'] < result['hbm_bytes'] == 16 * 2**30
  assert [path.name for path in tmp_path.iterdir()] == ['step']
  executable, arguments, _ = pickle.loads((tmp_path / 'step').read_bytes())
  assert len(executable) > 1e6 and arguments.num_leaves > 10


@needs_libtpu
def test_a_step_that_does_not_fit_is_an_error():
  status, _, err = run(
    'v5e:2x2', **{'mesh.data': 4, 'model.embed_dim': 8192, 'model.mlp_dim': 16_384}
  )
  assert status == 1 and 'memory of v5e:2x2 is not enough' in err.splitlines()[-1]


@needs_libtpu
def test_a_topology_that_the_compiler_refuses_is_an_error():
  status, _, err = run('v5e:3x5')
  assert status == 1 and 'not divisible' in err.splitlines()[-1]


@pytest.fixture
def refusal(monkeypatch):
  """refusal(topology, ...) -> the error of lm.aot, which comes before anything is compiled."""
  monkeypatch.chdir(commands.ROOT)
  for name, value in ahead_of_time.ENVIRONMENT.items():
    monkeypatch.setenv(name, value)  # The command sets them too; here they do not stay set.

  def of(*topology):
    with pytest.raises(UserError) as raised:
      aot.main([*given('configs/pretrain.py'), *(f'--topology={name}' for name in topology)])
    return raised.value

  return of


@pytest.mark.parametrize('topology, chip', [('v9:2x2', 'v9'), ('h100:8', 'h100')])
def test_a_chip_that_is_no_tpu_is_an_error(refusal, topology, chip):
  error = refusal(topology)
  assert error.value == chip and set(error.allowed) >= set(chips.TPUS)


def test_a_missing_topology_is_an_error(refusal):
  assert refusal().field == '--topology'


@pytest.mark.skipif(ahead_of_time.has_libtpu(), reason='libtpu is installed')
def test_without_libtpu_the_extra_is_named(refusal):
  error = refusal('v5e:2x2')
  assert error.field == 'package libtpu' and "'.[tpu]'" in error.message


@pytest.mark.slow
def test_the_table_in_the_readme_is_the_one_that_is_predicted(monkeypatch, capsys):
  """Checks the predicted columns; the compiled ones are those of `python -m lm.aot --table`."""
  monkeypatch.chdir(commands.ROOT)
  lines = (commands.ROOT / 'lm' / 'cost' / 'README.md').read_text().splitlines()
  start = lines.index(ahead_of_time.HEADER.splitlines()[0]) + 2
  rows = [
    re.split(r' *\| *', line.strip('| '))
    for line in lines[start : start + len(ahead_of_time.TABLE)]
  ]
  for described, row in zip(ahead_of_time.TABLE, rows, strict=True):
    config, topology, _ = described
    options = ahead_of_time.options_of(described)
    with jax.numpy_dtype_promotion('standard'):
      budget.main([*options, '--json'])
    predicted = json.loads(capsys.readouterr().out)
    held, peak, mfu = row[4], row[5], row[6]
    assert row[:2] == [config.removeprefix('configs/').removesuffix('.py'), topology]
    assert (
      row[3] == f'{predicted["tokens_per_chip"]:,.0f}'
      and peak == f'{predicted["peak_bytes"] / 1e9:.2f}'
    )
    assert mfu == '{:.0%} to {:.0%}'.format(*predicted['mfu'])
    assert float(held.split()[0]) == pytest.approx(predicted['peak_bytes'] / 1e9, rel=0.1)
  used = {chips.parse_topology(topology, 1)[0] for _, topology, _ in ahead_of_time.TABLE}
  assert used <= set(chips.TPUS)
