"""Compiles the step of train.py for TPUs that are not there: python -m lm.aot --config=FILE

--topology=v5e:16x16 names a chip and a slice. The command runs on any CPU machine with libtpu,
which the extra `tpu` installs; nothing is allocated. Config fields are set as for train.py. It
prints what the compiler says beside what lm.budget predicts. A step that does not fit is an error.

--json prints one line of JSON; all figures are of one chip:

  topology              of the command line
  chip, chips, mesh, tokens_per_chip, hbm_bytes, model_flops
                        as in lm.budget
  compile_seconds       the time of compilation without any cache
  argument_bytes        parameters, optimizer state and batch
  peak_bytes            the most memory that is held at a time
  temporary_bytes       the part of it that is not an argument
  temp_size_bytes       XLA's statistic of that name, which counts some buffers twice; for
                        comparison with what others report
  hlo_flops             FLOPs of matrix products in the compiled program, as often as they run, and
                        those of attention's kernels by formula
  collectives           {mesh axes: {kind of collective: {count, bytes}}}, counted by lm/cost/hlo.py
  collective_bytes      the sum of those bytes
  predicted             the keys of lm.budget

--save=FILE keeps the executable, for a machine with such TPUs:

  from jax.experimental import serialize_executable
  step = serialize_executable.deserialize_and_load(*pickle.loads(pathlib.Path('FILE').read_bytes()))

--table compiles the rows of the table in lm/cost/README.md, one after the other, and prints it.
"""

import json
import os
import pickle
import sys
from collections.abc import Sequence

from absl import flags

from data.chat import chat_formats
from lm.base import config as config_lib
from lm.base import errors, files
from lm.base.errors import UserError
from lm.cost import ahead_of_time, estimate


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  argv = sys.argv[1:] if argv is None else argv
  if list(argv) == ['--table']:
    return ahead_of_time.print_table()
  options = flags.FlagValues()
  flags.DEFINE_string(
    'topology',
    None,
    'a chip and the sides of a slice, for example v5e:16x16',
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
  flags.DEFINE_string('save', None, 'the file to keep the executable in', flag_values=options)
  flags.DEFINE_bool(
    'table',
    False,
    'print the table of lm/cost/README.md; takes no other flag',
    flag_values=options,
  )
  config = config_lib.parse(options, argv, __doc__)
  if not options.topology:
    raise UserError(field='--topology', allowed='for example v5e:16x16')
  os.environ |= ahead_of_time.ENVIRONMENT
  model_config = estimate.sized_model(config, lambda: chat_formats.vocab_size(config.data))
  compiled, result = ahead_of_time.compile_step(
    config, model_config, options.topology, options.slices
  )
  if options.save:
    from jax.experimental import serialize_executable

    files.write_bytes(options.save, pickle.dumps(serialize_executable.serialize(compiled)))
  print(json.dumps(result) if options.json else ahead_of_time.describe(result))


if __name__ == '__main__':
  errors.run(main)
