"""Worker processes that end with the one that started them. Imports no jax, so that `data/` can use
it.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def pool(workers: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
  """Spawned workers; leaving the block cancels what they have not begun."""
  executor = concurrent.futures.ProcessPoolExecutor(
    workers, multiprocessing.get_context('spawn'), _die_with_parent
  )
  try:
    yield executor
  finally:
    executor.shutdown(cancel_futures=True)


def _die_with_parent() -> None:
  """First in a worker: one whose parent was killed would wait for work for ever, or go on
  writing.
  """
  parent = multiprocessing.parent_process()
  threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
