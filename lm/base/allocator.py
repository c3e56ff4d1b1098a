"""How glibc gives memory to a training step, where the CPUs are the accelerator.

XLA for CPUs allocates the temporary buffers of a step anew each time, as one block of hundreds of
megabytes, which the kernel maps and clears page by page. In huge pages, of 2 MiB instead of 4 KiB,
that takes a few hundred page faults in place of a few hundred thousand, and products read the
memory faster. glibc asks for them if an environment variable tells it to before the process starts.
"""

import ctypes
import os
import pathlib
import re
import sys

TUNABLES, HUGE = 'GLIBC_TUNABLES', 'glibc.malloc.hugetlb'
SINCE = (2, 35)  # the first glibc that reads HUGE
# The kernel's setting: always, madvise (for memory for which it is asked) or never.
KERNEL = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')


def huge_pages() -> dict[str, str]:
  """Returns what to set in the environment of a process so that it uses huge pages.

  It is {} where they are set already, where the kernel gives them to all or to none, and where the
  C library is another one.
  """
  set_before = os.environ.get(TUNABLES, '')
  if HUGE in set_before or _glibc() < SINCE:
    return {}
  if not KERNEL.exists() or '[madvise]' not in KERNEL.read_text():
    return {}
  return {TUNABLES: ':'.join(filter(None, [set_before, f'{HUGE}=1']))}


def _glibc() -> tuple[int, ...]:
  """Returns the version of glibc, () where the C library is another one."""
  name = 'CS_GNU_LIBC_VERSION'
  told = os.confstr(name) if name in os.confstr_names else None  # such as 'glibc 2.36'
  return tuple(map(int, re.findall(r'\d+', told or '')))


def restart_with_huge_pages() -> None:
  """Starts this process anew with huge pages, unless it has them; its children inherit them.

  Call it first thing: the process loses what it has done so far.
  """
  if needed := huge_pages():
    os.environ.update(needed)
    os.execv(sys.executable, sys.orig_argv)


def trim() -> None:
  """Gives freed memory back to the kernel, such as what a compiler has left behind."""
  libc = ctypes.CDLL(None) if sys.platform.startswith('linux') else None
  if hasattr(libc, 'malloc_trim'):
    libc.malloc_trim(0)
