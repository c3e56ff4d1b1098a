"""Direct preference optimization (Rafailov et al., arXiv 2305.18290).

A row of a batch is a pair: the same prompt with the answer that was preferred and the one that was
not. The loss raises the margin between their log-probabilities, measured against the model that
training started from.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from lm.model.heads import head
from lm.model.transformer import Transformer
from lm.stages.stage import Field, Stage, per_row, per_token
from lm.train import losses
from lm.train.batches import Run, TokenBatches
from lm.train.train_step import LossFn

SIDES = ('chosen', 'rejected')


class Preference(Stage):
  """Trains on pairs of answers, one of which was preferred."""

  reads = 'pairs'
  blocks_vocabulary = False
  recomputes_logits = True
  cost_note = (
    'of the two answers of a pair one is counted, and the scores of the start model are not'
  )
  unused = ('data.weights', 'data.epochs', 'loss.vocab_blocks', 'loss.balance', 'loss.z_loss')

  @property
  def batch_fields(self) -> Mapping[str, Field]:
    fields = {'reference_margin': per_row('float32')}  # The starting model's margin, in nats.
    for side in SIDES:
      fields[f'{side}_inputs'] = per_token('int32')
      fields[f'{side}_targets'] = per_token('int32')
      fields[f'{side}_weights'] = per_token('float32')  # 1 on the answer's tokens.
    return fields

  def make_loss(self, model_config: FrozenConfigDict, banned_ids: Sequence[int] = ()) -> LossFn:
    del banned_ids
    return make_loss(model_config, self.config.loss, self.config.preference.beta)

  def make_batches(self, run: Run, copy_start: Callable[[], Any]) -> 'PreferenceBatches':
    return PreferenceBatches(run, self.batch_axes, copy_start())


class PreferenceBatches(TokenBatches):
  """Batches of pairs, each with the margin under the model that training started from."""

  def __init__(self, run: Run, axes: Mapping[str, tuple[str, ...]], start_params: Any):
    self._start_params = start_params
    margin = make_margin(run.model_config, run.config.loss)
    # One microbatch after the other: no more is held at one time than when the loss is computed.
    self._margin = jax.jit(
      lambda params, arrays: jax.lax.map(lambda batch: margin(params, batch), arrays)
    )
    super().__init__(run, axes)

  def complete(self, arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Adds the reference margins of pairs, [M, rows], or [rows] without microbatches."""
    if arrays['chosen_inputs'].ndim == 3:
      margin = self._margin(self._start_params, arrays)
    else:
      margin = self._margin(self._start_params, jax.tree.map(lambda x: x[None], arrays))[0]
    return arrays | {'reference_margin': margin}


def make_margin(
  model_config: FrozenConfigDict, loss_config: ConfigDict
) -> Callable[[Any, dict[str, jax.Array]], jax.Array]:
  """Returns `margin(params, batch)`: log p(chosen) - log p(rejected) of each pair, float32 [rows].

  An answer's log-probability is the sum over its tokens, in nats.
  """
  model = Transformer(model_config)
  log_probs = functools.partial(
    losses.token_log_probs, chunk=loss_config.chunk, cap=model_config.logit_softcap
  )

  def margin(params, batch):
    # The model reads both answers in one pass.
    inputs_BT, targets_BT, weights_BT = (
      jnp.concatenate([batch[f'{side}_{name}'] for side in SIDES])
      for name in ('inputs', 'targets', 'weights')
    )
    hidden_BTD, _ = model.apply({'params': params}, inputs_BT)
    log_p_BT, _ = log_probs(hidden_BTD, head(params, model_config), targets_BT)
    chosen_B, rejected_B = jnp.split((log_p_BT * weights_BT).sum(axis=1), 2)
    return chosen_B - rejected_B

  return margin


def make_loss(model_config: FrozenConfigDict, loss_config: ConfigDict, beta: float) -> LossFn:
  """Returns the loss of a batch of pairs, equation 7 of the paper.

  Args:
    model_config: the model's.
    loss_config: `config.loss`.
    beta: strength of the pull towards the starting model, 1 / nats.

  The metrics are means over the pairs: train/loss; preference/accuracy, the share of pairs that the
  model orders correctly by its margin over the starting model's; preference/margin, that difference
  in nats.
  """
  margin = make_margin(model_config, loss_config)

  def loss_fn(params, batch, key):
    del key
    real_B = (batch['chosen_weights'].sum(axis=1) > 0).astype(jnp.float32)
    gain_B = margin(params, batch) - batch['reference_margin']
    count = real_B.sum()
    return {
      'train/loss': (-jnp.sum(real_B * jax.nn.log_sigmoid(beta * gain_B)), count),
      'preference/accuracy': (jnp.sum(jnp.where(gain_B > 0, real_B, 0.0)), count),
      'preference/margin': (jnp.sum(real_B * gain_B), count),
    }

  return loss_fn
