"""Memory in huge pages, and freed memory that goes back to the kernel."""

import commands
import pytest

from lm.base import allocator

# Page faults of touching a new block of 100 MB.
FAULTS = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
ctypes.memset(libc.malloc(100 << 20), 1, 100 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
RESTARTED = f"""
from lm.base import allocator
allocator.restart_with_huge_pages()
{FAULTS}"""


TRAINING = """
import os, runpy, sys
os.execv = lambda program, arguments: sys.exit(os.environ['GLIBC_TUNABLES'])
sys.argv = ['train.py', '--help']
runpy.run_path('train.py', run_name='__main__')
"""


@pytest.fixture
def as_started(monkeypatch):
  """This process as if nothing had been set for it."""
  monkeypatch.delenv(allocator.TUNABLES, raising=False)


def test_a_process_restarts_once_with_huge_pages(as_started):
  if not allocator.huge_pages():
    pytest.skip('the kernel or the C library has no huge pages to ask for')
  environment = {allocator.TUNABLES: ''}
  (status, plain, _), (again, huge, err) = (
    commands.run('-c', code, **environment) for code in (FAULTS, RESTARTED)
  )
  assert (status, again) == (0, 0), err
  assert int(huge) < 1000 < 20_000 < int(plain)


def test_training_starts_with_huge_pages(as_started):
  if not allocator.huge_pages():
    pytest.skip('the kernel or the C library has no huge pages to ask for')
  _, _, err = commands.run('-c', TRAINING, **{allocator.TUNABLES: ''})
  assert err.strip() == allocator.huge_pages()[allocator.TUNABLES]


@pytest.mark.parametrize('setting, asked', [('always', False), ('madvise', True), ('never', False)])
def test_the_kernels_setting_and_what_the_user_set_decide(
  as_started, tmp_path, monkeypatch, setting, asked
):
  monkeypatch.setattr(allocator, 'KERNEL', tmp_path / 'enabled')
  monkeypatch.setattr(allocator, '_glibc', lambda: (2, 36))
  assert not allocator.huge_pages()
  words = (f'[{word}]' if word == setting else word for word in ('always', 'madvise', 'never'))
  allocator.KERNEL.write_text(' '.join(words))
  assert bool(allocator.huge_pages()) == asked
  monkeypatch.setenv(allocator.TUNABLES, 'glibc.malloc.check=1')
  expected = {allocator.TUNABLES: 'glibc.malloc.check=1:glibc.malloc.hugetlb=1'} if asked else {}
  assert allocator.huge_pages() == expected
  monkeypatch.setenv(allocator.TUNABLES, 'glibc.malloc.hugetlb=0')
  assert not allocator.huge_pages()
  monkeypatch.setattr(allocator, '_glibc', tuple)
  monkeypatch.delenv(allocator.TUNABLES)
  assert not allocator.huge_pages()
