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

import json
import os
import pickle
import sys

from absl import flags

from data.chat import chat_formats
from lm.base import config as config_lib
from lm.base import errors, files
from lm.base.errors import UserError
from lm.cost import ahead_of_time, estimate


def main() -> None:
  config_lib.define_flags()
  flags.DEFINE_string('topology', None, 'chip and sides of a slice, for example v5e:16x16')
  flags.DEFINE_integer(
    'slices', 1, 'of that topology, joined by a slow network (config.mesh.dcn)', lower_bound=1
  )
  flags.DEFINE_bool('json', False, 'print one line of JSON')
  flags.DEFINE_string('save', None, 'file to keep the executable in')
  flags.DEFINE_bool('table', False, "print README's table, and take no other flag")
  if sys.argv[1:] == ['--table']:
    return ahead_of_time.print_table()
  config, options = config_lib.parse(sys.argv, __doc__), flags.FLAGS
  if not options.topology:
    raise UserError('--topology is missing; for example --topology=v5e:16x16')
  os.environ |= ahead_of_time.ENVIRONMENT
  compiled, result = ahead_of_time.compile_step(
    config,
    estimate.sized_model(config, lambda: chat_formats.vocab_size(config.data)),
    options.topology,
    options.slices,
  )
  if options.save:
    from jax.experimental import serialize_executable

    files.write_bytes(options.save, pickle.dumps(serialize_executable.serialize(compiled)))
  print(json.dumps(result) if options.json else ahead_of_time.describe(result))


if __name__ == '__main__':
  errors.run(main)
