"""The heads of the model, which read the final hidden states: vocabulary logits and a scalar.

config.model.heads names them. The vocabulary head is in every model: its matrix is the embedding
table, or `head` when they are not tied. The scalar head gives one number for each position: the
value of a state in reinforcement learning, or the reward of an answer, read at its last token.
Axes: see lm/model/transformer.py.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from lm.base.errors import UserError, unknown
from lm.model import tiles
from lm.model.apart import HEAD_SCALE, HEAD_TILED, LAYER
from lm.model.attention.reference import softcap
from lm.model.products import product_of_transposed

HEADS = ('vocabulary', 'scalar')
SCALAR = 'scalar_head'  # The name of the scalar head's parameter.


def check(names: tuple[str, ...]) -> None:
  """Raises UserError when config.model.heads holds something that is not allowed."""
  for name in names:
    if name not in HEADS:
      raise unknown('config.model.heads', name, HEADS)
  if 'vocabulary' not in names:
    raise UserError(
      field='config.model.heads',
      value=tuple(names),
      allowed='names of heads, vocabulary among them',
    )


def head(params: Any, config: FrozenConfigDict) -> jax.Array:
  """Returns the output matrix of `params`, [V, D]: the embedding table when they are tied.

  An int8 head (lm/model/quantize.py) is returned as the numbers that it stands for.
  """
  if HEAD_SCALE in params:
    return params['head'].astype(jnp.float32) * params[HEAD_SCALE][:, None]
  return params['embedding'] if config.tie_embeddings else params['head']


def unembed(params: Any, config: FrozenConfigDict, hidden: jax.Array) -> jax.Array:
  """Returns float32 logits [..., V] of final hidden states [..., D]."""
  if HEAD_TILED in params:
    logits = tiles.product(hidden, params[HEAD_TILED], config.vocab_size)
    logits *= jnp.expand_dims(params[HEAD_SCALE], range(logits.ndim - 1))
    return softcap(logits, config.logit_softcap)
  weight_VD = head(params, config).astype(hidden.dtype)
  if LAYER.format(0) in params:
    logits = product_of_transposed(hidden, weight_VD, jnp.float32)
  else:
    logits = jnp.einsum('...d,vd->...v', hidden, weight_VD, preferred_element_type=jnp.float32)
  return softcap(logits, config.logit_softcap)


def scalar_init(width: int) -> nn.initializers.Initializer:
  """Returns an initializer that draws from a normal distribution of variance 1 / (D + 1).

  This is the initialization of reward models (Stiennon et al., arXiv 2009.01325).
  """
  return nn.initializers.normal((width + 1) ** -0.5)


def scalar_values(params: Any, config: FrozenConfigDict, hidden: jax.Array) -> jax.Array:
  """Returns float32 values [...] of final hidden states [..., D]: their product with one vector.

  There is no bias, as in the sequence classifiers of transformers.

  Raises:
    UserError: the model has no scalar head.
  """
  if 'scalar' not in config.heads:
    raise UserError(
      field='config.model.heads',
      value=tuple(config.heads),
      allowed='names of heads, scalar among them',
      message='What is computed here needs a scalar for each position.',
    )
  weight_D = params[SCALAR].astype(hidden.dtype)
  return jnp.einsum('...d,d->...', hidden, weight_D, preferred_element_type=jnp.float32)
