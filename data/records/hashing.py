"""The one mixing function of integers, of the loader's order and of the shingles of
near-duplicates.
"""

import numpy as np


def mix(x: np.ndarray) -> np.ndarray:
  """The 64-bit finalizer of SplitMix (Steele et al. 2014), of uint64: a bijection in which a bit
  changes half of the others.
  """
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))
