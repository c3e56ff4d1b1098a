"""Losses as (sum, weight): only the step divides, after adding up microbatches and devices."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lm.attention import softcap


def _chunks(x: jax.Array, chunk: int) -> jax.Array:
  """[B, T, ...] -> [n, c, ...]: as few parts of c <= chunk tokens as it takes, the last filled up with zeros."""
  x = x.reshape(-1, *x.shape[2:])
  n = -(-x.shape[0] // chunk)
  c = -(-x.shape[0] // n)
  return jnp.pad(x, [(0, n * c - x.shape[0]), *[(0, 0)] * (x.ndim - 1)]).reshape(n, c, *x.shape[1:])


def _joined(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """[n, c, ...] -> [B, T, ...]: what `_chunks` parted, without what it filled up with."""
  return x.reshape(-1, *x.shape[2:])[:shape[0] * shape[1]].reshape(shape)


def _logits(x_CD, head_VD, cap):
  return softcap(jnp.einsum('cd,vd->cv', x_CD, head_VD, preferred_element_type=jnp.float32), cap)


def _chunk_nll(x_CD, head_VD, targets_C, weights_C, z_loss, cap):
  """Summed loss of a chunk and the probabilities that its gradient needs."""
  logits_CV = _logits(x_CD, head_VD, cap)
  log_z_C = jax.nn.logsumexp(logits_CV, axis=-1)
  target_C = jnp.take_along_axis(logits_CV, targets_C[:, None], axis=-1)[:, 0]
  total = jnp.sum(weights_C * (log_z_C - target_C + z_loss * jnp.square(log_z_C)))
  return total, logits_CV, log_z_C


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def cross_entropy(x_BTD: jax.Array, head_VD: jax.Array, targets_BT: jax.Array, weights_BT: jax.Array,
                  chunk: int, z_loss: float = 0.0, cap: float = 0.0) -> jax.Array:
  """Weighted sum of next-token cross entropies in nats, never holding the logits of more than `chunk` tokens.

  The gradient is formed chunk by chunk in the forward pass, while the logits are at hand, so the backward pass computes
  none again. It is differentiable in `x_BTD` and `head_VD` (first order).

  Args:
    x_BTD: final hidden states.
    head_VD: output matrix.
    targets_BT: int32 ids.
    weights_BT: float32, 0 where there is nothing to learn.
    chunk: tokens.
    z_loss: weight of log(Z)^2 (arXiv 2204.02311, section 5).
    cap: `softcap` of the logits; 0: none.
  """

  def body(total, args):
    return total + _chunk_nll(args[0], head, *args[1:], z_loss, cap)[0], None

  head = head_VD.astype(x_BTD.dtype)
  xs = tuple(_chunks(a, chunk) for a in (x_BTD, targets_BT, weights_BT))
  return jax.lax.scan(body, jnp.zeros((), jnp.float32), xs)[0]


def _forward(x_BTD, head_VD, targets_BT, weights_BT, chunk, z_loss, cap):
  head = head_VD.astype(x_BTD.dtype)

  def body(carry, args):
    total, dhead_VD = carry
    x_CD, targets_C, weights_C = args
    part, logits_CV, log_z_C = _chunk_nll(x_CD, head, targets_C, weights_C, z_loss, cap)
    scale_C = weights_C * (1 + 2 * z_loss * log_z_C)
    hit_CV = targets_C[:, None] == jnp.arange(head.shape[0])[None, :]
    dlogits_CV = jnp.exp(logits_CV - log_z_C[:, None]) * scale_C[:, None] - jnp.where(hit_CV, weights_C[:, None], 0.0)
    if cap:
      dlogits_CV *= 1 - jnp.square(logits_CV / cap)
    dlogits_CV = dlogits_CV.astype(x_CD.dtype)
    dx_CD = jnp.einsum('cv,vd->cd', dlogits_CV, head)
    dhead_VD += jnp.einsum('cv,cd->vd', dlogits_CV, x_CD, preferred_element_type=jnp.float32)
    return (total + part, dhead_VD), dx_CD

  xs = tuple(_chunks(a, chunk) for a in (x_BTD, targets_BT, weights_BT))
  start = (jnp.zeros((), jnp.float32), jnp.zeros(head_VD.shape, jnp.float32))
  (total, dhead_VD), dx = jax.lax.scan(body, start, xs)
  return total, (_joined(dx, x_BTD.shape), dhead_VD.astype(head_VD.dtype))


def _backward(chunk, z_loss, cap, residuals, g):
  dx_BTD, dhead_VD = residuals
  return g.astype(dx_BTD.dtype) * dx_BTD, g.astype(dhead_VD.dtype) * dhead_VD, None, None


cross_entropy.defvjp(_forward, _backward)


def token_log_probs(x_BTD: jax.Array, head_VD: jax.Array, targets_BT: jax.Array, chunk: int,
                    normalize: Callable[[jax.Array], jax.Array] = jax.nn.log_softmax,
                    cap: float = 0.0) -> tuple[jax.Array, jax.Array]:
  """Log-probability of each target and entropy of each prediction, float32 [B, T].

  Differentiable by recomputation: the logits of one chunk exist at a time, forward and backward.

  Args:
    x_BTD, head_VD, targets_BT, chunk, cap: as for `cross_entropy`.
    normalize: logits [C, V] -> log-probabilities, -inf where a token cannot be drawn.
  """
  head = head_VD.astype(x_BTD.dtype)

  @jax.checkpoint
  def one(x_CD, targets_C):
    log_p_CV = normalize(_logits(x_CD, head, cap))
    drawn_CV = jnp.where(log_p_CV > -jnp.inf, log_p_CV, 0.0)  # p log p is 0 at p = 0, and so is its gradient
    entropy_C = -jnp.sum(jnp.exp(log_p_CV) * drawn_CV, axis=-1)
    return jnp.take_along_axis(log_p_CV, targets_C[:, None], axis=-1)[:, 0], entropy_C

  log_p, entropy = jax.lax.map(lambda args: one(*args), (_chunks(x_BTD, chunk), _chunks(targets_BT, chunk)))
  return _joined(log_p, targets_BT.shape), _joined(entropy, targets_BT.shape)
