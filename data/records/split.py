"""Which documents are held out from training: decided here alone, for token shards, tokenizers and
tasks.

A document is held out by the hash of its near-duplicate cluster (else of its id), so that copies
stay on one side, whatever the order, the number and the files of the documents.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any


def split_hash(document: dict[str, Any]) -> float:
  """A hash in [0, 1) that is equal for all documents of a cluster: held out are those below the
  `cutoff`.
  """
  key = (
    (document.get('metadata') or {}).get('cluster')
    or document.get('id')
    or json.dumps(document, sort_keys=True)
  )
  return (
    int.from_bytes(hashlib.sha256(str(key).encode(errors='replace')).digest()[:8], 'big') / 2**64
  )


def cutoff(hashes: Iterable[float], held_out: float) -> float:
  """The split hash below which a document is held out.

  It is `held_out`, moved just enough that at least one cluster is held out and at least one is not.
  A single cluster is not held out.

  Args:
    hashes: split hashes of all documents, or of any that include the smallest and the largest.
    held_out: share of the clusters to hold out; 0: none.
  """
  if not held_out:
    return 0.0
  hashes = list(hashes)
  return min(max(held_out, math.nextafter(min(hashes), 1)), max(hashes))
