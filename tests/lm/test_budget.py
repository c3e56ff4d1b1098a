"""The formulas against published numbers, XLA's own counts and a compiled program's arguments."""

import json

import commands
import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from configs import base
from lm import budget, stages
from lm.base.config import load
from lm.base.errors import UserError
from lm.cost import chips, cost_text, estimate, flops, hlo, meter
from lm.cost.step_shapes import StepShapes
from lm.model import param_rules, transformer
from lm.parallel import sharding
from lm.train import program

# Wide enough that matrix products are nearly all that is done.
FIELDS = {
  'vocab_size': 512,
  'num_layers': 2,
  'embed_dim': 128,
  'num_heads': 4,
  'num_kv_heads': 2,
  'head_dim': 32,
  'mlp_dim': 256,
  'max_len': 128,
  'scan_layers': False,
}


def settings(fields=(), mesh=(), **others):
  config = base.get_config()
  config.update(batch_size=8, seq_len=128, **others)
  config.model.update(FIELDS | dict(fields))
  config.mesh.update(dict(mesh))
  return config


def predict(config, devices=8, chip=None, mesh=None):
  if mesh is None:
    sizes = tuple(sharding.mesh_sizes(config.mesh, devices))
    mesh = AbstractMesh(sizes, sharding.AXES, axis_types=(AxisType.Auto,) * len(sizes))
  model_config = transformer.sized(config.model, config.model.vocab_size)
  with jax.numpy_dtype_promotion('standard'):
    prog = program.make(config, stages.make(config), model_config, mesh)
  return prog, estimate.predict(config, model_config, mesh, prog, chip)


@pytest.mark.parametrize(
  'name, billions, tables, attention',
  [
    # Parameters that work on each token: of Mixtral two of eight experts; of GPT-2 the table is the
    # head.
    ('llama3_8b', 8.0303, 128_256 * 4096, 32 * 8192 * 32 * 128),
    ('mixtral_8x7b', 12.8798, 32_000 * 4096, 32 * 4096 * 32 * 128),
    ('gpt2_124m', 0.12444, 1024 * 768, 12 * 1024 * 768),
  ],
)
def test_model_flops_are_palms(name, billions, tables, attention):
  config = load(f'configs/{name}.py')
  result = predict(config, devices=16)[1]
  per_token = result['model_flops'] / result['tokens_per_chip']
  assert per_token == pytest.approx(6 * (billions * 1e9 - tables) + 12 * attention, rel=1e-4)
  assert result['tokens_per_chip'] == config.batch_size * config.seq_len / 16


@pytest.mark.slow
@pytest.mark.parametrize(
  'fields, others',
  [
    ({}, {}),
    ({'activation': 'gelu', 'tie_embeddings': False}, {'microbatches': 2}),
    ({'layer_types': ('window', 'full'), 'window': 16}, {}),
  ],
)
def test_operations_are_those_that_xla_counts(fields, others):
  config = settings(fields, {'data': 1}, **others)
  config.loss.chunk = 1024
  prog, result = predict(config, mesh=sharding.make_mesh(config.mesh, jax.devices()[:1]))
  with (
    jax.set_mesh(sharding.make_mesh(config.mesh, jax.devices()[:1])),
    jax.numpy_dtype_promotion('standard'),
  ):
    compiled = prog.step.lower(prog.state, prog.batch, config.microbatches).compile()
  counted = hlo.cost(compiled.as_text(), result['mesh'], config.microbatches)
  assert counted.flops == result['hlo_flops'] and not counted.counts
  if config.microbatches == 1:  # of a loop XLA counts one turn
    assert result['hlo_flops'] == pytest.approx(compiled.cost_analysis()['flops'], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
  'fields, rule',
  [
    ({'lora_rank': 4, 'remat': 'full'}, ''),
    ({'remat': 'full', 'tie_embeddings': False}, 'layers/mlp/down/kernel,embedding'),
    ({'tie_embeddings': False}, 'head'),
    ({'tie_embeddings': False}, 'final_norm/scale'),
  ],
)
def test_parameters_that_are_not_trained_have_no_gradient_that_is_computed(fields, rule):
  config = settings({'scan_layers': True} | fields, {'data': 1}, train={'params': rule})
  config.loss.chunk = 1024
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
  prog, result = predict(config, mesh=mesh)
  with jax.set_mesh(mesh), jax.numpy_dtype_promotion('standard'):
    compiled = prog.step.lower(prog.state, prog.batch, 1).compile()
  assert hlo.cost(compiled.as_text(), result['mesh'], 1).flops == result['hlo_flops']
  config.train.params = 'all'
  assert result['model_flops'] < predict(config, mesh=mesh)[1]['model_flops']


@pytest.mark.slow
def test_operations_of_adapters_are_those_that_xla_counts():
  """Unrolled, since of a loop XLA counts one turn; it leaves out what the first layer's input needs."""
  config = settings({'lora_rank': 4}, {'data': 1})
  config.loss.chunk = 1024
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
  prog, result = predict(config, mesh=mesh)
  with jax.set_mesh(mesh), jax.numpy_dtype_promotion('standard'):
    compiled = prog.step.lower(prog.state, prog.batch, 1).compile()
  assert result['hlo_flops'] == pytest.approx(compiled.cost_analysis()['flops'], rel=0.1)


def test_model_flops_of_a_frozen_matrix_are_four_a_token():
  whole, part = (predict(settings(train={'params': rule})) for rule in ('', 'layers/attention/.*'))
  names = dict(param_rules.leaves(whole[0].state['params']))
  frozen = sum(x.size for name, x in names.items() if not name.startswith('layers/attention/'))
  saved = whole[1]['model_flops'] - part[1]['model_flops']
  assert saved == 2 * frozen * whole[1]['tokens_per_chip']


@pytest.mark.slow
def test_a_ring_sends_and_computes_what_the_compiled_step_does():
  # three of four devices read keys
  fields = {'attention': 'ring', 'layer_types': ('window',), 'window': 34, 'remat': 'full'}
  config = settings(fields, {'data': 1, 'fsdp': 2, 'context': 4})
  config.loss.vocab_blocks = 4
  mesh = sharding.make_mesh(config.mesh)
  prog, result = predict(config, mesh=mesh)
  with jax.set_mesh(mesh), jax.numpy_dtype_promotion('standard'):
    compiled = prog.step.lower(prog.state, prog.batch, 1).compile()
  cost = hlo.cost(compiled.as_text(), result['mesh'], 1)
  assert cost.flops == result['hlo_flops']
  sent, predicted = (
    told['context']['collective-permute']['bytes']
    for told in (cost.collectives(), result['collectives'])
  )
  assert (
    sent == pytest.approx(predicted, rel=2e-3) and 'all-gather' not in cost.collectives()['context']
  )


@pytest.mark.slow
@pytest.mark.parametrize('mesh', [{'data': 1, 'fsdp': 4, 'tensor': 2}, {'data': 8}])
def test_arguments_are_those_of_the_compiled_step(mesh):
  config = settings({'num_layers': 1, 'scan_layers': True}, mesh)
  real = sharding.make_mesh(config.mesh)
  prog, result = predict(config, mesh=real)
  with jax.set_mesh(real), jax.numpy_dtype_promotion('standard'):
    compiled = prog.step.lower(prog.state, prog.batch, 1).compile()
  assert compiled.memory_analysis().argument_size_in_bytes == result['argument_bytes']
  assert predict(config)[1] == result  # the same without devices


def test_recomputation_costs_operations_and_saves_memory():
  full, dots, none = (
    predict(settings({'remat': remat, 'dtype': 'bfloat16'}))[1]
    for remat in ('full', 'dots', 'none')
  )
  assert full['peak_bytes'] < dots['peak_bytes'] < none['peak_bytes']
  assert full['hlo_flops'] > dots['hlo_flops'] > none['hlo_flops']
  assert full['model_flops'] == dots['model_flops'] == none['model_flops']
  assert full['peak_bytes'] == sum(full['memory'].values()) == max(full['phases'].values())


def test_microbatches_cost_traffic_and_save_memory():
  fields = {'dtype': 'bfloat16', 'num_layers': 16}
  one, four = (
    predict(settings(fields, {'fsdp': 2, 'data': 1}, microbatches=n), devices=2)[1] for n in (1, 4)
  )
  assert four['hlo_flops'] == one['hlo_flops'] and four['peak_bytes'] < one['peak_bytes']
  assert (
    four['collectives']['fsdp']['all-gather']['bytes']
    > 3 * one['collectives']['fsdp']['all-gather']['bytes']
  )


def test_what_is_not_trained_has_no_gradients_and_no_moments():
  whole, lora = (predict(settings({'lora_rank': rank}))[1] for rank in (0, 2))
  head = predict(settings(train={'params': 'embedding'}))
  table = head[0].state['params']['embedding']
  moments = sum(x.size for x in jax.tree.leaves(head[0].state['opt_state']) if x.ndim)
  assert moments == 2 * table.size
  batch_and_counters = head[1]['argument_bytes'] - 4 * whole['parameters'] - 8 * table.size
  assert 0 < batch_and_counters < 1e5
  for result in (head[1], lora):
    assert result['phases']['update'] < 0.7 * whole['phases']['update']
    assert any('are not trained' in note for note in result['notes'])
  assert not any('are not trained' in note for note in whole['notes'])


def test_times_are_bounds():
  config = load('configs/llama3_8b.py')
  config.update(batch_size=256, microbatches=1)
  result = predict(config, devices=256, chip='v5e')[1]
  assert result['step_seconds'] == [
    max(result['seconds'].values()),
    sum(result['seconds'].values()),
  ]
  assert 0.4 < result['mfu'][0] < result['mfu'][1] < 1
  assert result['fits'] and not predict(config, devices=16, chip='v5e')[1]['fits']
  config.mesh.dcn = 2  # the slow network has its own time, and only what goes along it
  slow = predict(config, devices=256, chip='v5e')[1]
  assert (
    slow['seconds']['dcn']
    == slow['collectives']['dcn']['all-reduce']['bytes'] / chips.CHIPS['v5e'].dcn_bandwidth
  )
  unknown = predict(config, devices=256)[1]
  assert unknown['mfu'] is unknown['seconds'] is unknown['hbm_bytes'] is None
  assert unknown.keys() == slow.keys() and 'not known' in cost_text.describe(unknown)


def test_chips_by_the_name_that_jax_gives_their_devices():
  kinds = (
    'TPU v4',
    'TPU v5',
    'TPU v5 lite',
    'TPU v6 lite',
    'NVIDIA H100 80GB HBM3',
    'NVIDIA A100-SXM4-80GB',
    'cpu',
  )
  assert [chips.chip_of(kind) for kind in kinds] == [
    'v4',
    'v5p',
    'v5e',
    'v6e',
    'h100',
    'a100',
    None,
  ]
  assert chips.parse_topology('v5e:4x8', 2) == ('v5e', 64)
  with pytest.raises(UserError) as raised:
    chips.parse_topology('v5x:2x2', 1)
  assert (raised.value.value, raised.value.allowed) == ('v5x', tuple(chips.CHIPS))
  with pytest.raises(UserError) as raised:
    chips.parse_topology('v5e', 1)
  assert (raised.value.field, raised.value.value) == ('--topology', 'v5e')


def test_measured_stands_beside_predicted():
  result = predict(settings(), chip='v5e')[1]
  values = meter.measured(result, result['model_flops'] / (2 * result['step_seconds'][0]), 1, 5)
  assert values['perf/mfu'] == pytest.approx(result['mfu'][1] / 2)
  assert (
    values['perf/peak_bytes'] == 5 and values['perf/predicted_peak_bytes'] == result['peak_bytes']
  )
  assert meter.measured(predict(settings())[1], 1.0, 3, None).keys() == {
    'perf/predicted_peak_bytes'
  }


def test_flops_of_rows_are_of_their_own_tokens():
  config = settings()
  prog, result = predict(config)
  rows, length = config.batch_size, config.seq_len
  model_config = transformer.sized(config.model, config.model.vocab_size)
  shapes = StepShapes(config, model_config, result['mesh'], prog)
  whole = flops.rows_flops(shapes, [length] * rows)
  assert whole == pytest.approx(result['model_flops'] * result['chips'])
  assert flops.rows_flops(shapes, []) == 0
  one, two = (flops.rows_flops(shapes, [n]) for n in (8, 16))
  assert two - 2 * one == pytest.approx(
    12 * config.model.num_layers * config.model.num_heads * config.model.head_dim * 8 * 16
  )


def test_from_the_command_line(monkeypatch, capsys):
  monkeypatch.chdir(commands.ROOT)
  command = '--config=configs/llama3_8b.py', '--topology=v5e:16x16'
  with jax.numpy_dtype_promotion('standard'):
    budget.main([*command, '--json'])
  (result,) = map(json.loads, capsys.readouterr().out.splitlines())
  assert (result['chips'], result['mesh']['fsdp'], result['parameters']) == (
    256,
    256,
    8_030_261_248,
  )
  with pytest.raises(UserError) as raised:
    budget.main([*command, '--config.mesh.fsdp=100'])
  assert 'the number of devices, 256' in raised.value.allowed
  with jax.numpy_dtype_promotion('standard'):
    budget.main(['--config=configs/pretrain.py:smoke', '--config.microbatches=1'])
  assert 'at the peak' in capsys.readouterr().out
