"""What a training step takes, by formula, before anything is compiled: python -m lm.budget
--config=FILE --topology=v5e:16x16

Per chip: bytes of memory by what holds them, floating-point operations, bytes sent by mesh axis,
and from the chip's published figures the shortest and the longest time that the step can take at
their full use. `train.py` prints it, `lm.aot` sets it beside what the compiler says. --json prints
one line of JSON; its keys are those of `lm.aot` where it has the same, and

  memory                        {what holds it: bytes} at the peak; the sum is peak_bytes
  phases                        {part of the step: bytes held at its peak}
  seconds                       {compute, hbm, ici, dcn}: each by itself, with nothing else in its way
  step_seconds                  [all of them at once, one after the other]
  mfu                           [with the longer step, with the shorter]: model FLOPs a second over the chip's peak
  notes                         what the formula leaves out of this config

Model FLOPs are PaLM's (arXiv 2204.02311, appendix B): 6 for each parameter of a matrix and token,
the head included and the tables not, and 12 L T N H for attention, the causal half that is masked
included. Recomputation does not count; in `hlo_flops`, what the chip executes, it does, and blocks
of attention that a kernel skips do not.

Memory: the state and the batch are exact. The rest is what XLA keeps under the scan over layers:
  the layers' weights once in
the type of the products, the inputs that the backward pass of each layer needs, gradients of all
layers, and the working set of one: its activations and their gradients, and its weights gathered
from all shards. lm/cost/ahead_of_time.py's tests compare.

Chips: cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, tpu7x: "System architecture" of each; half of
  the bidirectional ICI
bandwidth is sent), nvidia.com's data sheets of A100 and H100 SXM (dense bfloat16, NVLink one way).
"""

import json
import sys

from absl import flags

from data.chat import chat_formats
from lm.base import config as config_lib
from lm.base import errors
from lm.cost import estimate


def main() -> None:
  config_lib.define_flags()
  flags.DEFINE_string(
    'topology',
    None,
    'chip and sides of a slice, such as v5e:16x16 or h100:8; default: these devices',
  )
  flags.DEFINE_integer(
    'slices', 1, 'of that topology, joined by a slow network (config.mesh.dcn)', lower_bound=1
  )
  flags.DEFINE_bool('json', False, 'print one line of JSON')
  config, options = config_lib.parse(sys.argv, __doc__), flags.FLAGS
  import jax
  from jax.sharding import AbstractMesh, AxisType

  from lm import stages
  from lm.parallel import sharding
  from lm.train import program

  model_config = estimate.sized_model(config, lambda: chat_formats.vocab_size(config.data))
  if options.topology:
    chip, devices = estimate.parse_topology(options.topology, options.slices)
  else:
    chip, devices = estimate.chip_of(jax.devices()[0].device_kind), jax.device_count()
  mesh = AbstractMesh(
    tuple(sharding.mesh_sizes(config.mesh, devices)),
    sharding.AXES,
    axis_types=(AxisType.Auto,) * len(sharding.AXES),
  )
  program.check_shapes(config, mesh)
  result = estimate.predict(
    config, model_config, mesh, program.make(config, stages.make(config), model_config, mesh), chip
  )
  print(json.dumps(result) if options.json else estimate.describe(result))


if __name__ == '__main__':
  errors.run(main)
