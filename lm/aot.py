"""Compiles the step that train.py runs for a TPU that is not there: python -m lm.aot --config=FILE --topology=v5e:16x16

Runs on any CPU host; needs libtpu, which the extra `tpu` brings. Nothing is allocated. Config fields are set as for train.py.
--json prints one line of JSON with these keys; what is not said to be of all chips is of one:

  config, topology, chip, chips, mesh, compile_seconds
  hbm_bytes                       of the chip, by its data sheet
  argument_bytes                  parameters, optimizer state and batch
  temporary_bytes                 all else that the step allocates
  peak_bytes                      the most that is allocated at one time, the program itself included
  tokens_per_chip                 in one update
  model_flops                     see lm/budget.py
  hlo_flops                       matrix products of the compiled program, each as often as it runs, and kernels by formula
  collective_bytes                sent, see lm/hlo.py
  collectives                     {mesh axes: {kind: {count, bytes}}}

--save=FILE keeps the executable, for a host with such a TPU:

  from jax.experimental import serialize_executable
  step = serialize_executable.deserialize_and_load(*pickle.loads(pathlib.Path('FILE').read_bytes()))
"""

import json
import os
import pathlib
import pickle
import sys
import time
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from lm import config as config_lib
from lm import errors, files
from lm.errors import UserError, unknown

# No jax at the top: the environment is set before it starts.
ENVIRONMENT = {'JAX_PLATFORMS': 'cpu', 'TPU_SKIP_MDS_QUERY': '1', 'TPU_WORKER_HOSTNAMES': 'localhost',
               'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}


def devices(topology: str, slices: int = 1) -> list[Any]:
  """The devices of a topology such as 'v5e:16x16', the name of a chip and the chips along each side of a slice.

  Raises UserError where libtpu is missing, or knows no such topology.
  """
  import jax
  from jax.experimental import topologies

  from lm import budget

  chip, _, sides = topology.partition(':')
  if chip not in budget.TPUS:
    raise unknown('chip in --topology', chip, budget.TPUS)
  options = {'num_slices': slices}
  if chip == 'v4':
    options['chip_config_name'] = 'megacore'  # a chip is one device, as on Cloud TPU
  if set(sides.split('x')) == {'1'}:
    options['chips_per_host_bounds'] = (1, 1, 1)
  try:
    return list(topologies.get_topology_desc(platform='tpu', topology_name=topology, **options).devices)
  except (RuntimeError, jax.errors.JaxRuntimeError) as error:
    if 'libtpu' in str(error) or 'ALREADY' in str(error):
      raise UserError(f"libtpu cannot be loaded ({error}); `pip install -e '.[tpu]'` brings it") from error
    raise UserError(f'--topology is {topology!r}: {error}') from error


def compile_step(config: ConfigDict, topology: str, slices: int = 1) -> tuple[Any, dict[str, Any]]:
  """(the compiled step, what it takes): the keys are those of the docstring above.

  Raises UserError where the step does not fit, or the config is at fault.
  """
  import jax

  from lm import budget, hlo, model, program, sharding

  mesh = sharding.make_mesh(config.mesh, devices(topology, slices))
  if not config.model.vocab_size:
    raise UserError('config.model.vocab_size is 0, the tokenizer\'s, which is not read here; for example 50257')
  model_config = model.sized(config.model, config.model.vocab_size)
  sharding.check_length(mesh, config.seq_len)
  sharding.check_rows(mesh, {'batch_size / microbatches': config.batch_size // config.microbatches})
  jax.config.update('jax_enable_compilation_cache', False)
  with jax.set_mesh(mesh):
    prog = program.make(config, model_config, mesh)
    start = time.perf_counter()
    try:
      compiled = prog.step.lower(prog.state, prog.batch, config.microbatches).compile()
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      raise UserError(f'{topology}: the step does not fit: {str(error).split("Largest")[0]}') from error
    seconds = time.perf_counter() - start
  chip = budget.CHIPS[topology.partition(':')[0]]
  memory = compiled.memory_analysis()
  cost = hlo.cost(compiled.as_text(), dict(mesh.shape), config.microbatches)
  return compiled, {
    'topology': topology, 'chips': mesh.size, 'mesh': dict(mesh.shape), 'compile_seconds': seconds,
    'hbm_bytes': chip.hbm_bytes, 'argument_bytes': memory.argument_size_in_bytes,
    'temporary_bytes': memory.temp_size_in_bytes, 'peak_bytes': memory.peak_memory_in_bytes,
    'hlo_flops': cost.flops, 'collective_bytes': sum(cost.bytes.values()), 'collectives': cost.collectives()}


def main() -> None:
  config_lib.define_flags()
  flags.DEFINE_string('topology', None, 'chip and sides of a slice, for example v5e:16x16')
  flags.DEFINE_integer('slices', 1, 'of that topology, joined by a slow network (config.mesh.dcn)')
  flags.DEFINE_bool('json', False, 'print one line of JSON')
  flags.DEFINE_string('save', None, 'file to keep the executable in')
  config, options = config_lib.parse(sys.argv), flags.FLAGS
  if not options.topology:
    raise UserError('--topology is missing; for example --topology=v5e:16x16')
  os.environ |= ENVIRONMENT
  compiled, result = compile_step(config, options.topology, options.slices)
  if options.save:
    from jax.experimental import serialize_executable

    files.write_bytes(pathlib.Path(options.save), pickle.dumps(serialize_executable.serialize(compiled)))
  print(json.dumps(result) if options.json else json.dumps(result, indent=1))


if __name__ == '__main__':
  errors.run(main)
