"""The persistent cache of compiled programs."""

import os
import pathlib

import jax

FOLDER = pathlib.Path.home() / '.cache' / 'deepdive' / 'jax'
MIN_SECONDS = 0.1  # programs that compile faster are not kept


def use_cache() -> None:
  """Makes jax keep compiled programs in FOLDER, so that a run compiles only at its first start.

  The environment variables JAX_COMPILATION_CACHE_DIR and
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS take precedence.
  """
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    jax.config.update('jax_compilation_cache_dir', str(FOLDER))
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', MIN_SECONDS)
