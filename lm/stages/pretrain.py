"""Pretraining: next-token prediction on every token of packed documents."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base import metrics as metrics_lib
from lm.model.heads import head
from lm.model.transformer import Transformer
from lm.stages.stage import Field, Stage, per_token
from lm.train import losses
from lm.train.batches import Run
from lm.train.train_step import LossFn, SumAndWeight

# The fields of a batch of token shards. `inputs` are read and `targets` are predicted, each target
# with its weight in the loss. A token does not see other documents, which have other segment ids.
# Positions count from the first token of a document.
TOKEN_FIELDS = {
  'inputs': per_token('int32'),
  'targets': per_token('int32'),
  'positions': per_token('int32'),
  'segment_ids': per_token('int32'),
  'weights': per_token('float32'),
}


class Pretrain(Stage):
  """Trains on packed documents."""

  reads = 'windows'
  is_chat = False

  @property
  def batch_fields(self) -> Mapping[str, Field]:
    return TOKEN_FIELDS

  def make_loss(self, model_config: FrozenConfigDict, banned_ids: Sequence[int] = ()) -> LossFn:
    del banned_ids
    return make_loss(model_config, self.config.loss)

  def summarize(self, run: Run, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the texts that the model wrote, its bits per byte, and those of the baselines.

    The baselines are simpler models that are given the same training batches.
    """
    config = self.config
    losses_of_val = [line for line in metrics if 'eval/val/bpb' in line]
    report = {'tokens': config.steps * config.batch_size * config.seq_len}
    if losses_of_val:
      report['val_bpb'] = losses_of_val[-1]['eval/val/bpb']
    if losses_of_val and config.eval.baselines:
      with run.clock.part('eval'):
        spans = run.jumps.ranges(0, config.steps)
        report |= run.source.compare_baselines(run.chat_format.tokenizer, spans)
    return {'samples': first_and_last_samples(run.workdir), 'pretrain': report}


def make_cross_entropy(
  model_config: FrozenConfigDict, loss_config: ConfigDict, is_sparse: bool = False
) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
  """Returns `lm.train.losses.cross_entropy` with the settings of `config.loss`."""
  return functools.partial(
    losses.cross_entropy,
    chunk=loss_config.chunk,
    z_loss=loss_config.z_loss,
    cap=model_config.logit_softcap,
    vocab_blocks=loss_config.vocab_blocks,
    is_sparse=is_sparse,
  )


def make_loss(
  model_config: FrozenConfigDict, loss_config: ConfigDict, is_sparse: bool = False
) -> Callable[..., dict[str, SumAndWeight]]:
  """Returns the loss of a batch of TOKEN_FIELDS.

  It minimizes the cross entropy, logged as `train/loss`, plus the regularizers that have a weight:
  z-loss (the mean of log(Z)^2 is logged as `train/z_loss`) and the balance of experts
  (`train/expert_balance`). A fourth argument, [B, T, D], is added to the embeddings.

  Args:
    model_config: the model's.
    loss_config: `config.loss`.
    is_sparse: whether many tokens have weight 0 (`lm.train.losses.cross_entropy`).
  """
  model = Transformer(model_config)
  cross_entropy = make_cross_entropy(model_config, loss_config, is_sparse)
  balance_weight = loss_config.balance

  def loss_fn(params, batch, key, noise_BTD=None):
    del key
    (hidden_BTD, _), sown = model.apply(
      {'params': params},
      batch['inputs'],
      batch['positions'],
      batch['segment_ids'],
      noise_BTD=noise_BTD,
      mutable=['losses'],
    )
    weights_BT = batch['weights']
    weight = weights_BT.sum()
    total, nats, log_z_squared = cross_entropy(
      hidden_BTD, head(params, model_config), batch['targets'], weights_BT
    )
    sums = {'train/loss': (nats, weight)}
    if loss_config.z_loss:
      sums['train/z_loss'] = log_z_squared, weight
    if model_config.num_experts:
      (balance_LB,) = jax.tree.leaves(sown)
      balance = jnp.vdot(balance_LB.mean(0), weights_BT.sum(1))
      total += balance_weight * balance
      sums['train/expert_balance'] = balance, weight
    return sums | {'train/total': (total, weight)}

  return loss_fn


def first_and_last_samples(workdir: Any) -> dict[str, list[dict[str, str]]]:
  """Returns the texts that a run's model wrote before its first step and after its last.

  They are {'first': [...], 'last': [...]}, each text {'prompt', 'text'}.
  """
  lines = metrics_lib.samples(workdir)
  steps = sorted({line['step'] for line in lines}) or [0]
  return {
    end: [{'prompt': line['name'], 'text': line['text']} for line in lines if line['step'] == step]
    for end, step in (('first', steps[0]), ('last', steps[-1]))
  }
