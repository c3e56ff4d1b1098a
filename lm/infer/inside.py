"""Looks inside the model on a short text: attention weights, and the prediction of each layer.

The prediction of a layer is what the final norm and the vocabulary head make of the residual stream
behind that layer (the logit lens, nostalgebraist 2020). That of the last layer is the model's own.
Axes are named in lm/model/transformer.py; here A counts the most probable tokens at a place.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from lm.base.errors import UserError
from lm.model.apart import LAYER
from lm.model.heads import unembed
from lm.model.layers import Norm
from lm.model.transformer import Transformer

MAX_TOKENS = 128  # The longest text. Every layer keeps its weights, which grow with the square.
SHORTEST = 16  # Texts are padded to this length or a doubling of it: a program for each length.
GUESSES = 5


@dataclasses.dataclass(frozen=True)
class Inside:
  """What one reading of a text shows.

  Attributes:
    weights_NTS: attention of one layer: how much of head n's output at token t is read from token
      s; 0 for later tokens.
    guess_ids_LTA: the most probable next tokens behind each layer, the most probable first.
    guess_probs_LTA: their probabilities.
    entropy_LT: entropy of the whole distribution of the next token behind each layer, in nats.
  """

  weights_NTS: np.ndarray
  guess_ids_LTA: np.ndarray
  guess_probs_LTA: np.ndarray
  entropy_LT: np.ndarray


def look_inside(config: FrozenConfigDict, params: Any, tokens: Sequence[int], layer: int) -> Inside:
  """Reads a text without a cache and returns what happens inside.

  Args:
    config: the model's.
    params: its parameters, stacked or `lm.model.apart`.
    tokens: 1 to MAX_TOKENS ids.
    layer: whose attention is returned, counted from 0.

  Raises:
    UserError: there is no such layer, or too many tokens, or none.
  """
  most = min(MAX_TOKENS, config.max_len)
  if not 0 < len(tokens) <= most:
    raise UserError(field='text', value=f'{len(tokens)} tokens', allowed=f'1 to {most} tokens')
  if not 0 <= layer < config.num_layers:
    raise UserError(field='layer', value=layer, allowed=f'0 to {config.num_layers - 1}')
  T, length = len(tokens), SHORTEST
  while length < T:
    length *= 2
  # No token sees the padding behind it.
  tokens_1T = np.zeros((1, min(length, config.max_len)), np.int32)
  tokens_1T[0, :T] = tokens
  weights_NTS, ids_LTA, probs_LTA, entropy_LT = map(
    np.asarray, _read(config, params, tokens_1T, np.int32(layer))
  )
  return Inside(weights_NTS[:, :T, :T], ids_LTA[:, :T], probs_LTA[:, :T], entropy_LT[:, :T])


@functools.partial(jax.jit, static_argnums=0)
def _read(
  config: FrozenConfigDict, params: Any, tokens_1T: jax.Array, layer: jax.Array
) -> tuple[jax.Array, ...]:
  """Returns the arrays of `Inside`, of all tokens."""
  _, seen = Transformer(config).apply({'params': params}, tokens_1T, mutable=['inside'])
  layers = seen['inside'].get('layers')
  if layers is None:  # The layers are apart.
    each = [seen['inside'][LAYER.format(number)] for number in range(config.num_layers)]
    layers = jax.tree.map(lambda *x: jnp.stack(x), *each)
  [weights_LBNTS], [residual_LBTD] = layers['attention']['weights'], layers['residual']
  norm = Norm(config, config.norm)

  def guess(x_TD: jax.Array) -> tuple[jax.Array, ...]:
    hidden_TD = norm.apply({'params': params['final_norm']}, x_TD)
    log_p_TV = jax.nn.log_softmax(unembed(params, config, hidden_TD))
    top_TA, ids_TA = jax.lax.top_k(log_p_TV, min(GUESSES, config.vocab_size))
    entropy_T = -jnp.sum(jnp.exp(log_p_TV) * log_p_TV, axis=-1)
    return ids_TA, jnp.exp(top_TA), entropy_T

  return weights_LBNTS[layer, 0], *jax.lax.map(guess, residual_LBTD[:, 0])
