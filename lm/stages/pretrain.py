"""The pretraining step's loss: next-token prediction on every token of packed documents."""

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from lm.model.transformer import Transformer, head
from lm.train import losses
from lm.train.train_step import LossFn


def make_loss(model_config: FrozenConfigDict, loss_config: ConfigDict) -> LossFn:
  """Loss of a batch {inputs, targets, segment_ids, positions: int32 [B, T]; weights: float32 [B,
  T]}.

  What is minimized is the cross entropy, logged as `train/loss`, with the regularisers that have a
  weight: z-loss (the mean of log(Z)^2 is logged as `train/z_loss`) and the balance of experts
  (`train/expert_balance`).
  """
  model = Transformer(model_config)
  cross_entropy = functools.partial(
    losses.cross_entropy,
    chunk=loss_config.chunk,
    z_loss=loss_config.z_loss,
    cap=model_config.logit_softcap,
    vocab_blocks=loss_config.vocab_blocks,
  )
  balance_weight = loss_config.balance

  def loss_fn(params, batch):
    (hidden_BTD, _), sown = model.apply(
      {'params': params},
      batch['inputs'],
      batch['positions'],
      batch['segment_ids'],
      mutable=['losses'],
    )
    weights_BT = batch['weights']
    weight = weights_BT.sum()
    total, nats, log_z_squared = cross_entropy(
      hidden_BTD, head(params, model_config), batch['targets'], weights_BT
    )
    metrics = {'train/loss': (nats, weight)}
    if loss_config.z_loss:
      metrics['train/z_loss'] = log_z_squared, weight
    if model_config.num_experts:
      (balance_LB,) = jax.tree.leaves(sown)
      balance = jnp.vdot(balance_LB.mean(0), weights_BT.sum(1))
      total += balance_weight * balance
      metrics['train/expert_balance'] = balance, weight
    return total, weight, metrics

  return loss_fn
