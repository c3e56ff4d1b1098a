"""Compiles the training step for a TPU slice that is not there, and reads what the compiler says.

`python -m lm.aot --help` explains the keys of the result.
"""

import importlib.util
import pathlib
import time
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from lm.base.errors import UserError, invalid, missing_package, unknown
from lm.cost import chips, cost_text, estimate, flops
from lm.cost.workers import json_lines

# No jax at the top: it reads the environment when it is imported.
ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
# The rows of the table in README.md: config, topology, and fields of the config.
TABLE = (
  ('configs/gpt2_124m.py', 'v5e:1x1', {}),
  ('configs/gpt2_124m.py', 'v5e:2x4', {}),
  ('configs/llama3_8b.py', 'v5e:4x4', {'batch_size': 16}),
  ('configs/llama3_8b.py', 'v5e:8x8', {'batch_size': 64, 'mesh.fsdp': 16, 'mesh.data': 4}),
  ('configs/llama3_8b.py', 'v5e:16x16', {'batch_size': 256, 'mesh.fsdp': 16, 'mesh.data': 16}),
  ('configs/llama3_8b.py', 'v5e:8x8', {'batch_size': 64}),
  ('configs/llama3_8b.py', 'v5e:16x16', {'batch_size': 256}),
  ('configs/llama3_70b.py', 'v5p:4x4x8', {'batch_size': 128}),
  ('configs/llama3_405b.py', 'v5p:8x8x16', {'batch_size': 128}),
)


def options_of(row: tuple[str, str, dict[str, int]]) -> list[str]:
  """Returns the options of lm.aot and lm.budget for a row of TABLE."""
  config, topology, fields = row
  if 'batch_size' in fields:
    fields = fields | {'microbatches': 1}
  options = [f'--config={config}', f'--topology={topology}']
  return options + [f'--config.{name}={value}' for name, value in fields.items()]


def has_libtpu() -> bool:
  """Returns whether the compiler for TPUs is installed."""
  return importlib.util.find_spec('libtpu') is not None


def devices(topology: str, slices: int = 1) -> list[Any]:
  """Returns the devices of so many TPU slices such as 'v5e:16x16'.

  Raises:
    UserError: libtpu is missing, or does not know such a slice.
  """
  import jax
  from jax.experimental import topologies

  chip, _ = chips.parse_topology(topology, slices)
  if chip not in chips.TPUS:
    raise unknown('TPU in --topology', chip, chips.TPUS)
  options: dict[str, Any] = {'num_slices': slices}
  if chip == 'v4':
    options['chip_config_name'] = 'megacore'  # a chip is one device, as on Cloud TPU
  sides = [int(side) for side in topology.partition(':')[2].split('x')]
  # A side whose length is a multiple of this closes to a ring.
  ring = 4 if len(sides) == 3 else 16
  options['wrap'] = tuple(side % ring == 0 for side in [*sides, 1][:3])
  if set(sides) == {1}:
    options['chips_per_host_bounds'] = (1, 1, 1)
  if not has_libtpu():
    raise missing_package('libtpu', 'tpu', 'Compiling for a TPU')
  try:
    found = topologies.get_topology_desc(platform='tpu', topology_name=topology, **options)
  except jax.errors.JaxRuntimeError as error:
    raise UserError(field='--topology', value=topology, message=str(error)) from error
  return list(found.devices)


def compile_step(
  config: ConfigDict, model_config: FrozenConfigDict, topology: str, slices: int = 1
) -> tuple[Any, dict[str, Any]]:
  """Returns the compiled step and what the compiler says of it; see `python -m lm.aot --help`.

  Raises:
    UserError: the step does not fit, or train.py would refuse the config.
  """
  import jax

  from lm import stages
  from lm.cost import hlo
  from lm.parallel import sharding
  from lm.train import program

  mesh = sharding.make_mesh(config.mesh, devices(topology, slices))
  program.check_shapes(config, mesh)
  jax.config.update('jax_enable_compilation_cache', False)
  with jax.set_mesh(mesh):
    prog = program.make(config, stages.make(config), model_config, mesh)
    lowered = prog.step.lower(prog.state, prog.batch, config.microbatches)
    start = time.perf_counter()
    try:
      compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      cause, _, _ = str(error).partition('Largest program allocations')
      raise invalid(f'memory of {topology}', 'enough for the step', cause) from error
    seconds = time.perf_counter() - start
  chip, _ = chips.parse_topology(topology, slices)
  predicted = estimate.predict(config, model_config, mesh, prog, chip)
  memory = compiled.memory_analysis()
  cost = hlo.cost(compiled.as_text(), dict(mesh.shape), config.microbatches)
  same = ('chip', 'chips', 'mesh', 'tokens_per_chip', 'hbm_bytes', 'model_flops')
  return compiled, {
    'topology': topology,
    **{name: predicted[name] for name in same},
    'compile_seconds': seconds,
    'argument_bytes': memory.argument_size_in_bytes,
    'peak_bytes': memory.peak_memory_in_bytes,
    'temporary_bytes': memory.peak_memory_in_bytes - memory.argument_size_in_bytes,
    'temp_size_bytes': memory.temp_size_in_bytes,
    'hlo_flops': cost.flops + flops.kernel_flops(model_config, mesh.shape, cost.kernels),
    'collective_bytes': sum(cost.bytes.values()),
    'collectives': cost.collectives(),
    'predicted': predicted,
  }


def describe(result: dict[str, Any]) -> str:
  """Returns a table of the compiler's figures beside the predicted ones."""
  predicted, size = result['predicted'], cost_text.with_prefix
  lines = [
    cost_text.describe(predicted),
    '',
    f'compiled for {result["topology"]} in {result["compile_seconds"]:.1f} s; a chip:',
  ]
  for name, key, unit in (
    ('state and batch', 'argument_bytes', 'B'),
    ('all else', 'temporary_bytes', 'B'),
    ('all, at the peak', 'peak_bytes', 'B'),
    ('operations carried out', 'hlo_flops', 'FLOP'),
    ('sent', 'collective_bytes', 'B'),
  ):
    note = ''
    if result[key]:
      error = predicted[key] / result[key] - 1
      note = f'predicted {size(predicted[key])}{unit}, {error:+.1%}'
    lines.append(cost_text.table_line(name, result[key], unit, note))
  for axes, kinds in result['collectives'].items():
    for kind, sent in kinds.items():
      note = f'in {sent["count"]:,}'
      lines.append(cost_text.table_line(f'sent along {axes}: {kind}', sent['bytes'], 'B', note))
  return '\n'.join(lines)


def table_row(name: str, result: dict[str, Any]) -> str:
  """Returns a line of the table in README.md."""
  predicted = result['predicted']
  mesh = ' '.join(f'{axis} {n}' for axis, n in result['mesh'].items() if n > 1) or 'one chip'
  sent = []
  for axes, kinds in result['collectives'].items():
    gigabytes = sum(kind['bytes'] for kind in kinds.values()) / 1e9
    if gigabytes >= 0.005:  # else it would be printed as 0.00
      sent.append(f'{axes} {gigabytes:.2f}')
  low, high = predicted['mfu']
  cells = [
    name,
    result['topology'],
    mesh,
    f'{result["tokens_per_chip"]:,.0f}',
    f'{result["peak_bytes"] / 1e9:.2f} of {result["hbm_bytes"] / 1e9:.1f}',
    f'{predicted["peak_bytes"] / 1e9:.2f}',
    f'{low:.0%} to {high:.0%}',
    ', '.join(sent) or 'nothing',
  ]
  return f'| {" | ".join(cells)} |'


COLUMNS = (
  'config',
  'topology',
  'mesh',
  'tokens a chip',
  'HBM, GB',
  'predicted',
  'predicted MFU',
  'sent by a chip, GB',
)
HEADER = f'| {" | ".join(COLUMNS)} |\n{"|---" * len(COLUMNS)}|'


def print_table() -> None:
  """Compiles each row of TABLE in a process of its own, and prints its line."""
  print(HEADER, flush=True)
  for row in TABLE:
    (result,) = json_lines(['lm.aot', *options_of(row), '--json'])
    config, *_ = row
    print(table_row(pathlib.Path(config).stem, result), flush=True)
