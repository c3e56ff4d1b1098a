"""The flags of train.py."""

import os

from absl import flags

from lm.base import config as config_lib


def train_flags() -> flags.FlagValues:
  """Returns the flags of train.py, but for --config, which `lm.base.config.parse` adds."""
  options = flags.FlagValues()
  config_lib.define_process_flags(options)
  flags.DEFINE_string(
    'workdir',
    None,
    'the folder that everything is written to; a recipe has one by default',
    flag_values=options,
  )
  flags.DEFINE_integer(
    'parallel',
    1,
    'with --sweep: the number of trials at a time',
    lower_bound=1,
    flag_values=options,
  )
  flags.DEFINE_string(
    'profile',
    None,
    'FIRST:LAST, steps whose XProf trace is written to WORKDIR/profile',
    flag_values=options,
  )
  switches = {
    'sweep': "run the trials of the config file's sweep()",
    'print-commands': 'with --sweep: print the command of each trial, and run none',
    'fit': 'with --sweep: fit a scaling law to the trials, and predict the largest with it',
    'dry': 'print shapes, shardings and the predicted cost, and end',
    'nojit': 'run operation by operation, for a debugger',
    'debug-nans': 'end with a traceback at the operation that gives a NaN',
  }
  for name, meaning in switches.items():
    flags.DEFINE_bool(name, False, meaning, flag_values=options)
  return options


def set_environment(options: flags.FlagValues) -> None:
  """Sets the environment variables that jax reads, in the processes of a recipe too."""
  if options.nojit:
    os.environ['JAX_DISABLE_JIT'] = '1'
  if options['debug-nans'].value:
    os.environ['JAX_DEBUG_NANS'] = '1'
