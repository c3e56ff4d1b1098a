"""Predicts what an update takes of each chip, by formula: python -m lm.budget --config=FILE

It prints, for one chip, the bytes of memory by what holds them, floating-point operations, and the
bytes sent along each mesh axis. From the chip's published figures follow the shortest and the
longest time that the update can take. --topology=v5e:16x16 names a chip and a slice; without it the
prediction is for the devices at hand. Nothing is compiled or allocated. train.py prints the same at
its start, and lm.aot prints it beside what the compiler says.

--json prints one line of JSON, with these keys:

  chip, chips, mesh     the chip, their number, the size of each mesh axis
  parameters            of the whole model
  tokens_per_chip       tokens of an update
  argument_bytes        parameters, optimizer state and batch
  peak_bytes            the most memory that is held at a time
  temporary_bytes       the part of it that is not an argument
  memory                {what holds it: bytes} at the peak; the sum is peak_bytes
  phases                {phase of the step: bytes held at its peak}
  model_flops           model FLOPs: 6 for each parameter of a matrix and token, 4 where it is not
                        trained, and attention as if nothing were masked (PaLM, arXiv 2204.02311,
                        appendix B)
  hlo_flops             FLOPs that are carried out: with recomputation, without the blocks of
                        attention that a kernel skips
  collectives           {mesh axes: {kind of collective: {bytes}}}
  collective_bytes      the sum of those bytes
  hbm_bytes, fits       the memory of the chip, and whether peak_bytes is within it
  seconds               {compute, hbm, ici, dcn}: the time of each if nothing else took time
  step_seconds          [the largest of them, their sum]: bounds of the time of an update
  mfu                   [with the longer time, with the shorter]: model FLOPs per second over the
                        peak of the chip
  notes                 what the formulas leave out of this config
"""

import json
from collections.abc import Sequence

from absl import flags

from data.chat import chat_formats
from lm.base import config as config_lib
from lm.base import errors
from lm.cost import chips, cost_text, estimate


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  options = flags.FlagValues()
  flags.DEFINE_string(
    'topology',
    None,
    'a chip and the sides of a slice, such as v5e:16x16 or h100:8; default: the devices at hand',
    flag_values=options,
  )
  flags.DEFINE_integer(
    'slices',
    1,
    'the number of such slices, joined by a slow network (mesh.dcn)',
    lower_bound=1,
    flag_values=options,
  )
  flags.DEFINE_bool('json', False, 'print one line of JSON', flag_values=options)
  config = config_lib.parse(options, argv, __doc__)
  import jax
  from jax.sharding import AbstractMesh, AxisType

  from lm import stages
  from lm.parallel import sharding
  from lm.train import program

  model_config = estimate.sized_model(config, lambda: chat_formats.vocab_size(config.data))
  if options.topology:
    chip, devices = chips.parse_topology(options.topology, options.slices)
  else:
    chip, devices = chips.chip_of(jax.devices()[0].device_kind), jax.device_count()
  mesh = AbstractMesh(
    tuple(sharding.mesh_sizes(config.mesh, devices)),
    sharding.AXES,
    axis_types=(AxisType.Auto,) * len(sharding.AXES),
  )
  program.check_shapes(config, mesh)
  step = program.make(config, stages.make(config), model_config, mesh)
  result = estimate.predict(config, model_config, mesh, step, chip)
  print(json.dumps(result) if options.json else cost_text.describe(result))


if __name__ == '__main__':
  errors.run(main)
