"""Processes that end with the one that started them. Imports no jax, so that `data/` can use it."""

import multiprocessing
import os
import threading


def die_with_parent() -> None:
  """To be called first in a worker: one whose parent was killed would wait for work for ever, or go on writing."""
  parent = multiprocessing.parent_process()
  threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
