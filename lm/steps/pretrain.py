"""The pretraining step's loss: next-token prediction on every token of packed documents."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from lm import loss
from lm.model import Transformer, head
from lm.steps.common import LossFn


def make_loss(model_config: FrozenConfigDict, loss_config: ConfigDict) -> LossFn:
  """Loss of a batch {inputs, targets, segment_ids, positions: int32 [B, T]; weights: float32 [B, T]}."""
  model, cap = Transformer(model_config), model_config.logit_softcap
  chunk, z_loss, balance_weight = loss_config.chunk, loss_config.z_loss, loss_config.balance

  def loss_fn(params, batch):
    (hidden_BTD, _), sown = model.apply(
      {'params': params}, batch['inputs'], batch['positions'], batch['segment_ids'], mutable=['losses'])
    weights_BT = batch['weights']
    total = loss.cross_entropy(hidden_BTD, head(params, model_config), batch['targets'], weights_BT, chunk, z_loss, cap)
    metrics = {}
    if model_config.num_experts:
      (balance_LB,) = jax.tree.leaves(sown)
      balance = jnp.vdot(balance_LB.mean(0), weights_BT.sum(1))
      total += balance_weight * balance
      metrics['train/expert_balance'] = balance
    return total, weights_BT.sum(), metrics

  return loss_fn
