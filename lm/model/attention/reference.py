"""Attention over queries and keys: an exact reference in plain JAX.

The axes are named in lm/model/transformer.py.

The backward pass keeps the logarithm of each query's sum of exponentials and computes the weights
again from it, as FlashAttention does (Dao et al., arXiv 2205.14135, algorithm 4): nothing of size T
x S lives from one pass to the other. On a CPU a few rows are computed at a time, so that what is of
that size stays in the cache of its cores.
"""

import functools

import jax
import jax.numpy as jnp

from lm.model.products import is_one_device

FEW = 8  # The most queries that see the same keys in `attend_few`.
# Four blocks of queries skip 3/8 of all scores. More would skip at most 1/8 more, and take longer
# to compile. Blocks that are smaller than these take CPUs longer than what they skip.
CAUSAL_BLOCKS, SMALLEST_BLOCK = 4, 128
# The most bytes of the scores that CPUs compute at a time, but for those of one row.
CACHED = 2 << 20


def softcap(x: jax.Array, cap: float) -> jax.Array:
  """Returns x squeezed smoothly into (-cap, cap): cap * tanh(x / cap).

  This is the softcap of Gemma 2 (arXiv 2408.00118). A cap of 0 returns x unchanged.
  """
  return cap * jnp.tanh(x / cap) if cap else x


def attend(
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  mask_BTS: jax.Array,
  scale: float,
  cap: float = 0.0,
  causal: bool = False,
) -> jax.Array:
  """Returns the softmax attention of N query heads over K key/value heads.

  K divides N. Scores and softmax are computed in float32.

  Args:
    mask_BTS: True where query t may see key s; each query must see at least one key.
    scale: of the scores.
    cap: `softcap` of the scaled scores; 0 means none.
    causal: the mask lets no query see a later key (S = T), so blocks of scores that it hides need
      not be computed.

  Returns:
    out_BTNH in the dtype of the queries.
  """
  B, T, N, _ = q_BTNH.shape
  size = block_size(T) if causal else T
  rows = B
  if jax.default_backend() == 'cpu' and is_one_device():
    bytes_of_row = 4 * N * min(size, T) * k_BSKH.shape[1]
    rows = next(n for n in range(B, 0, -1) if B % n == 0 and (n == 1 or n * bytes_of_row <= CACHED))
  return _attend_by_rows(q_BTNH * scale, k_BSKH, v_BSKH, mask_BTS, size, cap, rows)


def block_size(length: int) -> int:
  """Returns the number of queries of a block in rows of `length` tokens."""
  return max(SMALLEST_BLOCK, -(-length // CAUSAL_BLOCKS))


def attention_weights(
  q_BTNH: jax.Array, k_BSKH: jax.Array, mask_BTS: jax.Array, scale: float, cap: float = 0.0
) -> jax.Array:
  """Returns the weight that each query of each head gives to each key, [B, N, T, S] in float32.

  The arguments are those of `attend`, which never holds all weights at once.
  """
  B, T, N, _ = q_BTNH.shape
  q_BKGTH, k_BKSH, _ = heads_first(q_BTNH * scale, k_BSKH, k_BSKH)
  weights_BKGTS = jax.nn.softmax(scores(q_BKGTH, k_BKSH, mask_BTS, cap), axis=-1)
  return weights_BKGTS.reshape(B, N, T, -1)


def attend_heads_first(
  q_BTNH: jax.Array,
  k_BKSH: jax.Array,
  v_BKSH: jax.Array,
  mask_BTS: jax.Array,
  scale: float,
  cap: float = 0.0,
) -> jax.Array:
  """Returns what `attend` does, from keys and values whose heads are before the tokens.

  A cache keeps them in this order, so that they need not be transposed for every token.
  """
  q_BKGTH = queries_first(q_BTNH * scale, k_BKSH.shape[1])
  return heads_last(_forward(q_BKGTH, k_BKSH, v_BKSH, mask_BTS, q_BTNH.shape[1], cap)[0])


def attend_few(
  q_BTNH: jax.Array,
  k_BKSH: jax.Array,
  v_BKSH: jax.Array,
  mask_BTS: jax.Array,
  scale: float,
  cap: float = 0.0,
) -> jax.Array:
  """Returns what `attend_heads_first` does; on CPUs it is faster for few queries.

  The queries are the right-hand factor, so that XLA does not copy the keys into another layout: for
  32 rows of 80 tokens the scores of SmolLM2-135M take a core 12 ms a token, and 38 ms otherwise.
  """
  q_BKGTH = queries_first(q_BTNH * scale, k_BKSH.shape[1])
  B, K, G, T, H = q_BKGTH.shape
  scores_BKSX = jnp.einsum(
    'BKSH,BKXH->BKSX',
    k_BKSH,
    q_BKGTH.reshape(B, K, G * T, H),
    preferred_element_type=jnp.float32,
  )
  # Without the barrier, the compiler would swap the factors to save the transposition.
  scores_BKXS = jax.lax.optimization_barrier(scores_BKSX).swapaxes(2, 3)
  weights_BKGTS = jax.nn.softmax(_masked(scores_BKXS.reshape(B, K, G, T, -1), mask_BTS, cap))
  out_BKGTH = jnp.einsum(
    'BKGTS,BKSH->BKGTH',
    weights_BKGTS.astype(v_BKSH.dtype),
    v_BKSH,
    preferred_element_type=jnp.float32,
  )
  return heads_last(out_BKGTH.astype(q_BTNH.dtype))


def queries_first(q_BTNH: jax.Array, num_kv_heads: int) -> jax.Array:
  """Returns q_BKGTH: queries by the head of the keys that they see."""
  B, T, _, H = q_BTNH.shape
  return q_BTNH.reshape(B, T, num_kv_heads, -1, H).transpose(0, 2, 3, 1, 4)


def heads_first(
  q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns (q_BKGTH, k_BKSH, v_BKSH), transposed from arrays with the heads behind the tokens.

  The products are then batches of plain matrices, which CPUs multiply much faster.
  """
  q_BKGTH = queries_first(q_BTNH, k_BSKH.shape[2])
  return q_BKGTH, k_BSKH.transpose(0, 2, 1, 3), v_BSKH.transpose(0, 2, 1, 3)


def heads_last(out_BKGTH: jax.Array) -> jax.Array:
  """Returns out_BTNH: the inverse of `heads_first` for the output."""
  B, K, G, T, H = out_BKGTH.shape
  return out_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, K * G, H)


def _blocks(T, S, size):
  """Returns the queries of each block and the keys that they may see.

  If there is only one block, it sees all keys.
  """
  if size >= T:
    return [(slice(0, T), slice(0, S))]
  return [(slice(a, min(a + size, T)), slice(0, min(a + size, T))) for a in range(0, T, size)]


def scores(q_BKGTH: jax.Array, k_BKSH: jax.Array, mask_BTS: jax.Array, cap: float) -> jax.Array:
  """Returns the scores of scaled queries, [B, K, G, T, S] in float32.

  Masked scores are the lowest finite number.
  """
  scores_BKGTS = jnp.einsum(
    'BKGTH,BKSH->BKGTS', q_BKGTH, k_BKSH, preferred_element_type=jnp.float32
  )
  return _masked(scores_BKGTS, mask_BTS, cap)


def _masked(scores_BKGTS: jax.Array, mask_BTS: jax.Array, cap: float) -> jax.Array:
  """Returns the softcapped scores, the lowest finite number where they are masked."""
  capped_BKGTS = softcap(scores_BKGTS, cap)
  return jnp.where(mask_BTS[:, None, None], capped_BKGTS, jnp.finfo(jnp.float32).min)


def _forward(q_BKGTH, k_BKSH, v_BKSH, mask_BTS, size, cap):
  """Returns the output and, for each query, the logarithm of its sum of exponentials."""
  outs, logs = [], []
  for t, s in _blocks(*mask_BTS.shape[1:], size):
    scores_BKGTS = scores(q_BKGTH[:, :, :, t], k_BKSH[:, :, s], mask_BTS[:, t, s], cap)
    top_BKGT1 = scores_BKGTS.max(-1, keepdims=True)
    weights_BKGTS = jnp.exp(scores_BKGTS - top_BKGT1)
    sum_BKGT1 = weights_BKGTS.sum(-1, keepdims=True)
    out_BKGTH = jnp.einsum(
      'BKGTS,BKSH->BKGTH',
      weights_BKGTS.astype(v_BKSH.dtype),
      v_BKSH[:, :, s],
      preferred_element_type=jnp.float32,
    )
    outs.append((out_BKGTH / sum_BKGT1).astype(q_BKGTH.dtype))
    logs.append(top_BKGT1 + jnp.log(sum_BKGT1))
  return jnp.concatenate(outs, 3), jnp.concatenate(logs, 3)


def mean_gradient(out_BKGTH: jax.Array, dout_BKGTH: jax.Array) -> jax.Array:
  """Returns the mean of the gradients of each query's weights, [B, K, G, T, 1].

  The mean is weighted by the weights themselves, and computed in float32.
  """
  return jnp.sum(dout_BKGTH.astype(jnp.float32) * out_BKGTH.astype(jnp.float32), -1, keepdims=True)


def gradients(
  q_BKGTH: jax.Array,
  k_BKSH: jax.Array,
  v_BKSH: jax.Array,
  mask_BTS: jax.Array,
  cap: float,
  log_BKGT1: jax.Array,
  mean_BKGT1: jax.Array,
  dout_BKGTH: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns what queries and some of their keys contribute to the gradients, in float32.

  The gradients are those of the scaled queries, the keys and the values.

  Args:
    log_BKGT1: logarithm of each query's sum of exponentials, over all its keys.
    mean_BKGT1: the result of `mean_gradient`.
  """
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  scores_BKGTS = scores(q_BKGTH, k_BKSH, mask_BTS, cap)
  weights_BKGTS = jnp.exp(scores_BKGTS - log_BKGT1)
  dweights_BKGTS = product('BKGTH,BKSH->BKGTS', dout_BKGTH, v_BKSH)
  dscores_BKGTS = weights_BKGTS * (dweights_BKGTS - mean_BKGT1)
  if cap:
    dscores_BKGTS *= jnp.where(mask_BTS[:, None, None], 1 - jnp.square(scores_BKGTS / cap), 0)
  dscores_BKGTS = dscores_BKGTS.astype(q_BKGTH.dtype)
  return (
    product('BKGTS,BKSH->BKGTH', dscores_BKGTS, k_BKSH),
    product('BKGTS,BKGTH->BKSH', dscores_BKGTS, q_BKGTH),
    product('BKGTS,BKGTH->BKSH', weights_BKGTS.astype(dout_BKGTH.dtype), dout_BKGTH),
  )


def _backward(q_BKGTH, k_BKSH, v_BKSH, mask_BTS, out_BKGTH, log_BKGT1, dout_BKGTH, size, cap):
  """Returns the gradients of the scaled queries, the keys and the values."""
  mean_BKGT1 = mean_gradient(out_BKGTH, dout_BKGTH)
  dqs, dk_BKSH, dv_BKSH = (
    [],
    jnp.zeros(k_BKSH.shape, jnp.float32),
    jnp.zeros(v_BKSH.shape, jnp.float32),
  )
  for t, s in _blocks(*mask_BTS.shape[1:], size):
    q, log, mean, dout = (x[:, :, :, t] for x in (q_BKGTH, log_BKGT1, mean_BKGT1, dout_BKGTH))
    dq, dk, dv = gradients(
      q, k_BKSH[:, :, s], v_BKSH[:, :, s], mask_BTS[:, t, s], cap, log, mean, dout
    )
    dqs.append(dq.astype(q.dtype))
    dk_BKSH, dv_BKSH = dk_BKSH.at[:, :, s].add(dk), dv_BKSH.at[:, :, s].add(dv)
  return jnp.concatenate(dqs, 3), dk_BKSH.astype(k_BKSH.dtype), dv_BKSH.astype(v_BKSH.dtype)


def _in_groups(function, rows, *arrays):
  """Returns what `function` returns for arrays [B, ...], called with `rows` of their rows."""
  B = arrays[0].shape[0]
  if rows == B:
    return function(*arrays)
  cut = tuple(x.reshape(B // rows, rows, *x.shape[1:]) for x in arrays)
  results = jax.lax.map(lambda xs: function(*xs), cut)
  return tuple(x.reshape(B, *x.shape[2:]) for x in results)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attend_by_rows(q_BTNH, k_BSKH, v_BSKH, mask_BTS, size, cap, rows):
  """Returns attention computed in blocks of `size` queries of `rows` rows; queries are scaled."""
  return _forward_by_rows(q_BTNH, k_BSKH, v_BSKH, mask_BTS, size, cap, rows)[0]


def _forward_by_rows(q_BTNH, k_BSKH, v_BSKH, mask_BTS, size, cap, rows):

  def some(q_BTNH, k_BSKH, v_BSKH, mask_BTS):
    out_BKGTH, log_BKGT1 = _forward(*heads_first(q_BTNH, k_BSKH, v_BSKH), mask_BTS, size, cap)
    return heads_last(out_BKGTH), log_BKGT1

  out_BTNH, log_BKGT1 = _in_groups(some, rows, q_BTNH, k_BSKH, v_BSKH, mask_BTS)
  return out_BTNH, (q_BTNH, k_BSKH, v_BSKH, mask_BTS, out_BTNH, log_BKGT1)


def _backward_by_rows(size, cap, rows, kept, dout_BTNH):

  def some(q_BTNH, k_BSKH, v_BSKH, mask_BTS, out_BTNH, log_BKGT1, dout_BTNH):
    K = k_BSKH.shape[2]
    dq_BKGTH, *dkv = _backward(
      *heads_first(q_BTNH, k_BSKH, v_BSKH),
      mask_BTS,
      queries_first(out_BTNH, K),
      log_BKGT1,
      queries_first(dout_BTNH, K),
      size,
      cap,
    )
    return heads_last(dq_BKGTH), *(x_BKSH.transpose(0, 2, 1, 3) for x_BKSH in dkv)

  return *_in_groups(some, rows, *kept, dout_BTNH), None


_attend_by_rows.defvjp(_forward_by_rows, _backward_by_rows)
