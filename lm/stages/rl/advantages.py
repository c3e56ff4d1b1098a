"""How rewards become advantages."""

import numpy as np


def group_relative(rewards_QG: np.ndarray, normalize_std: bool) -> np.ndarray:
  """Rewards minus their group's mean, over the group's standard deviation if asked (GRPO, arXiv
  2402.03300, 4.1.2).

  Without the division it is Dr. GRPO's (arXiv 2503.20783). A group whose rewards are all equal gets
  zeros.
  """
  # asked of the rewards: their rounded mean may differ
  equal_Q1 = np.ptp(rewards_QG, axis=1, keepdims=True) == 0
  centred_QG = np.where(equal_Q1, 0, rewards_QG - rewards_QG.mean(axis=1, keepdims=True))
  if not normalize_std:
    return centred_QG
  return centred_QG / (rewards_QG.std(axis=1, keepdims=True) + 1e-6)
