"""Decides which documents are held out from training.

Token shards, tokenizers and tasks all use this decision. It depends on the hash of a document's
near-duplicate cluster (or of its id if it has no cluster). Copies therefore stay on the same side,
whatever the order, the number and the files of the documents.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any


def split_hash(document: dict[str, Any]) -> float:
  """Returns a hash in [0, 1) that is equal for all documents of a near-duplicate cluster.

  Documents whose hash is below `cutoff` are held out.
  """
  cluster = (document.get('metadata') or {}).get('cluster')
  key = cluster or document.get('id') or json.dumps(document, sort_keys=True, default=str)
  digest = hashlib.sha256(str(key).encode(errors='replace')).digest()
  return int.from_bytes(digest[:8], 'big') / 2**64


def cutoff(hashes: Iterable[float], held_out: float) -> float:
  """Returns the split hash below which a document is held out.

  The cutoff is `held_out`, moved just enough that at least one cluster is held out and at least one
  is not. A single cluster is never held out.

  Args:
    hashes: split hashes of all documents, or of a subset that includes the smallest and the
      largest.
    held_out: fraction of the clusters to hold out; 0 holds out none.
  """
  if not held_out:
    return 0.0
  hashes = list(hashes)
  return min(max(held_out, math.nextafter(min(hashes), 1)), max(hashes))
