"""Every test runs on eight virtual CPU devices, compiled in haste, with rank promotion and mixed
dtypes refused.
"""

import gc
import os
import pathlib
import sys

import hypothesis
import pytest

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
_FLAGS = (
  '--xla_force_host_platform_device_count=8',
  # Compilation takes most of the time of the tests; these make it a third as long.
  '--xla_backend_optimization_level=0',
  '--xla_cpu_use_fusion_emitters=false',
  '--xla_llvm_disable_expensive_passes=true',
  '--xla_cpu_parallel_codegen_split_count=1',
)
os.environ['XLA_FLAGS'] = ' '.join([os.environ.get('XLA_FLAGS', ''), *_FLAGS])
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', str(pathlib.Path(__file__).parent.parent / '.cache' / 'jax')
)
# A second round takes half the time: it compiles nothing.
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_NUMPY_RANK_PROMOTION', 'raise')
os.environ.setdefault('JAX_NUMPY_DTYPE_PROMOTION', 'strict')

LARGE = 3 << 29  # bytes of memory from which compiled programs are freed after a file

# Tracing makes many objects that live long, and the collector would read them again and again.
gc.set_threshold(50_000, 20, 50)

pytest.register_assert_rewrite('refusals')

# Nothing that gates depends on the clock: an example may take as long as it takes.
hypothesis.settings.register_profile('deepdive', deadline=None)
hypothesis.settings.load_profile('deepdive')


def pytest_collection_modifyitems(items):
  """Puts the long stories of tests/test_*.py first, so that two processes end together."""
  folder = pathlib.Path(__file__).parent
  items.sort(key=lambda item: item.path.parent != folder)


@pytest.fixture(autouse=True, scope='module')
def programs_of_a_few_files():
  """Frees the compiled programs where they make this process large: those of all take 5 GB and
  more, and what a file leaves spares the next one work.
  """
  yield
  if 'jax' in sys.modules and _resident_bytes() > LARGE:
    sys.modules['jax'].clear_caches()


def _resident_bytes() -> int:
  """The memory of this process that is in use now; all of it, where that cannot be told."""
  try:
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  except FileNotFoundError:  # not Linux
    return sys.maxsize
  return pages * os.sysconf('SC_PAGE_SIZE')
