"""Supervised fine-tuning: cross entropy on only the assistant's tokens of conversations.

The weights are made where the tokens are made (data/chat/chat_formats.py): user turns, headers and
tool outputs have weight 0, the stop token of an assistant turn has weight 1.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base.errors import unknown
from lm.stages import pretrain
from lm.stages.stage import Field, Stage
from lm.train.train_step import LossFn

LOSS_BY = ('token', 'conversation')  # What has the same weight in the loss.


class SupervisedFineTuning(Stage):
  """Trains on conversations."""

  reads = 'packed'
  is_sparse = True
  sections = ('sft',)

  @property
  def batch_fields(self) -> Mapping[str, Field]:
    return pretrain.TOKEN_FIELDS

  def make_loss(self, model_config: FrozenConfigDict, banned_ids: Sequence[int] = ()) -> LossFn:
    del banned_ids
    settings = self.config.sft
    return make_loss(model_config, self.config.loss, by=settings.loss_by, neftune=settings.neftune)


def make_loss(
  model_config: FrozenConfigDict,
  loss_config: ConfigDict,
  by: str = 'token',
  neftune: float = 0.0,
) -> LossFn:
  """Returns the loss of pretraining, with the context per learned token as another metric.

  `sft/context_per_token` is the number of tokens in the rows over the number of learned ones.

  Args:
    by: 'token' is the mean over learned tokens. 'conversation' is the mean over conversations of
      the means over their learned tokens, so that a long answer weighs no more than a short one.
    neftune: strength of the noise that is added to embeddings in training (see `neftune_noise`).

  Raises:
    UserError: `by` is unknown.
  """
  if by not in LOSS_BY:
    raise unknown('config.sft.loss_by', by, LOSS_BY)
  base = pretrain.make_loss(model_config, loss_config, is_sparse=SupervisedFineTuning.is_sparse)

  def loss_fn(params, batch, key):
    segment_ids_BT, learned_BT = batch['segment_ids'], batch['weights']
    noise_BTD = None
    if neftune and key is not None:
      noise_BTD = neftune_noise(key, segment_ids_BT, model_config.embed_dim, neftune)
    if by == 'conversation':
      batch = batch | {'weights': by_conversation(learned_BT, segment_ids_BT)}
    sums = base(params, batch, key, noise_BTD)
    context = jnp.sum((segment_ids_BT > 0).astype(jnp.float32))
    return sums | {'sft/context_per_token': (context, learned_BT.sum())}

  return loss_fn


def by_conversation(weights_BT: jax.Array, segment_ids_BT: jax.Array) -> jax.Array:
  """Returns weights that sum to 1 in each conversation that has any."""
  total_BT = _over_conversations(weights_BT, segment_ids_BT)
  return weights_BT / jnp.where(total_BT > 0, total_BT, 1)


def neftune_noise(
  key: jax.Array, segment_ids_BT: jax.Array, embed_dim: int, alpha: float
) -> jax.Array:
  """Returns the noise of NEFTune for the embeddings of a batch (Jain et al., arXiv 2310.05914).

  It is uniform within ±alpha / sqrt(L D), where L is the number of tokens of the conversation that
  a token is in, and D is `embed_dim`.
  """
  ones_BT = jnp.ones(segment_ids_BT.shape, jnp.float32)
  length_BT = _over_conversations(ones_BT, segment_ids_BT)
  uniform_BTD = jax.random.uniform(key, (*segment_ids_BT.shape, embed_dim), minval=-1, maxval=1)
  return uniform_BTD * (alpha / jnp.sqrt(length_BT * embed_dim))[..., None]


def _over_conversations(x_BT: jax.Array, segment_ids_BT: jax.Array) -> jax.Array:
  """Returns for each token the sum of x over the conversation that it is in."""
  num_segments = x_BT.shape[1] + 1  # A row has at most T conversations, and padding.

  def of_row(x_T: jax.Array, segment_ids_T: jax.Array) -> jax.Array:
    return jax.ops.segment_sum(x_T, segment_ids_T, num_segments)[segment_ids_T]

  return jax.vmap(of_row)(x_BT, segment_ids_BT)
