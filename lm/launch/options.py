"""The flags of train.py beside those of every command that takes a config."""

import os

from absl import flags

from lm.base import config as config_lib


def define_flags() -> None:
  """Declares the flags of this command."""
  config_lib.define_flags()
  config_lib.define_process_flags()
  flags.DEFINE_string(
    'workdir', None, 'where everything goes; a recipe has a place of its own when this is not given'
  )
  flags.DEFINE_bool('sweep', False, "run the trials of the config file's sweep()")
  flags.DEFINE_integer('parallel', 1, 'of --sweep: trials at one time', lower_bound=1)
  flags.DEFINE_bool(
    'print-commands', False, 'of --sweep: print a command for each trial, and run none'
  )
  flags.DEFINE_bool(
    'fit', False, 'of --sweep: fit a scaling law to the trials, and predict the largest by it'
  )
  flags.DEFINE_string(
    'profile', None, 'FIRST:LAST step of which an XProf trace goes to WORKDIR/profile'
  )
  flags.DEFINE_bool('dry', False, 'print shapes, shardings and predicted cost, and end')
  flags.DEFINE_bool('nojit', False, 'run operation by operation, for a debugger')
  flags.DEFINE_bool('debug-nans', False, 'end with a traceback at the operation that yields a NaN')


def set_environment(options: flags.FlagValues) -> None:
  """Sets what jax reads when it is imported, by the processes of a recipe too."""
  if options.nojit:
    os.environ['JAX_DISABLE_JIT'] = '1'
  if options['debug-nans'].value:
    os.environ['JAX_DEBUG_NANS'] = '1'
