"""Supervised fine-tuning: cross entropy on only the assistant's tokens of conversations.

The weights are made where the tokens are made (data/chat/chat_formats.py): user turns, headers and
tool outputs have weight 0, the stop token of an assistant turn has weight 1.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from lm.stages import pretrain
from lm.stages.stage import Field, Stage
from lm.train.train_step import LossFn


class SupervisedFineTuning(Stage):
  """Trains on conversations."""

  reads = 'packed'

  @property
  def batch_fields(self) -> Mapping[str, Field]:
    return pretrain.TOKEN_FIELDS

  def make_loss(self, model_config: FrozenConfigDict, banned_ids: Sequence[int] = ()) -> LossFn:
    del banned_ids
    return make_loss(model_config, self.config.loss)


def make_loss(model_config: FrozenConfigDict, loss_config: ConfigDict) -> LossFn:
  """Returns the loss of pretraining, with the context per learned token as another metric.

  `sft/context_per_token` is the number of tokens in the rows over the number of learned ones.
  """
  base = pretrain.make_loss(model_config, loss_config)

  def loss_fn(params, batch, key):
    sums = base(params, batch, key)
    _, weight = sums['train/loss']
    context = jnp.sum((batch['segment_ids'] > 0).astype(jnp.float32))
    return sums | {'sft/context_per_token': (context, weight)}

  return loss_fn
