"""Ring attention (Liu et al. 2023, arXiv 2310.01889): queries stay, keys and values travel.

A row is split into parts along the mesh axis `context`. Each device computes the softmax of its
queries over the keys that it holds, block by block, passes these keys on to the next device, and
accumulates the results in float32. No device ever holds the keys of a whole row, or more scores
than those of its queries with one block. Keys from later in the row are not computed (the last
device, which has no later keys, takes the longest), and keys that no window reaches are not sent.

The backward pass keeps each query's log-sum-exp and sends the keys around the ring again; the
gradients of keys and values travel with them (FlashAttention-2, arXiv 2307.08691, algorithm 2). The
axes are named in lm/model/transformer.py; here C counts the blocks of a part's keys.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lm.base.errors import UserError
from lm.model.attention import reference
from lm.parallel.sharding import BATCH

BLOCK = 512  # The most keys of a block.


def attend(
  q_BTNH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  segment_ids_BT: jax.Array,
  scale: float,
  cap: float,
  window: int,
) -> jax.Array:
  """Returns causal attention inside the documents of each row, [B, T, N, H].

  The arguments are those of `lm.model.attention.kernels.attend`.

  Raises UserError where the context axis of the mesh does not divide T.
  """
  mesh, T = jax.sharding.get_abstract_mesh(), q_BTNH.shape[1]
  parts = 1 if mesh.empty else mesh.shape['context']
  if T % parts:
    raise UserError(
      field='config.mesh.context',
      value=parts,
      allowed=f"a divisor of the {T} tokens of a row, for config.model.attention = 'ring'",
    )

  def local(q_BTNH, k_BSKH, v_BSKH, ids_BT):
    q_BKGTH, k_BKSH, v_BKSH = reference.heads_first(q_BTNH * scale, k_BSKH, v_BSKH)
    keys = _cut(k_BKSH, 2), _cut(v_BKSH, 2), _cut(ids_BT, 1)
    return reference.heads_last(_attend(q_BKGTH, keys, ids_BT, parts, cap, window))

  if mesh.empty:
    return local(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
  rows, heads = PartitionSpec(BATCH, 'context'), PartitionSpec(BATCH, 'context', 'tensor')
  return jax.shard_map(
    local, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False
  )(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)


def block(keys: int) -> int:
  """Returns the number of keys in a block: the largest divisor of `keys` that is at most BLOCK."""
  return next(size for size in range(min(BLOCK, keys), 0, -1) if keys % size == 0)


def stops(parts: int, part: int, window: int) -> int:
  """Returns how many of all devices hold queries that may see the keys of one device.

  The part of a row on one device is `part` tokens long.
  """
  return min(parts, 1 - (1 - window) // part) if window else parts


def _cut(x: jax.Array, axis: int) -> jax.Array:
  return jnp.moveaxis(
    x.reshape(*x.shape[:axis], -1, block(x.shape[axis]), *x.shape[axis + 1 :]), axis, 0
  )


def _travel(
  step: Callable[..., Any],
  keys: Any,
  moving: Any,
  staying: Any,
  ids_BT: jax.Array,
  parts: int,
  window: int,
) -> tuple[Any, Any]:
  """Calls `step` for each block of keys on each device that the keys reach.

  The call is `moving, staying = step(keys, moving, staying, mask_BTS)`. `moving` has blocks as the
  keys do, travels with them, and is back on its own device at the end.
  """
  T, S, last = ids_BT.shape[1], keys[2].shape[2], stops(parts, ids_BT.shape[1], window) - 1
  # Without this barrier JAX hoists the masks, which are the same in all layers, out of the loop
  # over layers, and keeps those of all blocks.
  keys, ids_BT, starts = jax.lax.optimization_barrier((keys, ids_BT, jnp.arange(0, T, S)))
  here = jax.lax.axis_index('context') if parts > 1 else 0

  def send(x, by):
    ring = [(i, (i + by) % parts) for i in range(parts)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, 'context', ring), x) if last else x

  def at(stop, keys, moving, staying):

    def one(staying, xs):
      start, keys, moving = xs
      distance_1TS = (stop * T - start + jnp.arange(T)[:, None] - jnp.arange(S)[None])[None]
      mask_BTS = (distance_1TS >= 0) & (ids_BT[:, :, None] == keys[2][:, None])
      return step(
        keys, moving, staying, mask_BTS & (distance_1TS < window) if window else mask_BTS
      )[::-1]

    def all_blocks():
      return jax.lax.scan(one, staying, (starts, keys, moving))[::-1]

    # Keys that have passed the end of the row are later than all queries of this device.
    return jax.lax.cond(here >= stop, all_blocks, lambda: (moving, staying))

  def turn(stop, carry):
    keys, moving, staying = carry
    moving, staying = at(stop, keys, moving, staying)
    return send(keys, 1), send(moving, 1), staying

  keys, moving, staying = jax.lax.fori_loop(0, last, turn, (keys, moving, staying))
  moving, staying = at(last, keys, moving, staying)
  return send(moving, -last), staying


def _forward(q_BKGTH, keys, ids_BT, parts, cap, window):

  def step(keys, _, sums, mask_BTS):
    k_BKSH, v_BKSH, _ = keys
    top_BKGT1, sum_BKGT1, out_BKGTH = sums
    scores_BKGTS = reference.scores(q_BKGTH, k_BKSH, mask_BTS, cap)
    # The weights of masked keys are 0, or become 0 as soon as the query has seen a key, which is at
    # the latest its own.
    new_BKGT1 = jnp.maximum(top_BKGT1, scores_BKGTS.max(-1, keepdims=True))
    weights_BKGTS, shrink_BKGT1 = jnp.exp(scores_BKGTS - new_BKGT1), jnp.exp(top_BKGT1 - new_BKGT1)
    added_BKGTH = jnp.einsum(
      'BKGTS,BKSH->BKGTH',
      weights_BKGTS.astype(v_BKSH.dtype),
      v_BKSH,
      preferred_element_type=jnp.float32,
    )
    sum_BKGT1 = sum_BKGT1 * shrink_BKGT1 + weights_BKGTS.sum(-1, keepdims=True)
    return (), (new_BKGT1, sum_BKGT1, out_BKGTH * shrink_BKGT1 + added_BKGTH)

  column = *q_BKGTH.shape[:-1], 1
  sums = jnp.full(column, jnp.finfo(jnp.float32).min), jnp.zeros(column), jnp.zeros(q_BKGTH.shape)
  _, (top_BKGT1, sum_BKGT1, out_BKGTH) = _travel(step, keys, (), sums, ids_BT, parts, window)
  out_BKGTH = (out_BKGTH / sum_BKGT1).astype(q_BKGTH.dtype)
  return out_BKGTH, (q_BKGTH, keys, ids_BT, out_BKGTH, top_BKGT1 + jnp.log(sum_BKGT1))


def _backward(parts, cap, window, kept, dout_BKGTH):
  q_BKGTH, keys, ids_BT, out_BKGTH, log_BKGT1 = kept
  mean_BKGT1 = reference.mean_gradient(out_BKGTH, dout_BKGTH)

  def step(keys, dkv, dq_BKGTH, mask_BTS):
    dq, *new = reference.gradients(
      q_BKGTH, *keys[:2], mask_BTS, cap, log_BKGT1, mean_BKGT1, dout_BKGTH
    )
    return jax.tree.map(jnp.add, dkv, new), dq_BKGTH + dq

  zeros = [jnp.zeros(x.shape) for x in keys[:2]]
  dkv, dq_BKGTH = _travel(step, keys, zeros, jnp.zeros(q_BKGTH.shape), ids_BT, parts, window)
  return (
    dq_BKGTH.astype(q_BKGTH.dtype),
    (*(d.astype(x.dtype) for d, x in zip(dkv, keys[:2], strict=True)), None),
    None,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _attend(q_BKGTH, keys, ids_BT, parts, cap, window):
  """Returns the attention of one device's queries, which are already scaled.

  `keys` are (k_CBKSH, v_CBKSH, ids_CBS).
  """
  return _forward(q_BKGTH, keys, ids_BT, parts, cap, window)[0]


_attend.defvjp(_forward, _backward)
