"""The policy-gradient stage: it trains on the policy's own answers, weighed by their advantages.

REINFORCE, RLOO, GRPO, Dr. GRPO, DAPO, GSPO and PPO are choices of config.rl (configs/README.md).
The estimators of advantages are in advantages.py, the parts of the loss in policy_losses.py.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base import config as config_lib
from lm.base import files
from lm.infer.sampling import RowSampling, Sampling, log_probs
from lm.model.heads import head, scalar_values
from lm.model.transformer import Transformer
from lm.stages import reward
from lm.stages.rl import advantages, health, policy_losses, rl_checks, rollout, rollout_batches
from lm.stages.rl.policy_losses import Scores
from lm.stages.stage import Field, Stage, per_token
from lm.train import losses
from lm.train.batches import Run
from lm.train.faults import Symptom
from lm.train.train_step import LossFn
from lm.weights import checkpoint_folders


class PolicyGradient(Stage):
  """Trains on the policy's own answers to problems that a grader checks."""

  reads = 'questions'
  sections = ('rl',)
  loss_is_positive = False
  blocks_vocabulary = False
  recomputes_logits = True
  is_sparse = True
  cost_note = 'rollouts and their scores are left out'
  unused = ('data.weights', 'data.epochs', 'loss.vocab_blocks', 'loss.balance', 'loss.z_loss')

  @property
  def batch_fields(self) -> Mapping[str, Field]:
    """The arrays of a batch; a row is a prompt and an answer, padded at the end.

    Weights are 1 on the tokens that were sampled. Log-probabilities are in nats.
    """
    names = ['weights', 'old_log_probs', 'advantages']  # The old ones are the sampler's.
    rl = self.config.rl
    if rl.importance_cap:  # The old ones are the trainer's before the first update.
      names += ['sampler_log_probs']
    if policy_losses.has_reference(rl):
      names += ['reference_log_probs']  # The starting model's.
    if advantages.has_values(rl):
      names += ['values', 'returns']  # Of the states before the first update, and their targets.
    tokens = {name: per_token('int32') for name in ('inputs', 'targets')}
    return tokens | {name: per_token('float32') for name in names}

  @property
  def updates_per_batch(self) -> int:
    return self.config.rl.inner_updates

  def check(self, defaults: ConfigDict) -> None:
    """Raises UserError where fields of config.rl do not fit together, or are not used."""
    super().check(defaults)
    rl_checks.check(self.config.rl, defaults.rl)

  def make_loss(self, model_config: FrozenConfigDict, banned_ids: Sequence[int] = ()) -> LossFn:
    return make_loss(model_config, self.config.loss, self.config.rl, banned_ids)

  def make_batches(self, run: Run, copy_start: Callable[[], Any]) -> rollout_batches.RolloutBatches:
    """Returns batches of answers that are sampled, graded and scored at each step."""
    score = make_score(
      run.model_config,
      self.config.loss,
      self.config.rl.temperature,
      run.chat_format.banned_ids(run.model_config.vocab_size),
      has_values=advantages.has_values(self.config.rl),
    )
    proxy = reward.open_scorer(run) if self.config.rl.reward_model else None
    return rollout_batches.RolloutBatches(run, self.batch_axes, score, copy_start, proxy)

  def inputs(self) -> dict[str, Any]:
    """Returns digests of the reward models, whose files may be replaced."""
    runs = config_lib.names(self.config.rl.reward_model)
    digests = [files.read_json(checkpoint_folders.locate(run) / 'digest.json') for run in runs]
    return {'reward_model': files.digest(digests)} if runs else {}

  def symptoms(self, metrics: Mapping[str, float]) -> list[Symptom]:
    return health.symptoms(self.config.rl.health, metrics)

  def summarize(self, run: Run, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the mean reward and length of answers at the start and at the end of the run."""
    del run
    return {'rl': rollout.first_and_last(metrics)}


def make_score(
  model_config: FrozenConfigDict,
  loss_config: ConfigDict,
  temperature: float,
  banned_ids: Sequence[int] = (),
  has_values: bool = False,
) -> Callable[[Any, jax.Array, jax.Array, jax.Array], Scores]:
  """Returns `score(params, inputs, targets, weights)`: the scores of targets [B, T].

  They are those of the distribution that the sampler drew from, given the inputs [B, T]. Of targets
  whose weight is 0, the log-probability and the entropy are 0 and are not computed.

  Args:
    temperature, banned_ids: those of the `lm.infer.sampling.Sampling` that drew the answers.
    has_values: whether values are among the scores. Then `score` raises UserError if the model has
      no scalar head.
  """
  model, cap = Transformer(model_config), model_config.logit_softcap
  sampling = Sampling(temperature, banned_ids=tuple(banned_ids))
  rows = RowSampling.of([sampling], model_config.vocab_size)
  normalize = functools.partial(log_probs, rows=rows)

  def score(params, inputs_BT, targets_BT, weights_BT):
    hidden_BTD, _ = model.apply({'params': params}, inputs_BT)
    log_p_BT, entropy_BT = losses.token_log_probs(
      hidden_BTD,
      head(params, model_config),
      targets_BT,
      weights_BT,
      loss_config.chunk,
      normalize,
      cap,
    )
    values_BT = scalar_values(params, model_config, hidden_BTD) if has_values else None
    return Scores(log_p_BT, entropy_BT, values_BT)

  return score


def make_loss(
  model_config: FrozenConfigDict,
  loss_config: ConfigDict,
  rl: ConfigDict,
  banned_ids: Sequence[int] = (),
) -> LossFn:
  """Returns the loss of sampled answers (`lm.stages.rl.policy_losses.make_objective`)."""
  score = make_score(
    model_config, loss_config, rl.temperature, banned_ids, advantages.has_values(rl)
  )
  objective = policy_losses.make_objective(rl)

  def loss_fn(params, batch, key):
    del key
    scores = score(params, *(batch[name] for name in ('inputs', 'targets', 'weights')))
    return objective(scores, batch)

  return loss_fn
