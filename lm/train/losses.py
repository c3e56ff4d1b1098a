"""Losses as (sum, weight): only the step divides, after summing microbatches and devices.

The logits are the widest arrays of a step, so they exist for a chunk of the tokens at a time. Of
conversations and sampled answers many tokens have no weight. On one device each row's tokens are
put in an order that begins with those that have one, and chunks without any are passed over.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lm.model.attention.reference import softcap
from lm.model.products import is_one_device, outer_product

# Of chunks that may be passed over. Products of fewer tokens are slow: each of them reads the head
# and adds to its gradient.
FEWEST_TOKENS = 256


def num_chunks(rows: int, length: int, chunk: int, is_sparse: bool) -> int:
  """Returns the number of chunks that tokens [rows, length] are cut into, along their rows.

  Args:
    rows: rows of a microbatch.
    length: tokens of a row.
    chunk: the most tokens of a chunk, `config.loss.chunk`; a position of every row at least.
    is_sparse: whether chunks without weights are passed over. Then a chunk is at most an eighth of
      the tokens, so that little is computed in vain where the last one is almost empty.
  """
  if is_sparse:
    chunk = min(chunk, max(FEWEST_TOKENS, rows * length // 8))
  return -(-length // max(1, chunk // rows))


def _chunks(x: jax.Array, n: int) -> jax.Array:
  """Returns [n, B, c, ...] from [B, T, ...]: c positions of all rows at a time.

  The last chunk is padded with zeros. The rows stay whole, so that arrays that are sharded over
  devices by rows stay where they are.
  """
  B, T = x.shape[:2]
  c = -(-T // n)
  x = jnp.pad(x, [(0, 0), (0, n * c - T), *[(0, 0)] * (x.ndim - 2)])
  return jnp.moveaxis(x.reshape(B, n, c, *x.shape[2:]), 1, 0)


def _joined(x: jax.Array, length: int) -> jax.Array:
  """Returns [B, T, ...] from [n, B, c, ...]: the inverse of `_chunks`, without its padding."""
  n, B, c = x.shape[:3]
  return jnp.moveaxis(x, 0, 1).reshape(B, n * c, *x.shape[3:])[:, :length]


def _weighted_first(weights_BT):
  """Returns the order of each row's tokens that begins with those that have a weight, [B, T]."""
  return jnp.argsort(weights_BT == 0, axis=1, stable=True)


def _in_order(x, order_BT):
  """Returns the tokens of x, [B, T] or [B, T, D], in another order."""
  return jnp.take_along_axis(x, order_BT.reshape(*order_BT.shape, *[1] * (x.ndim - 2)), axis=1)


@jax.custom_vjp
def _head_product(x_BTD, head_VD):
  return jnp.einsum('btd,vd->btv', x_BTD, head_VD, preferred_element_type=jnp.float32)


def _head_product_forward(x_BTD, head_VD):
  return _head_product(x_BTD, head_VD), (x_BTD, head_VD)


def _head_product_backward(kept, dlogits_BTV):
  """Returns the gradients. Both products read one array of the gradient of the logits.

  XLA for CPUs would otherwise compute it a second time, in transposed order, column by column.
  """
  x_BTD, head_VD = kept
  dlogits_BTV = jax.lax.optimization_barrier(dlogits_BTV.astype(x_BTD.dtype))
  dx_BTD = jnp.einsum('btv,vd->btd', dlogits_BTV, head_VD)
  return dx_BTD, outer_product(dlogits_BTV, x_BTD, head_VD.dtype)


_head_product.defvjp(_head_product_forward, _head_product_backward)


def _logits(x_BTD, head_VD, cap):
  return softcap(_head_product(x_BTD, head_VD), cap)


def _gradient(dlogits_BTV, logits_BTV, cap, dtype):
  """Returns the gradient through the softcap, in the dtype of the matrix products that follow."""
  if cap:
    dlogits_BTV *= 1 - jnp.square(logits_BTV / cap)
  return dlogits_BTV.astype(dtype)


def cross_entropy(
  x_BTD: jax.Array,
  head_VD: jax.Array,
  targets_BT: jax.Array,
  weights_BT: jax.Array,
  chunk: int,
  z_loss: float = 0.0,
  cap: float = 0.0,
  vocab_blocks: int = 0,
  is_sparse: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns weighted sums over the tokens: (total, nats, log_z_squared).

  `nats` is the next-token cross entropy alone and `log_z_squared` is the sum of log(Z)^2. Both are
  for the log and have no gradient. `total` is nats + z_loss * log_z_squared, differentiable in
  `x_BTD` and `head_VD` (first order).

  The logits of all tokens never exist at once. The work can be cut along the tokens: then the
  gradient is formed in the forward pass, while the logits are at hand, and the head is held whole.
  Or it can be cut along the vocabulary: then the logits are computed again in the backward pass,
  and no device holds more than one block of a head that is sharded over devices.

  Args:
    x_BTD: final hidden states.
    head_VD: output matrix.
    targets_BT: int32 ids.
    weights_BT: float32, 0 where there is nothing to learn.
    chunk: tokens whose logits exist at one time (a position of every row at least).
    z_loss: weight of log(Z)^2 (arXiv 2204.02311, section 5).
    cap: `softcap` of the logits; 0 means none.
    vocab_blocks: parts that the vocabulary is cut into, instead of the tokens; 0 means none.
    is_sparse: whether many weights are 0. Then chunks of tokens without weight are passed over, on
      one device and where the vocabulary is not cut.
  """
  is_sparse = is_sparse and is_one_device() and not vocab_blocks
  if is_sparse:
    order_BT = _weighted_first(weights_BT)
    x_BTD, targets_BT, weights_BT = (
      _in_order(x, order_BT) for x in (x_BTD, targets_BT, weights_BT)
    )
  if vocab_blocks:
    total, *parts = _by_vocabulary(
      x_BTD, head_VD, targets_BT, weights_BT, vocab_blocks, z_loss, cap
    )
  else:
    n = num_chunks(*targets_BT.shape, chunk, is_sparse)
    total, *parts = _by_tokens(x_BTD, head_VD, targets_BT, weights_BT, n, z_loss, cap, is_sparse)
  return total, *jax.lax.stop_gradient(parts)


def _sums(weights_BT, log_z_BT, target_BT, z_loss):
  """Returns (total, nats, log_z_squared) of tokens from log(Z) and the target's logit."""
  nats, squared = (
    jnp.sum(weights_BT * (log_z_BT - target_BT)),
    jnp.sum(weights_BT * jnp.square(log_z_BT)),
  )
  return nats + z_loss * squared, nats, squared


def _chunk_sums(x_BTD, head_VD, targets_BT, weights_BT, z_loss, cap):
  """Returns the sums of a chunk, its logits and its log(Z), which the gradient needs."""
  logits_BTV = _logits(x_BTD, head_VD, cap)
  log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
  target_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
  return _sums(weights_BT, log_z_BT, target_BT, z_loss), logits_BTV, log_z_BT


def _zeros():
  return (jnp.zeros((), jnp.float32),) * 3


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def _by_tokens(x_BTD, head_VD, targets_BT, weights_BT, n, z_loss, cap, is_sparse):
  del is_sparse  # Without a gradient nothing is passed over.

  def body(sums, args):
    return jax.tree.map(jnp.add, sums, _chunk_sums(args[0], head, *args[1:], z_loss, cap)[0]), None

  head = head_VD.astype(x_BTD.dtype)
  xs = tuple(_chunks(a, n) for a in (x_BTD, targets_BT, weights_BT))
  return jax.lax.scan(body, _zeros(), xs)[0]


def _by_tokens_forward(x_BTD, head_VD, targets_BT, weights_BT, n, z_loss, cap, is_sparse):
  head = head_VD.astype(x_BTD.dtype)

  def learn(carry, x, targets, weights):
    sums, dhead_VD = carry
    part, logits, log_z = _chunk_sums(x, head, targets, weights, z_loss, cap)
    scale = weights * (1 + 2 * z_loss * log_z)
    hit = targets[..., None] == jnp.arange(head.shape[0])[None, None]
    dlogits = jnp.exp(logits - log_z[..., None]) * scale[..., None] - jnp.where(
      hit, weights[..., None], 0.0
    )
    dlogits = _gradient(dlogits, logits, cap, x.dtype)
    dx = jnp.einsum('btv,vd->btd', dlogits, head)
    dhead_VD += outer_product(dlogits, x, jnp.float32)
    return (jax.tree.map(jnp.add, sums, part), dhead_VD), dx

  def pass_over(carry, x, targets, weights):
    del targets, weights
    return carry, jnp.zeros_like(x)

  def body(carry, args):
    if not is_sparse:
      return learn(carry, *args)
    weights = args[-1]
    return jax.lax.cond(jnp.any(weights != 0), learn, pass_over, carry, *args)

  xs = tuple(_chunks(a, n) for a in (x_BTD, targets_BT, weights_BT))
  start = _zeros(), jnp.zeros(head_VD.shape, jnp.float32)
  (sums, dhead_VD), dx = jax.lax.scan(body, start, xs)
  return sums, (_joined(dx, x_BTD.shape[1]), dhead_VD.astype(head_VD.dtype))


def _by_tokens_backward(n, z_loss, cap, is_sparse, residuals, cotangents):
  (dx_BTD, dhead_VD), (g, *_) = residuals, cotangents  # The other sums have no gradient.
  return g.astype(dx_BTD.dtype) * dx_BTD, g.astype(dhead_VD.dtype) * dhead_VD, None, None


_by_tokens.defvjp(_by_tokens_forward, _by_tokens_backward)


def _blocks(head_VD, n):
  """Returns [n, W, D] from [V, D]: block i holds the rows i, n + i, 2n + i, ...

  Each device thus contributes its share of every block.
  """
  V, D = head_VD.shape
  W = -(-V // n)
  return jnp.moveaxis(jnp.pad(head_VD, ((0, n * W - V), (0, 0))).reshape(W, n, D), 1, 0)


def _block_logits(x_BTD, block_WD, i, n, V, targets_BT, cap):
  """Returns the logits of block i, and where they are the target's.

  Logits past the end of the vocabulary are -inf.
  """
  row_11W = (jnp.arange(block_WD.shape[0]) * n + i)[None, None]
  logits_BTW = jnp.where(row_11W < V, _logits(x_BTD, block_WD, cap), -jnp.inf)
  return logits_BTW, targets_BT[..., None] == row_11W


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _by_vocabulary(x_BTD, head_VD, targets_BT, weights_BT, n, z_loss, cap):
  return _by_vocabulary_forward(x_BTD, head_VD, targets_BT, weights_BT, n, z_loss, cap)[0]


def _by_vocabulary_forward(x_BTD, head_VD, targets_BT, weights_BT, n, z_loss, cap):
  def body(carry, args):
    top_BT, sum_BT, target_BT = carry
    block_WD, i = args
    logits_BTW, hit_BTW = _block_logits(x_BTD, block_WD, i, n, head_VD.shape[0], targets_BT, cap)
    new_BT = jnp.maximum(top_BT, logits_BTW.max(-1))
    sum_BT = sum_BT * jnp.exp(top_BT - new_BT) + jnp.exp(logits_BTW - new_BT[..., None]).sum(-1)
    return (new_BT, sum_BT, target_BT + jnp.where(hit_BTW, logits_BTW, 0.0).sum(-1)), None

  zeros_BT = jnp.zeros(targets_BT.shape, jnp.float32)
  start = zeros_BT + jnp.finfo(jnp.float32).min, zeros_BT, zeros_BT
  blocks = _blocks(head_VD.astype(x_BTD.dtype), n)
  (top_BT, sum_BT, target_BT), _ = jax.lax.scan(body, start, (blocks, jnp.arange(n)))
  log_z_BT = top_BT + jnp.log(sum_BT)
  return _sums(weights_BT, log_z_BT, target_BT, z_loss), (
    x_BTD,
    head_VD,
    targets_BT,
    weights_BT,
    log_z_BT,
  )


def _by_vocabulary_backward(n, z_loss, cap, residuals, cotangents):
  (x_BTD, head_VD, targets_BT, weights_BT, log_z_BT), (g, *_) = residuals, cotangents
  scale_BT = g * weights_BT * (1 + 2 * z_loss * log_z_BT)

  def body(dx_BTD, args):
    block_WD, i = args
    logits_BTW, hit_BTW = _block_logits(x_BTD, block_WD, i, n, head_VD.shape[0], targets_BT, cap)
    dlogits_BTW = jnp.exp(logits_BTW - log_z_BT[..., None]) * scale_BT[..., None]
    dlogits_BTW -= jnp.where(hit_BTW, g * weights_BT[..., None], 0.0)
    dlogits_BTW = _gradient(
      dlogits_BTW, jnp.where(logits_BTW > -jnp.inf, logits_BTW, 0.0), cap, x_BTD.dtype
    )
    dx_BTD += jnp.einsum('btw,wd->btd', dlogits_BTW, block_WD, preferred_element_type=jnp.float32)
    # The block is whole, so that it can be summed over devices as it is.
    dblock_WD = outer_product(dlogits_BTW, x_BTD, x_BTD.dtype)
    return dx_BTD, dblock_WD.astype(head_VD.dtype)

  blocks = _blocks(head_VD.astype(x_BTD.dtype), n)
  dx_BTD, dblocks = jax.lax.scan(body, jnp.zeros(x_BTD.shape, jnp.float32), (blocks, jnp.arange(n)))
  dhead_VD = jnp.moveaxis(dblocks, 0, 1).reshape(-1, head_VD.shape[1])[: head_VD.shape[0]]
  return dx_BTD.astype(x_BTD.dtype), dhead_VD, None, None


_by_vocabulary.defvjp(_by_vocabulary_forward, _by_vocabulary_backward)


def token_log_probs(
  x_BTD: jax.Array,
  head_VD: jax.Array,
  targets_BT: jax.Array,
  weights_BT: jax.Array,
  chunk: int,
  normalize: Callable[[jax.Array], jax.Array] = jax.nn.log_softmax,
  cap: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
  """Returns each target's log-probability and each prediction's entropy, float32 [B, T].

  Both are 0 for tokens of weight 0. Differentiable by recomputation: the logits of one chunk exist
  at a time, forward and backward.

  Args:
    x_BTD, head_VD, targets_BT, chunk, cap: as for `cross_entropy`.
    weights_BT: 0 where nothing is asked; other values are not used.
    normalize: logits [C, V] -> log-probabilities, -inf where a token cannot be drawn.
  """
  head = head_VD.astype(x_BTD.dtype)

  def score(x, targets):
    logits = _logits(x, head, cap)
    log_p = normalize(logits.reshape(-1, logits.shape[-1])).reshape(logits.shape)
    # p log p is 0 at p = 0, and so is its gradient.
    drawn = jnp.where(log_p > -jnp.inf, log_p, 0.0)
    entropy = -jnp.sum(jnp.exp(log_p) * drawn, axis=-1)
    hit = targets[..., None] == jnp.arange(head.shape[0])[None, None]
    return jnp.sum(jnp.where(hit, log_p, 0.0), axis=-1), entropy

  def pass_over(x, targets):
    del x
    return (jnp.zeros(targets.shape, jnp.float32),) * 2

  is_sparse = is_one_device()

  @jax.checkpoint
  def one(x, targets, weights):
    if not is_sparse:
      return score(x, targets)
    return jax.lax.cond(jnp.any(weights != 0), score, pass_over, x, targets)

  tokens = x_BTD, targets_BT, weights_BT
  if is_sparse:
    order_BT = _weighted_first(weights_BT)
    tokens = tuple(_in_order(x, order_BT) for x in tokens)
  n = num_chunks(*targets_BT.shape, chunk, is_sparse)
  chunks = tuple(_chunks(x, n) for x in tokens)
  found = [_joined(x, targets_BT.shape[1]) for x in jax.lax.map(lambda args: one(*args), chunks)]
  if is_sparse:
    back_BT = jnp.argsort(order_BT, axis=1)
    found = [_in_order(x, back_BT) for x in found]
  log_p_BT, entropy_BT = (jnp.where(weights_BT != 0, x, 0.0) for x in found)
  return log_p_BT, entropy_BT
