"""The persistent cache of compiled programs, and the memory that their compilation took."""

import functools
import os
import pathlib

import jax

from lm.base import allocator

FOLDER = pathlib.Path.home() / '.cache' / 'deepdive' / 'jax'
MIN_SECONDS = 0.1  # programs that compile faster are not kept
COMPILED = '/jax/core/compile/backend_compile_duration'  # an event of jax.monitoring


def use_cache() -> None:
  """Makes jax keep compiled programs in FOLDER, so that a run compiles only at its first start.

  The environment variables JAX_COMPILATION_CACHE_DIR and
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS take precedence.
  """
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    jax.config.update('jax_compilation_cache_dir', str(FOLDER))
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', MIN_SECONDS)


@functools.cache  # Once for a process.
def trim_after_compiling() -> None:
  """Makes each long compilation end with giving the memory that it freed back to the kernel.

  XLA for CPUs frees hundreds of megabytes in pieces, beside which the program then runs.
  """

  def after(event: str, seconds: float, **_: object) -> None:
    if event == COMPILED and seconds > MIN_SECONDS:
      allocator.trim()

  jax.monitoring.register_event_duration_secs_listener(after)
