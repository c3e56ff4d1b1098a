"""How glibc treats freed memory, where the CPUs are the accelerator.

Call these functions before the first import that starts threads; importing jax does.
"""

import ctypes
import importlib.util
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8  # of <malloc.h>
LARGE_MODEL = 1 << 28  # bytes of parameters; smaller models gain from keeping all freed memory
LARGE = 32 << 20  # bytes; the largest M_MMAP_THRESHOLD that glibc accepts
DEFAULT_MMAP_MAX = 65536  # blocks


def keep_freed_memory() -> bool:
  """Makes glibc keep freed memory instead of returning it to the kernel; returns whether it does.

  XLA on a CPU allocates the temporary buffers of a step anew each time, as one block. By default
  the kernel then maps and clears every page of it again in every step, which takes a tenth of the
  time of a small model's step or more.

  Nothing is changed where jax's plugins for accelerators are installed, whose temporary buffers are
  elsewhere, or where the C library is not glibc.
  """
  accelerated = any(importlib.util.find_spec(name) for name in ('libtpu', 'jax_plugins'))
  libc = None if accelerated else _glibc()
  if libc is None:
    return False
  settings = {
    M_MMAP_MAX: 0,  # large blocks come from the heap, not from a mapping of their own
    M_TRIM_THRESHOLD: -1,  # the heap never shrinks
    M_ARENA_MAX: 1,  # one heap for all threads: a heap of a single thread is too small for a step
  }
  return all([libc.mallopt(name, value) for name, value in settings.items()])


def give_back_large_blocks() -> None:
  """Makes glibc return blocks of LARGE bytes and more again; call it for large models.

  After `keep_freed_memory`, a kept block of gigabytes soon loses a little of its space to something
  small. The next step's block then no longer fits, and the heap grows by another one.
  """
  if libc := _glibc():
    libc.mallopt(M_MMAP_THRESHOLD, LARGE)
    libc.mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)


def adapt_to(parameter_bytes: int) -> None:
  """Calls `give_back_large_blocks` for a model whose parameters exceed LARGE_MODEL bytes."""
  if parameter_bytes > LARGE_MODEL:
    give_back_large_blocks()


def _glibc() -> ctypes.CDLL | None:
  """Returns the C library if it is glibc."""
  libc = ctypes.CDLL(None) if sys.platform.startswith('linux') else None
  return libc if hasattr(libc, 'gnu_get_libc_version') else None
