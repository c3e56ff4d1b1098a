"""Worker processes that end together with the process that started them.

This module imports no jax, so that `data/` can use it.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def pool(workers: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
  """Yields an executor of spawned processes; leaving the block cancels work that is not begun."""
  executor = concurrent.futures.ProcessPoolExecutor(
    workers, multiprocessing.get_context('spawn'), _die_with_parent
  )
  try:
    yield executor
  finally:
    executor.shutdown(cancel_futures=True)


def _die_with_parent() -> None:
  """Ends this worker when its parent ends; a killed parent would leave it waiting for ever."""
  parent = multiprocessing.parent_process()
  threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
