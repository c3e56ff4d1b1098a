"""The policy-gradient stage: group-relative advantages and a clipped loss over sampled answers."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from lm.infer.sampling import RowSampling, Sampling, log_probs
from lm.model.heads import head
from lm.model.transformer import Transformer
from lm.stages.rl import rollout, rollout_batches
from lm.stages.stage import Field, Stage, per_token
from lm.train import losses
from lm.train.batches import Run
from lm.train.train_step import LossFn


class PolicyGradient(Stage):
  """Trains on the policy's own answers to problems that a grader checks."""

  reads = 'questions'
  loss_is_positive = False
  blocks_vocabulary = False
  recomputes_logits = True
  cost_note = 'rollouts and their scores are left out'
  unused = ('data.weights', 'data.epochs', 'loss.vocab_blocks', 'loss.balance', 'loss.z_loss')

  @property
  def batch_fields(self) -> Mapping[str, Field]:
    """The arrays of a batch; a row is a prompt and an answer, padded at the end.

    Weights are 1 on the tokens that were sampled.
    """
    fields = {
      'inputs': per_token('int32'),
      'targets': per_token('int32'),
      'weights': per_token('float32'),
      'old_log_probs': per_token('float32'),  # The sampler's, in nats.
      'advantages': per_token('float32'),
    }
    if self.config.rl.kl:
      fields['reference_log_probs'] = per_token('float32')  # The starting model's, in nats.
    return fields

  @property
  def updates_per_batch(self) -> int:
    return self.config.rl.inner_updates

  def make_loss(self, model_config: FrozenConfigDict, banned_ids: Sequence[int] = ()) -> LossFn:
    return make_loss(model_config, self.config.loss, self.config.rl, banned_ids)

  def make_batches(self, run: Run, copy_start: Callable[[], Any]) -> rollout_batches.RolloutBatches:
    """Returns batches of answers that are sampled, graded and scored at each step."""
    score = make_score(
      run.model_config,
      self.config.loss,
      self.config.rl.temperature,
      run.chat_format.banned_ids(run.model_config.vocab_size),
    )
    return rollout_batches.RolloutBatches(run, self.batch_axes, make_reference(score), copy_start)

  def summarize(self, run: Run, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the mean reward and length of answers at the start and at the end of the run."""
    del run
    return {'rl': rollout.first_and_last(metrics)}


def make_score(
  model_config: FrozenConfigDict,
  loss_config: ConfigDict,
  temperature: float,
  banned_ids: Sequence[int] = (),
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """Returns `score(params, inputs, targets)`: log-probabilities and entropies of the targets.

  The inputs and targets are [B, T]. The results are float32 [B, T], and are those of the
  distribution that the sampler drew from.

  Args:
    temperature, banned_ids: those of the `lm.infer.sampling.Sampling` that drew the answers.
  """
  model, cap = Transformer(model_config), model_config.logit_softcap
  sampling = Sampling(temperature, banned_ids=tuple(banned_ids))
  rows = RowSampling.of([sampling], model_config.vocab_size)
  normalize = functools.partial(log_probs, rows=rows)

  def score(params, inputs_BT, targets_BT):
    hidden_BTD, _ = model.apply({'params': params}, inputs_BT)
    return losses.token_log_probs(
      hidden_BTD, head(params, model_config), targets_BT, loss_config.chunk, normalize, cap
    )

  return score


def make_reference(score: Callable[..., tuple[jax.Array, jax.Array]]) -> Callable[..., jax.Array]:
  """Returns `reference(params, inputs, targets)`: log-probabilities of batches of microbatches.

  The inputs and targets are [M, rows, T], and the result is float32 [M, rows, T]. One microbatch is
  scored after the other, so that it needs no more memory than the loss.
  """

  def reference(params, inputs_MBT, targets_MBT):
    return jax.lax.map(lambda parts: score(params, *parts)[0], (inputs_MBT, targets_MBT))

  return reference


def make_loss(
  model_config: FrozenConfigDict,
  loss_config: ConfigDict,
  rl: ConfigDict,
  banned_ids: Sequence[int] = (),
) -> LossFn:
  """Returns the loss of a batch of sampled answers, all arrays [B, T].

  `inputs` and `targets` are int32, prompts and answers padded at the end. `weights` are 1 on tokens
  that the policy sampled (its stop token included, forced tool outputs not). `old_log_probs` are
  the sampler's. `reference_log_probs` are the starting model's, when config.rl.kl is positive. The
  last array is `advantages`.

  The policy loss is PPO's clipped ratio with DAPO's two bounds and token-level mean (arXiv
  2503.14476). The KL term is half the squared log-ratio, whose gradient on the policy's own samples
  is that of KL(policy || reference); the value logged as rl/kl is the low-variance estimate r - 1 -
  log r (J. Schulman, Approximating KL divergence, 2020).

  The policy loss, train/loss, is a mean over the sampled tokens of the groups whose rewards differ.
  The KL term, which train/total adds to it, is a mean over those of all groups. All other metrics
  are means over the sampled tokens of the rows that are computed. With a KL term these are all
  rows; otherwise they are the rows of the groups whose rewards differ
  (`lm.stages.rl.rollout.collect`).

  The other metrics are rl/entropy, that of the policy in nats; rl/clip_share, the share of tokens
  whose ratio is clipped; rl/kl; and rl/sampler_gap, the absolute difference between the
  log-probabilities of the trainer and of the sampler. A run logs the gap before the first update on
  a batch (`lm.train.train_step.of_updates`).
  """
  score = make_score(model_config, loss_config, rl.temperature, banned_ids)
  clip_low, clip_high, kl_weight = rl.clip_low, rl.clip_high, rl.kl

  def loss_fn(params, batch, key):
    del key
    mask_BT, advantages_BT = batch['weights'], batch['advantages']
    log_p_BT, entropy_BT = score(params, batch['inputs'], batch['targets'])
    gap_BT = jnp.where(mask_BT > 0, log_p_BT - batch['old_log_probs'], 0.0)
    ratio_BT = jnp.exp(gap_BT)
    clipped_BT = jnp.clip(ratio_BT, 1 - clip_low, 1 + clip_high)
    gain_BT = jnp.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)
    total, weight = -jnp.sum(mask_BT * gain_BT), mask_BT.sum()
    metrics = {
      'train/loss': total,
      'rl/entropy': jnp.sum(mask_BT * entropy_BT),
      'rl/clip_share': jnp.sum(jnp.where(ratio_BT * advantages_BT > gain_BT, mask_BT, 0.0)),
      'rl/sampler_gap': jnp.sum(mask_BT * jnp.abs(gap_BT)),
    }
    if kl_weight:
      away_BT = jnp.where(mask_BT > 0, log_p_BT - batch['reference_log_probs'], 0.0)
      total += kl_weight * 0.5 * jnp.sum(jnp.square(away_BT))
      estimate_BT = jnp.exp(-away_BT) - 1 + away_BT
      metrics['rl/kl'] = jax.lax.stop_gradient(jnp.sum(estimate_BT))
    metrics['train/total'] = total
    return {name: (value, weight) for name, value in metrics.items()}

  return loss_fn
