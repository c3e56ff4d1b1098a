"""Steps compiled for TPUs that are not there, beside the formulas. Needs libtpu."""

import json
import pickle

import commands
import pytest

from lm.cost import ahead_of_time

pytestmark = pytest.mark.slow
needs_libtpu = pytest.mark.skipif(
  not ahead_of_time.has_libtpu(), reason="libtpu is not installed: pip install -e '.[tpu]'"
)

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


def run(topology, *options, **fields):
  given = [f'--config.{name}={value}' for name, value in (SHAPE | fields).items()]
  return commands.run(
    '-m', 'lm.aot', '--config=configs/pretrain.py', f'--topology={topology}', *given, *options
  )


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
  assert status == 1 and 'the step does not fit v5e:2x2' in err.splitlines()[-1]


@needs_libtpu
@pytest.mark.parametrize(
  'topology, message',
  [
    ('v9:2x2', "unknown chip in --topology 'v9'"),
    ('h100:8', "unknown TPU in --topology 'h100'"),
    ('v5e:3x5', 'not divisible'),
  ],
)
def test_a_topology_that_is_not_known_is_an_error(topology, message):
  status, _, err = run(topology)
  assert status == 1 and message in err.splitlines()[-1]


@pytest.mark.skipif(ahead_of_time.has_libtpu(), reason='libtpu is installed')
def test_without_libtpu_the_extra_is_named():
  status, _, err = run('v5e:2x2')
  assert status == 1 and "pip install -e '.[tpu]'" in err.splitlines()[-1]


# Peak memory of a chip in GB, by the TPU compiler (python -m lm.aot --table), for each row of TABLE.
COMPILED = (9.06, 3.55, 12.21, 12.09, 12.09, 5.40, 3.73, 23.20, 43.23)


@pytest.mark.parametrize('row', range(len(COMPILED)))
def test_the_predicted_memory_of_published_shapes_is_near_the_compilers(row):
  described = ahead_of_time.TABLE[row]
  status, out, err = commands.call(
    '-m', 'lm.budget', *ahead_of_time.options_of(described), '--json'
  )
  assert status == 0, err
  predicted = json.loads(out)
  assert predicted['peak_bytes'] / 1e9 == pytest.approx(COMPILED[row], rel=0.1)
  low, high = predicted['mfu']
  assert 0.4 < low < high < 1.1
