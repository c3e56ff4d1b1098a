"""The pretraining step's loss: next-token prediction on every token of packed documents."""

from ml_collections import ConfigDict, FrozenConfigDict

from lm import loss
from lm.model import Transformer, head
from lm.steps.common import LossFn


def make_loss(model_config: FrozenConfigDict, loss_config: ConfigDict) -> LossFn:
  """Loss of a batch {inputs, targets, segment_ids, positions: int32 [B, T]; weights: float32 [B, T]}."""
  model = Transformer(model_config)
  chunk, z_loss = loss_config.chunk, loss_config.z_loss

  def loss_fn(params, batch):
    hidden_BTD, _ = model.apply({'params': params}, batch['inputs'], batch['positions'], batch['segment_ids'])
    total = loss.cross_entropy(hidden_BTD, head(params, model_config), batch['targets'], batch['weights'], chunk, z_loss)
    return total, batch['weights'].sum(), {}

  return loss_fn
