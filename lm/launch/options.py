"""The flags of train.py."""

import os

from absl import flags

from lm.base import config as config_lib


def define_flags() -> None:
  """Defines the flags of train.py, those of every command with a config included."""
  config_lib.define_flags()
  config_lib.define_process_flags()
  flags.DEFINE_string(
    'workdir', None, 'the folder that everything is written to; a recipe has one by default'
  )
  flags.DEFINE_bool('sweep', False, "run the trials of the config file's sweep()")
  flags.DEFINE_integer('parallel', 1, 'with --sweep: the number of trials at a time', lower_bound=1)
  flags.DEFINE_bool(
    'print-commands', False, 'with --sweep: print the command of each trial, and run none'
  )
  flags.DEFINE_bool(
    'fit', False, 'with --sweep: fit a scaling law to the trials, and predict the largest with it'
  )
  flags.DEFINE_string(
    'profile', None, 'FIRST:LAST, steps whose XProf trace is written to WORKDIR/profile'
  )
  flags.DEFINE_bool('dry', False, 'print shapes, shardings and the predicted cost, and end')
  flags.DEFINE_bool('nojit', False, 'run operation by operation, for a debugger')
  flags.DEFINE_bool('debug-nans', False, 'end with a traceback at the operation that gives a NaN')


def set_environment(options: flags.FlagValues) -> None:
  """Sets the environment variables that jax reads, in the processes of a recipe too."""
  if options.nojit:
    os.environ['JAX_DISABLE_JIT'] = '1'
  if options['debug-nans'].value:
    os.environ['JAX_DEBUG_NANS'] = '1'
