"""The supervised fine-tuning step's loss: cross entropy on the assistant's tokens alone.

The mask is made where the tokens are made (data/chat/chat_formats.py): user turns, headers and tool outputs have
weight 0, the stop token of an assistant turn has weight 1. What differs from pretraining is
measured apart: the share of each row that is learned from.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from lm.stages import pretrain
from lm.train.train_step import LossFn


def make_loss(model_config: FrozenConfigDict, loss_config: ConfigDict) -> LossFn:
  """Loss of a batch as in pretraining, its weights the assistant mask; logs
  `sft/context_per_token`.
  """
  base = pretrain.make_loss(model_config, loss_config)

  def loss_fn(params, batch):
    total, weight, metrics = base(params, batch)
    context = jnp.sum((batch['segment_ids'] > 0).astype(jnp.float32))
    return total, weight, metrics | {'sft/context_per_token': (context, weight)}

  return loss_fn
