"""Attention over queries and keys: an exact reference in plain JAX. Axes are named in lm/model.py."""

import jax
import jax.numpy as jnp

CAUSAL_BLOCKS = 4  # 4 skip 3/8 of all scores; more would skip at most 1/8 more and compile longer


def attend(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask_BTS: jax.Array,
           causal: bool = False) -> jax.Array:
  """Softmax attention of N query heads over K key/value heads (K divides N); scores and softmax in float32.

  Args:
    mask_BTS: True where query t may see key s; each query must see at least one key.
    causal: the mask lets no query see a later key (S = T), so blocks of scores that it hides need not be computed.

  Returns:
    out_BTNH in the dtype of the queries.
  """
  B, T, N, H = q_BTNH.shape
  if causal:
    block = max(64, -(-T // CAUSAL_BLOCKS))
    ends = [(start, min(start + block, T)) for start in range(0, T, block)]
    return jnp.concatenate(
      [attend(q_BTNH[:, a:b], k_BSKH[:, :b], v_BSKH[:, :b], mask_BTS[:, a:b, :b]) for a, b in ends], axis=1)
  K = k_BSKH.shape[2]
  # Heads go before positions: the products are then batches of plain matrices, which CPUs multiply much faster.
  q_BKGTH = (q_BTNH * H**-0.5).reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
  k_BKSH, v_BKSH = k_BSKH.transpose(0, 2, 1, 3), v_BSKH.transpose(0, 2, 1, 3)
  scores_BKGTS = jnp.einsum('BKGTH,BKSH->BKGTS', q_BKGTH, k_BKSH, preferred_element_type=jnp.float32)
  scores_BKGTS = jnp.where(mask_BTS[:, None, None], scores_BKGTS, jnp.finfo(jnp.float32).min)
  weights_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BKSH.dtype)
  out_BKGTH = jnp.einsum('BKGTS,BKSH->BKGTH', weights_BKGTS, v_BKSH)
  return out_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)
