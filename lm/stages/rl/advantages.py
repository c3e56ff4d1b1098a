"""Estimators of advantages, which turn rewards into the weights of the policy loss.

Most give each answer one number, from the rewards of the answers to the same question. Generalized
advantage estimation (gae) gives each token its own, from the values that the scalar head predicts.
Axes: see lm/model/transformer.py; here also Q questions, and G answers to each.
"""

import numpy as np
from ml_collections import ConfigDict


def reinforce(rewards_QG: np.ndarray) -> np.ndarray:
  """Returns the rewards themselves (REINFORCE; Williams, Machine Learning 8, 1992)."""
  return rewards_QG


def reinforce_baseline(rewards_QG: np.ndarray) -> np.ndarray:
  """Returns rewards minus the mean of the batch, the baseline of Williams' REINFORCE."""
  return np.where(np.ptp(rewards_QG) == 0, 0, rewards_QG - rewards_QG.mean())


def dr_grpo(rewards_QG: np.ndarray) -> np.ndarray:
  """Returns rewards minus their group's mean (Dr. GRPO, arXiv 2503.20783).

  A group whose rewards are all equal gets zeros.
  """
  # The rewards are compared with each other, because their rounded mean may differ from them.
  equal_Q1 = np.ptp(rewards_QG, axis=1, keepdims=True) == 0
  return np.where(equal_Q1, 0, rewards_QG - rewards_QG.mean(axis=1, keepdims=True))


def grpo(rewards_QG: np.ndarray) -> np.ndarray:
  """Returns `dr_grpo` over the group's standard deviation (GRPO, arXiv 2402.03300, 4.1.2)."""
  return dr_grpo(rewards_QG) / (rewards_QG.std(axis=1, keepdims=True) + 1e-6)


def rloo(rewards_QG: np.ndarray) -> np.ndarray:
  """Returns each reward minus the mean of the others of its group (RLOO, arXiv 2402.14740)."""
  group = rewards_QG.shape[1]
  return dr_grpo(rewards_QG) * (group / (group - 1))


# The estimators that compare the answers of a group: equal rewards teach them nothing.
RELATIVE = {'grpo': grpo, 'dr_grpo': dr_grpo, 'rloo': rloo}
OF_ANSWERS = RELATIVE | {'reinforce': reinforce, 'reinforce_baseline': reinforce_baseline}
ADVANTAGES = (*OF_ANSWERS, 'gae')


def gae(
  rewards_BT: np.ndarray,
  values_BT: np.ndarray,
  mask_BT: np.ndarray,
  gamma: float,
  gae_lambda: float,
) -> np.ndarray:
  """Returns generalized advantage estimates (arXiv 1506.02438, equation 16), 0 outside the mask.

  A step is a token of the mask. Those outside it, such as a tool's results, are passed over: the
  state after a token is the one before the next token of the mask, and after the last one it is the
  end, whose value is 0.

  Args:
    rewards_BT: of each token.
    values_BT: of the state in which each token was drawn.
    mask_BT: above 0 on the tokens that the policy sampled.
    gamma: discount of a step.
    gae_lambda: 0 trusts the values alone, 1 the rewards alone.
  """
  advantages_BT = np.zeros_like(values_BT)
  next_value_B = next_advantage_B = np.zeros_like(values_BT[:, 0])
  for t in reversed(range(values_BT.shape[1])):
    sampled_B = mask_BT[:, t] > 0
    error_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
    next_advantage_B = np.where(
      sampled_B, error_B + gamma * gae_lambda * next_advantage_B, next_advantage_B
    )
    next_value_B = np.where(sampled_B, values_BT[:, t], next_value_B)
    advantages_BT[:, t] = np.where(sampled_B, next_advantage_B, 0)
  return advantages_BT


def on_last(rewards_B: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
  """Returns [B, T] with each reward on the last token of the mask of its row, its stop token."""
  is_last_BT = (mask_BT > 0) & (np.cumsum(mask_BT[:, ::-1], axis=1)[:, ::-1] == mask_BT)
  return np.where(is_last_BT, rewards_B[:, None], 0).astype(np.float32)


def has_values(rl: ConfigDict) -> bool:
  """Returns whether the scalar head predicts values, from which advantages are estimated."""
  return rl.advantage == 'gae'


def has_penalties(rl: ConfigDict) -> bool:
  """Returns whether the divergence from the reference is taken from the rewards."""
  return bool(rl.kl) and rl.kl_in == 'reward'


def teaching(rl: ConfigDict, rewards_QG: np.ndarray) -> np.ndarray:
  """Returns which groups have a policy gradient, bool [Q]: those with an advantage that is not 0.

  All have one where values, or penalties of single tokens, are part of the advantages.
  """
  if has_values(rl) or has_penalties(rl):
    return np.ones(len(rewards_QG), bool)
  return (OF_ANSWERS[rl.advantage](rewards_QG) != 0).any(axis=1)


def of_tokens(
  rl: ConfigDict,
  rewards_QG: np.ndarray,
  penalties_BT: np.ndarray,
  mask_BT: np.ndarray,
  values_BT: np.ndarray | None,
) -> np.ndarray:
  """Returns the advantages of tokens as `rl.advantage` estimates them, float32, 0 outside the mask.

  Args:
    rl: config.rl.
    rewards_QG: of the answers, group after group as in the rows B.
    penalties_BT: taken from the rewards.
    mask_BT: above 0 on the tokens that the policy sampled.
    values_BT: of the states in which they were drawn, for gae.
  """
  if has_values(rl):
    rewards_BT = on_last(rewards_QG.reshape(-1), mask_BT) - penalties_BT
    return gae(rewards_BT, values_BT, mask_BT, rl.gamma, rl.gae_lambda)
  totals_QG = rewards_QG - penalties_BT.sum(axis=1).reshape(rewards_QG.shape)
  each_B1 = OF_ANSWERS[rl.advantage](totals_QG).reshape(-1, 1)
  return np.where(mask_BT > 0, each_B1, 0).astype(np.float32)
