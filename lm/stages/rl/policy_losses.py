"""The policy loss as a composition: a ratio, its clipping, a divergence, and an aggregation.

Each is a small function in a registry that a field of config.rl names. `make_objective` composes
them, as sums and weights: only the step divides. Axes: see lm/model/transformer.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lm.stages.rl import advantages
from lm.train.train_step import SumAndWeight


class Scores(NamedTuple):
  """What a model says of the targets of a batch, each float32 [B, T].

  Attributes:
    log_probs: the targets' log-probabilities, nats.
    entropies: of the distributions that they were drawn from, nats.
    values: the scalar head's, of the state in which a target was drawn; None without that head.
  """

  log_probs: jax.Array
  entropies: jax.Array
  values: jax.Array | None


# ---- Ratios: the policy's probability over the old one's -----------------------------------------


def token_ratio(shift_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """Returns the ratio of each token's probabilities (PPO, arXiv 1707.06347).

  Args:
    shift_BT: log-probability minus the old one, 0 outside the mask.
    mask_BT: 1 on the tokens that the policy sampled.
  """
  del mask_BT
  return jnp.exp(shift_BT)


def sequence_ratio(shift_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """Returns the geometric mean of an answer's ratios, at each token (GSPO, arXiv 2507.18071).

  The arguments are those of `token_ratio`.
  """
  length_B1 = jnp.maximum(mask_BT.sum(axis=1, keepdims=True), 1)
  mean_B1 = shift_BT.sum(axis=1, keepdims=True) / length_B1
  return jnp.broadcast_to(jnp.exp(mean_B1), shift_BT.shape)


RATIOS = {'token': token_ratio, 'sequence': sequence_ratio}


# ---- Aggregations: what a mean is taken over -----------------------------------------------------
# Each returns (weights_BT, counts_B): a sum over tokens with these weights is divided by the sum of
# the counts. Both are sums over rows, so that microbatches and devices add up to the same mean.
# Rows without a token of the mask count nothing. They take arrays of NumPy or of jax.


def token_mean(mask_BT: Any, longest: int) -> tuple[Any, Any]:
  """Returns (weights, counts) of the mean over all tokens (DAPO, arXiv 2503.14476)."""
  del longest
  return mask_BT, mask_BT.sum(axis=1)


def sequence_mean(mask_BT: Any, longest: int) -> tuple[Any, Any]:
  """Returns (weights, counts) of the mean over answers of their means (GRPO, arXiv 2402.03300)."""
  del longest
  length_B, real_B = _lengths(mask_BT)
  return mask_BT / (length_B + 1 - real_B)[:, None], real_B


def constant(mask_BT: Any, longest: int) -> tuple[Any, Any]:
  """Returns (weights, counts) of the mean over answers of their sums over a constant length.

  Dr. GRPO (arXiv 2503.20783) divides by a constant, so that the length of an answer does not decide
  what its tokens weigh.

  Args:
    mask_BT: 1 on the tokens that the policy sampled.
    longest: the constant, the tokens of the longest answer that is allowed.
  """
  return mask_BT / longest, _lengths(mask_BT)[1]


def _lengths(mask_BT: Any) -> tuple[Any, Any]:
  """Returns each row's tokens of the mask, and 1 for rows that have any."""
  length_B = mask_BT.sum(axis=1)
  return length_B, (length_B > 0).astype(mask_BT.dtype)


AGGREGATIONS = {'token': token_mean, 'sequence': sequence_mean, 'constant': constant}


# ---- Divergences: estimates of KL(policy || reference) from one sample ---------------------------
# J. Schulman, Approximating KL divergence, 2020. `away` is the log-probability of a token that the
# policy sampled minus the reference's.


def k1(away_BT: jax.Array) -> jax.Array:
  """Returns the log-ratio: unbiased, of high variance, and its own gradient has a mean of 0."""
  return away_BT


def k2(away_BT: jax.Array) -> jax.Array:
  """Returns half the squared log-ratio: biased, but its gradient is that of the divergence."""
  return 0.5 * jnp.square(away_BT)


def k3(away_BT: jax.Array) -> jax.Array:
  """Returns r - 1 - log r of r = reference / policy: unbiased, of low variance, never negative."""
  return jnp.exp(-away_BT) - 1 + away_BT


DIVERGENCES = {'k1': k1, 'k2': k2, 'k3': k3}
PLACES = ('loss', 'reward')  # Where the divergence is counted: config.rl.kl_in.


# ---- The loss ------------------------------------------------------------------------------------


def clipped_gain(ratio_BT: jax.Array, advantages_BT: jax.Array, rl: ConfigDict) -> jax.Array:
  """Returns what is maximized for each token: PPO's lower bound of ratio x advantage.

  The ratio is clipped to [1 - rl.clip_low, 1 + rl.clip_high], two bounds as in DAPO. With
  rl.dual_clip c > 0 the gain of a token with a negative advantage is at least c x advantage,
  however large its ratio (arXiv 1912.09729, equation 5).
  """
  clipped_BT = jnp.clip(ratio_BT, 1 - rl.clip_low, 1 + rl.clip_high)
  gain_BT = jnp.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)
  if rl.dual_clip:
    floor_BT = jnp.maximum(gain_BT, rl.dual_clip * advantages_BT)
    gain_BT = jnp.where(advantages_BT < 0, floor_BT, gain_BT)
  return gain_BT


def value_errors(
  values_BT: jax.Array, old_BT: jax.Array, returns_BT: jax.Array, clip: float
) -> jax.Array:
  """Returns half the squared error of values, the larger of two where they are clipped (PPO).

  Args:
    values_BT: the present values.
    old_BT: the values that the advantages were estimated from.
    returns_BT: what the values are to predict.
    clip: how far from the old ones values may go before the error of the clipped ones counts, if it
      is larger; 0 means no clipping.
  """
  errors_BT = jnp.square(values_BT - returns_BT)
  if clip:
    near_BT = old_BT + jnp.clip(values_BT - old_BT, -clip, clip)
    errors_BT = jnp.maximum(errors_BT, jnp.square(near_BT - returns_BT))
  return 0.5 * errors_BT


def has_reference(rl: ConfigDict) -> bool:
  """Returns whether the starting model scores the answers."""
  return bool(rl.log_kl or rl.kl)


def make_objective(
  rl: ConfigDict,
) -> Callable[[Scores, dict[str, jax.Array]], dict[str, SumAndWeight]]:
  """Returns `objective(scores, batch)`: the loss and the metrics of sampled answers.

  Args:
    rl: config.rl, whose fields choose the parts.

  The arrays of the batch are those of `lm.stages.rl.policy_gradient.PolicyGradient.batch_fields`.

  train/loss is the policy loss. train/total adds to it the divergence from the reference
  (rl.kl_in = loss) and the error of the values (rl.advantage = gae), aggregated likewise. All other
  metrics are means over the sampled tokens of the rows that are computed: rl/entropy, that of the
  policy in nats; rl/clip_share, the share of tokens whose ratio is clipped; rl/kl, the divergence
  from the reference by k3, whatever is minimized; rl/sampler_gap, the absolute difference between
  the log-probabilities of the trainer and of the sampler; rl/importance, the weight of tokens that
  corrects for that difference; and rl/value_loss.
  """
  ratio_of, aggregate = RATIOS[rl.ratio], AGGREGATIONS[rl.aggregation]
  estimate = DIVERGENCES[rl.kl_estimator]
  in_loss = rl.kl and not advantages.has_penalties(rl)
  sampler = 'sampler_log_probs' if rl.importance_cap else 'old_log_probs'

  def objective(scores, batch):
    mask_BT, advantages_BT = batch['weights'], batch['advantages']
    weights_BT, counts_B = aggregate(mask_BT, rl.max_new_tokens)
    weight, tokens = counts_B.sum(), mask_BT.sum()

    def minus(name):
      return jnp.where(mask_BT > 0, scores.log_probs - batch[name], 0.0)

    def mean(x_BT):
      return jax.lax.stop_gradient(jnp.sum(mask_BT * x_BT)), tokens

    ratio_BT = ratio_of(minus('old_log_probs'), mask_BT)
    gain_BT = clipped_gain(ratio_BT, advantages_BT, rl)
    metrics = {
      'rl/entropy': mean(scores.entropies),
      'rl/clip_share': mean((ratio_BT * advantages_BT != gain_BT).astype(jnp.float32)),
      'rl/sampler_gap': mean(jnp.abs(minus(sampler))),
    }
    if rl.importance_cap:
      drift_BT = jnp.where(mask_BT > 0, batch['old_log_probs'] - batch[sampler], 0.0)
      importance_BT = jnp.minimum(jnp.exp(drift_BT), rl.importance_cap)
      gain_BT *= importance_BT
      metrics['rl/importance'] = mean(importance_BT)
    total = loss = -jnp.sum(weights_BT * gain_BT)
    if has_reference(rl):
      away_BT = minus('reference_log_probs')
      metrics['rl/kl'] = mean(k3(away_BT))
      if in_loss:
        total += rl.kl * jnp.sum(weights_BT * estimate(away_BT))
    if advantages.has_values(rl):
      errors_BT = value_errors(scores.values, batch['values'], batch['returns'], rl.value_clip)
      metrics['rl/value_loss'] = mean(errors_BT)
      total += rl.value_weight * jnp.sum(weights_BT * errors_BT)
    return metrics | {'train/loss': (loss, weight), 'train/total': (total, weight)}

  return objective
