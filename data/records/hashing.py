"""Mixes the bits of integers: a hash for the loader's order and for near-duplicate shingles."""

import numpy as np


def mix(x: np.ndarray) -> np.ndarray:
  """Returns the SplitMix 64-bit finalizer of each element (Steele et al. 2014).

  The function is a bijection of uint64 in which flipping one input bit flips half of the output
  bits on average.
  """
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))
