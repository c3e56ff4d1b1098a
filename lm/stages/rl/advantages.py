"""Estimators of advantages, which turn rewards into the weights of the policy loss."""

import numpy as np


def group_relative(rewards_QG: np.ndarray, normalize_std: bool) -> np.ndarray:
  """Returns rewards minus their group's mean, divided by the group's standard deviation if asked.

  With the division it is the advantage of GRPO (arXiv 2402.03300, 4.1.2), without it that of Dr.
  GRPO (arXiv 2503.20783). A group whose rewards are all equal gets zeros.
  """
  # The rewards are compared with each other, because their rounded mean may differ from them.
  equal_Q1 = np.ptp(rewards_QG, axis=1, keepdims=True) == 0
  centred_QG = np.where(equal_Q1, 0, rewards_QG - rewards_QG.mean(axis=1, keepdims=True))
  if not normalize_std:
    return centred_QG
  return centred_QG / (rewards_QG.std(axis=1, keepdims=True) + 1e-6)
