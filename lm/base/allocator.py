"""The memory of a host whose CPUs are the accelerator. Call it before the first import that starts
threads, jax's too.
"""

import ctypes
import importlib.util
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8  # of <malloc.h>
LARGE_MODEL = 1 << 28  # bytes of parameters; below, keeping all that is freed pays
LARGE = 32 << 20  # bytes; the largest M_MMAP_THRESHOLD that glibc takes


def keep_freed_memory() -> bool:
  """Has glibc keep what is freed, instead of giving large blocks back to the kernel; says whether
  it does.

  XLA on a CPU allocates the temporary buffers of a step anew each time, as one block. By default
  every page of it is then mapped and cleared again in every step, a tenth of the time of a small
  model's or more. Nothing is done where jax's plugins for accelerators are installed, whose
  temporary buffers are elsewhere, or where the C library is another one.
  """
  accelerated = any(importlib.util.find_spec(name) for name in ('libtpu', 'jax_plugins'))
  libc = None if accelerated else _glibc()
  if libc is None:
    return False
  # One heap without mapped blocks and without an upper limit on what it keeps; threads' own heaps
  # are too small for it.
  return all(
    [libc.mallopt(M_MMAP_MAX, 0), libc.mallopt(M_TRIM_THRESHOLD, -1), libc.mallopt(M_ARENA_MAX, 1)]
  )


def give_back_large_blocks() -> None:
  """Has glibc give blocks of LARGE and more back again: for large models, where `keep_freed_memory`
  costs too much.

  A block of gigabytes that is kept has soon lost a little of its space to something small. The next
  step's does not fit any more, and the heap grows by another.
  """
  if libc := _glibc():
    libc.mallopt(M_MMAP_THRESHOLD, LARGE)
    libc.mallopt(M_MMAP_MAX, 65536)  # the default


def adapt_to(parameter_bytes: int) -> None:
  """Calls `give_back_large_blocks` for a model whose parameters are large.

  Args:
    parameter_bytes: of all parameters of the model.
  """
  if parameter_bytes > LARGE_MODEL:
    give_back_large_blocks()


def _glibc() -> ctypes.CDLL | None:
  """The C library, if it is glibc."""
  libc = ctypes.CDLL(None) if sys.platform.startswith('linux') else None
  return libc if hasattr(libc, 'gnu_get_libc_version') else None
