"""What this machine can do at most, measured: bytes read and products made in a second.

A benchmark states its speeds beside these, from the same run.
"""

import concurrent.futures
import os
import time
from collections.abc import Callable
from typing import Any

ROWS = 2048  # of the square matrices


def _best(run: Callable[[], Any], tries: int = 5) -> float:
  """Returns the seconds of the fastest of several runs."""
  times = []
  for _ in range(tries):
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
  return min(times)


def bytes_per_s() -> float:
  """Returns the bytes read in a second: a sum over 512 MiB by one thread a core."""
  import numpy as np

  threads = len(os.sched_getaffinity(0))
  numbers = np.ones((threads, (512 << 20) // 4 // threads), np.float32)
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    return numbers.nbytes / _best(lambda: list(pool.map(np.sum, numbers)))


def flops_per_s() -> float:
  """Returns the operations of float32 matrix products in a second, by XLA or NumPy, the faster."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  a = jnp.ones((ROWS, ROWS))
  by_xla = jax.jit(jnp.dot)
  by_xla(a, a).block_until_ready()
  square = np.ones((ROWS, ROWS), np.float32)
  seconds = min(_best(lambda: by_xla(a, a).block_until_ready()), _best(lambda: square @ square))
  return 2 * ROWS**3 / seconds
