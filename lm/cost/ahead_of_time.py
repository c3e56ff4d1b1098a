"""Compiles the step that train.py runs for a TPU that is not there: python -m lm.aot --config=FILE
--topology=v5e:16x16

Runs on any CPU host with libtpu, which the extra `tpu` brings; nothing is allocated. Config fields
are set as for train.py. It prints what the compiler says beside what lm/cost/estimate.py predicts. --json
prints one line of JSON; all is of one chip:

  topology, chip, chips, mesh, tokens_per_chip, hbm_bytes (by the data sheet), model_flops (by
  formula)
  compile_seconds    without any cache
  argument_bytes     parameters, optimizer state and batch
  peak_bytes         the most that is held at one time
  temporary_bytes    what of that is no argument
  temp_size_bytes    XLA's statistic of that name, which counts some of them twice; to compare with what others report
  hlo_flops          matrix products of the compiled program, as often as they run, and of attention's kernels by formula
  collectives        {mesh axes: {kind: {count, bytes}}}, see lm/cost/hlo.py
  collective_bytes   the sum of those bytes
  predicted          the keys of lm/cost/estimate.py

A step that does not fit is an error. --save=FILE keeps the executable, for a host with such a TPU:

  from jax.experimental import serialize_executable
  step = serialize_executable.deserialize_and_load(*pickle.loads(pathlib.Path('FILE').read_bytes()))

--table compiles the rows of the README's table, one after the other, and prints it.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from lm.base.errors import UserError, unknown
from lm.cost import estimate

# No jax at the top: it reads the environment when it starts.
ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
TABLE = (  # config, topology and what else is on the command line
  ('configs/gpt2_124m.py', 'v5e:1x1'),
  ('configs/gpt2_124m.py', 'v5e:2x4'),
  *(
    (
      'configs/llama3_8b.py',
      topology,
      f'--config.batch_size={rows}',
      '--config.microbatches=1',
      *mesh,
    )
    for topology, rows, *mesh in (
      ('v5e:4x4', 16),
      ('v5e:8x8', 64, '--config.mesh.fsdp=16', '--config.mesh.data=4'),
      ('v5e:16x16', 256, '--config.mesh.fsdp=16', '--config.mesh.data=16'),
      ('v5e:8x8', 64),
      ('v5e:16x16', 256),
    )
  ),
  ('configs/llama3_70b.py', 'v5p:4x4x8', '--config.batch_size=128', '--config.microbatches=1'),
  ('configs/llama3_405b.py', 'v5p:8x8x16', '--config.batch_size=128', '--config.microbatches=1'),
)


def has_libtpu() -> bool:
  return importlib.util.find_spec('libtpu') is not None


def devices(topology: str, slices: int = 1) -> list[Any]:
  """The devices of `slices` TPU slices such as 'v5e:16x16'. Raises UserError where libtpu is
  missing or knows no such.
  """
  import jax
  from jax.experimental import topologies

  chip, _ = estimate.parse_topology(topology, slices)
  if chip not in estimate.TPUS:
    raise unknown('TPU in --topology', chip, estimate.TPUS)
  options: dict[str, Any] = {'num_slices': slices}
  if chip == 'v4':
    options['chip_config_name'] = 'megacore'  # a chip is one device, as on Cloud TPU
  sides = [int(side) for side in topology.partition(':')[2].split('x')]
  # a slice that spans so many chips, or a multiple, closes to a ring on this side
  full = 4 if len(sides) == 3 else 16
  options['wrap'] = tuple(side % full == 0 for side in [*sides, 1][:3])
  if set(sides) == {1}:
    options['chips_per_host_bounds'] = (1, 1, 1)
  if not has_libtpu():
    raise UserError("libtpu is not installed; pip install -e '.[tpu]' brings it")
  try:
    return list(
      topologies.get_topology_desc(platform='tpu', topology_name=topology, **options).devices
    )
  except jax.errors.JaxRuntimeError as error:
    raise UserError(f'--topology={topology}: {error}') from error


def compile_step(
  config: ConfigDict, model_config: FrozenConfigDict, topology: str, slices: int = 1
) -> tuple[Any, dict[str, Any]]:
  """(the compiled step, the keys of the docstring above).

  Raises UserError where the step does not fit, or for the reasons that train.py has.
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
      raise UserError(
        f'the step does not fit {topology}: '
        f'{str(error).partition("Largest program allocations")[0]}'
      ) from error
    seconds = time.perf_counter() - start
  predicted = estimate.predict(
    config, model_config, mesh, prog, estimate.parse_topology(topology, slices)[0]
  )
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
    'hlo_flops': cost.flops + estimate.kernel_flops(model_config, mesh.shape, cost.kernels),
    'collective_bytes': sum(cost.bytes.values()),
    'collectives': cost.collectives(),
    'predicted': predicted,
  }


def describe(result: dict[str, Any]) -> str:
  """The compiler's figures beside the predicted ones, as a table."""
  predicted, size = result['predicted'], estimate.size
  lines = [
    estimate.describe(predicted),
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
    off = (
      f'predicted {size(predicted[key])}{unit}, {predicted[key] / result[key] - 1:+.1%}'
      if result[key]
      else ''
    )
    lines.append(f'  {name:42} {size(result[key]):>10}{unit} {off}'.rstrip())
  for axes, kinds in result['collectives'].items():
    for kind, sent in kinds.items():
      lines.append(
        f'  sent along {axes + ": " + kind:31} {size(sent["bytes"]):>10}B in {sent["count"]:,}'
      )
  return '\n'.join(lines)


def table_row(name: str, result: dict[str, Any]) -> str:
  """A line of the README's table."""
  predicted = result['predicted']
  mesh = ' '.join(f'{axis} {n}' for axis, n in result['mesh'].items() if n > 1) or 'one chip'
  sent = {
    axes: sum(kind['bytes'] for kind in kinds.values()) / 1e9
    for axes, kinds in result['collectives'].items()
  }
  sent = (
    ', '.join(f'{axes} {size:.2f}' for axes, size in sent.items() if size >= 0.005) or 'nothing'
  )
  low, high = predicted['mfu']
  return (
    f'| {name} | {result["topology"]} | {mesh} | {result["tokens_per_chip"]:,.0f} | '
    f'{result["peak_bytes"] / 1e9:.2f} of '
    f'{result["hbm_bytes"] / 1e9:.1f} | {predicted["peak_bytes"] / 1e9:.2f} | {low:.0%} to '
    f'{high:.0%} | {sent} |'
  )


HEADER = (
  '| config | topology | mesh | tokens a chip | HBM, GB | predicted | predicted MFU | sent by a '
  'chip, GB |\n'
  '|---|---|---|---|---|---|---|---|'
)


def print_table() -> None:
  """Compiles each row in a process of its own, as its command line says."""
  print(HEADER, flush=True)
  for config, topology, *others in TABLE:
    done = subprocess.run(
      [
        sys.executable,
        '-m',
        'lm.aot',
        f'--config={config}',
        f'--topology={topology}',
        *others,
        '--json',
      ],
      stdout=subprocess.PIPE,
      text=True,
      check=False,
    )
    if done.returncode:
      raise UserError(f'{config} on {topology} cannot be compiled (see above)')
    print(table_row(pathlib.Path(config).stem, json.loads(done.stdout)), flush=True)
