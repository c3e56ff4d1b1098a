"""Learning from pairs of answers to one prompt, one of which was preferred: DPO, IPO, KTO and ORPO.

A row of a batch is a pair. `config.preference.loss` names what is minimized:

  dpo    direct preference optimization (Rafailov et al., arXiv 2305.18290)
  ipo    identity preference optimization (Azar et al., arXiv 2310.12036)
  kto    Kahneman-Tversky optimization (Ethayarajh et al., arXiv 2402.01306)
  orpo   odds ratio preference optimization (Hong et al., arXiv 2403.07691)

The first three compare an answer's log-probability with that under the model that training started
from, the reference. ORPO needs no reference, and learns to write the chosen answers beside it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base.errors import UserError, unknown
from lm.model.heads import head
from lm.model.transformer import Transformer
from lm.stages.stage import Field, Stage, per_row, per_token
from lm.train import losses
from lm.train.batches import Batch, Batches, Run, TokenBatches
from lm.train.train_step import LossFn

SIDES = ('chosen', 'rejected')
OTHER = 'other'  # An answer to another prompt, by which KTO estimates a divergence.
# The largest log-probability per token whose odds are computed: those of certainty are infinite.
MOST_CERTAIN = -1e-6


def dpo(
  chosen_B: jax.Array, rejected_B: jax.Array, beta: float, divergence_B: jax.Array
) -> jax.Array:
  """Returns the loss of each pair, equation 7 of the paper.

  Args:
    chosen_B, rejected_B: by how many nats the answers are likelier than under the reference.
    beta: strength of the pull towards the reference, 1 / nats.
    divergence_B: KTO's, which this loss does not read.
  """
  del divergence_B
  return -jax.nn.log_sigmoid(beta * (chosen_B - rejected_B))


def ipo(
  chosen_B: jax.Array, rejected_B: jax.Array, beta: float, divergence_B: jax.Array
) -> jax.Array:
  """Returns the loss of each pair, equation 17 of the paper, whose τ is beta; arguments of `dpo`.

  Log-probabilities are sums over the tokens of an answer, as in the paper.
  """
  del divergence_B
  return jnp.square(chosen_B - rejected_B - 1 / (2 * beta))


def kto(
  chosen_B: jax.Array, rejected_B: jax.Array, beta: float, divergence_B: jax.Array
) -> jax.Array:
  """Returns the mean loss of the two answers of each pair, L_KTO of section 4.1 of the paper.

  There are as many desirable answers as undesirable ones, which thus weigh the same: both λ are 1.

  Args:
    chosen_B, rejected_B, beta: as of `dpo`.
    divergence_B: z_0 of the paper, KL(policy || reference) in nats, without a gradient.
  """
  desirable_B = 1 - jax.nn.sigmoid(beta * (chosen_B - divergence_B))
  undesirable_B = 1 - jax.nn.sigmoid(beta * (divergence_B - rejected_B))
  return (desirable_B + undesirable_B) / 2


def orpo(
  chosen_B: jax.Array, rejected_B: jax.Array, beta: float, divergence_B: jax.Array
) -> jax.Array:
  """Returns the relative ratio loss L_OR of each pair, equation 7 of the paper.

  Args:
    chosen_B, rejected_B: the mean log-probability of the tokens of the answers, in nats.
    beta: λ of the paper, by which the loss is multiplied where it is added to the cross entropy.
    divergence_B: KTO's, which this loss does not read.
  """
  del beta, divergence_B

  def log_odds(log_p_B: jax.Array) -> jax.Array:
    log_p_B = jnp.minimum(log_p_B, MOST_CERTAIN)
    return log_p_B - jnp.log(-jnp.expm1(log_p_B))

  return -jax.nn.log_sigmoid(log_odds(chosen_B) - log_odds(rejected_B))


@dataclasses.dataclass(frozen=True)
class PairLoss:
  """A loss of pairs.

  Attributes:
    of_pairs: its formula.
    has_reference: whether answers are compared with the reference. Otherwise the formula reads the
      mean log-probability of a token, and the cross entropy of chosen answers is minimized too.
    has_divergence: whether the formula reads the divergence from the reference.
  """

  of_pairs: Callable[[jax.Array, jax.Array, float, jax.Array], jax.Array]
  has_reference: bool = True
  has_divergence: bool = False

  @property
  def sides(self) -> tuple[str, ...]:
    """The answers of a row."""
    return (*SIDES, OTHER) if self.has_divergence else SIDES

  @property
  def scored(self) -> tuple[str, ...]:
    """The answers of a row that the reference scores."""
    return self.sides if self.has_reference else ()


LOSSES = {
  'dpo': PairLoss(dpo),
  'ipo': PairLoss(ipo),
  'kto': PairLoss(kto, has_divergence=True),
  'orpo': PairLoss(orpo, has_reference=False),
}


class Preference(Stage):
  """Trains on pairs of answers, one of which was preferred."""

  reads = 'pairs'
  sections = ('preference',)
  blocks_vocabulary = False
  recomputes_logits = True
  is_sparse = True
  cost_note = 'one answer of each pair is counted, and the scores of the start model are left out'
  unused = (
    'data.weights',
    'data.epochs',
    'loss.vocab_blocks',
    'loss.balance',
    'loss.z_loss',
  )

  @property
  def pair_loss(self) -> PairLoss:
    """The loss that the config names. Raises UserError if there is no such loss."""
    name = self.config.preference.loss
    if name not in LOSSES:
      raise unknown('config.preference.loss', name, LOSSES)
    return LOSSES[name]

  @property
  def reads_start(self) -> bool:
    return self.pair_loss.has_reference

  @property
  def batch_fields(self) -> Mapping[str, Field]:
    fields = {}
    for side in self.pair_loss.sides:
      fields[f'{side}_inputs'] = per_token('int32')
      fields[f'{side}_targets'] = per_token('int32')
      fields[f'{side}_weights'] = per_token('float32')  # 1 on the answer's tokens.
    for side in self.pair_loss.scored:
      fields[f'{side}_reference'] = per_row('float32')  # The reference's log-probability, in nats.
    if self.pair_loss.has_divergence:
      fields['divergence'] = per_row('float32')  # That of the whole batch in each row, in nats.
    return fields

  def make_loss(self, model_config: FrozenConfigDict, banned_ids: Sequence[int] = ()) -> LossFn:
    del banned_ids
    return make_loss(model_config, self.config.loss, self.config.preference.beta, self.pair_loss)

  def make_batches(self, run: Run, copy_start: Callable[[], Any]) -> Batches:
    """Returns batches of pairs; a copy of the start is kept where the loss has a reference."""
    if not self.pair_loss.has_reference:
      return TokenBatches(run, self.batch_axes)
    return PreferenceBatches(run, self.batch_axes, self.pair_loss, copy_start())


class PreferenceBatches(TokenBatches):
  """Batches of pairs with what the loss reads of the reference, and of the parameters before it."""

  def __init__(
    self,
    run: Run,
    axes: Mapping[str, tuple[str, ...]],
    pair_loss: PairLoss,
    start_params: Any,
  ):
    """Keeps the parameters that training starts from, whose copies these must be."""
    self._start_params, self._pair_loss = start_params, pair_loss
    log_probs = make_log_probs(run.model_config, run.config.loss)

    # One microbatch after the other: no more is held at one time than when the loss is computed.
    @jax.jit
    def reference(params, arrays):
      return jax.lax.map(lambda batch: log_probs(params, batch, pair_loss.scored), arrays)

    @jax.jit
    def divergence(params, arrays):
      """Returns that of the whole batch in each of its rows, [M, rows]."""
      batches = {name: x for name, x in arrays.items() if name.startswith(OTHER)}
      sums, counts = jax.lax.map(lambda batch: divergence_sum(log_probs, params, batch), batches)
      return jnp.full(arrays[f'{OTHER}_reference'].shape, _divergence(sums.sum(), counts.sum()))

    self._reference, self._divergence = reference, divergence
    super().__init__(run, axes)

  def next(self, update: int, params: Any) -> Batch:
    """Returns the next batch; the divergence is that of the parameters before the update."""
    batch = super().next(update, params)
    if not self._pair_loss.has_divergence:
      return batch
    arrays = batch.arrays | {'divergence': self._divergence(params, batch.arrays)}
    return dataclasses.replace(batch, arrays=arrays)

  def complete(self, arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Adds the reference's log-probabilities, [M, rows], or [rows] without microbatches."""
    if arrays['chosen_inputs'].ndim == 3:
      scores = self._reference(self._start_params, arrays)
    else:
      whole = {name: x[None] for name, x in arrays.items()}
      scores = {side: x[0] for side, x in self._reference(self._start_params, whole).items()}
    return arrays | {f'{side}_reference': x for side, x in scores.items()}


def make_log_probs(
  model_config: FrozenConfigDict, loss_config: ConfigDict
) -> Callable[[Any, Mapping[str, jax.Array], Sequence[str]], dict[str, jax.Array]]:
  """Returns `log_probs(params, batch, sides)`: that of the answer of each side, float32 [rows].

  An answer's log-probability is the sum over its tokens, in nats.
  """
  model, cap = Transformer(model_config), model_config.logit_softcap

  def log_probs(params, batch, sides):
    # The model reads the answers of all sides in one pass.
    inputs_BT, targets_BT, weights_BT = (
      jnp.concatenate([batch[f'{side}_{name}'] for side in sides])
      for name in ('inputs', 'targets', 'weights')
    )
    hidden_BTD, _ = model.apply({'params': params}, inputs_BT)
    log_p_BT, _ = losses.token_log_probs(
      hidden_BTD, head(params, model_config), targets_BT, weights_BT, loss_config.chunk, cap=cap
    )
    log_p_B = (log_p_BT * weights_BT).sum(axis=1)
    return dict(zip(sides, jnp.split(log_p_B, len(sides)), strict=True))

  return log_probs


def divergence_sum(
  log_probs: Callable, params: Any, batch: Mapping[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
  """Returns the sum over the rows of log(policy / reference) of an answer to another prompt.

  The second value is the number of rows.
  """
  real_B = _is_real(batch, OTHER)
  gain_B = log_probs(params, batch, (OTHER,))[OTHER] - batch[f'{OTHER}_reference']
  return jnp.sum(real_B * gain_B), real_B.sum()


def _divergence(total: jax.Array, count: jax.Array) -> jax.Array:
  """Returns the estimate of KL(policy || reference), which is at least 0 (KTO, section 4.1)."""
  return jax.lax.stop_gradient(jnp.maximum(total / jnp.maximum(count, 1), 0))


def _is_real(batch: Mapping[str, jax.Array], side: str) -> jax.Array:
  """Returns 1 for the rows that have an answer, and 0 for empty ones, float32 [rows]."""
  return (batch[f'{side}_weights'].sum(axis=1) > 0).astype(jnp.float32)


def make_loss(
  model_config: FrozenConfigDict, loss_config: ConfigDict, beta: float, pair_loss: PairLoss
) -> LossFn:
  """Returns the loss of a batch of pairs.

  Args:
    model_config: the model's.
    loss_config: `config.loss`.
    beta: `config.preference.beta`.
    pair_loss: one of LOSSES.

  The metrics are means over the pairs: train/loss; preference/accuracy, the share of pairs whose
  chosen answer gained more over the reference than the other one; preference/margin, that
  difference in nats; preference/divergence, KTO's. Without a reference, these are of the mean
  log-probability of a token, and train/total is the cross entropy of the chosen answer, as a mean
  over its tokens, which is preference/nll, plus beta times train/loss.

  The divergence is that of the whole batch, before its update, so that it does not depend on the
  microbatches. Held-out batches, which have none, estimate it themselves.

  Raises:
    UserError: beta is not positive.
  """
  if beta <= 0:
    raise UserError(field='config.preference.beta', value=beta, allowed='above 0')
  log_probs = make_log_probs(model_config, loss_config)

  def loss_fn(params, batch, key):
    del key
    real_B = _is_real(batch, 'chosen')
    count = real_B.sum()

    def mean(x_B):
      return jnp.sum(real_B * x_B), count

    log_p = log_probs(params, batch, SIDES)
    if pair_loss.has_reference:
      gains = [log_p[side] - batch[f'{side}_reference'] for side in SIDES]
    else:
      gains = [log_p[side] / jnp.maximum(batch[f'{side}_weights'].sum(axis=1), 1) for side in SIDES]
    divergence_B, metrics = jnp.zeros_like(real_B), {}
    if pair_loss.has_divergence:
      if 'divergence' in batch:
        divergence_B = batch['divergence']
      else:
        divergence_B += _divergence(*divergence_sum(log_probs, params, batch))
      metrics['preference/divergence'] = mean(divergence_B)
    chosen_B, rejected_B = gains
    loss_B = pair_loss.of_pairs(chosen_B, rejected_B, beta, divergence_B)
    if not pair_loss.has_reference:
      metrics['preference/nll'] = mean(-chosen_B)
      metrics['train/total'] = mean(-chosen_B + beta * loss_B)
    return metrics | {
      'train/loss': mean(loss_B),
      'preference/accuracy': mean((chosen_B > rejected_B).astype(jnp.float32)),
      'preference/margin': mean(chosen_B - rejected_B),
    }

  return loss_fn
