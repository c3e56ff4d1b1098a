"""Memory that is kept instead of being mapped again."""

import platform

import commands
import pytest

from lm.base import allocator

# Page faults of touching 100 MB for the second time, after freeing them.
CODE = """
import ctypes, resource
from lm.base import allocator
{keep}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
for _ in range(2):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  block = libc.malloc(100 << 20)
  ctypes.memset(block, 1, 100 << 20)
  libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='speaks of glibc')
def test_freed_blocks_are_used_again_without_page_faults():
  plain, kept, large = (
    int(commands.run('-c', CODE.format(keep=keep))[1])
    for keep in (
      '',
      'allocator.keep_freed_memory()',
      'allocator.keep_freed_memory(); allocator.give_back_large_blocks()',
    )
  )
  assert kept < 10 < min(plain, large)


@pytest.mark.parametrize('plugin', ['libtpu', 'jax_plugins'])
def test_hosts_of_accelerators_are_left_alone(monkeypatch, plugin):
  monkeypatch.setattr(allocator.importlib.util, 'find_spec', lambda name: name == plugin or None)
  monkeypatch.setattr(allocator.ctypes, 'CDLL', None)
  assert not allocator.keep_freed_memory()
