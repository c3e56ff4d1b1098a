"""Attention of whole rows by one of three kernels: Splash (TPUs), cuDNN (GPUs) or the ring.

`config.model.attention` chooses the kernel, and there is no fallback. The reference implementation
for all of them, which decoding also uses, is lm/model/attention/reference.py. The axes are named in
lm/model/transformer.py.
"""

import functools

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from ml_collections import FrozenConfigDict

from lm.base.errors import UserError, unknown
from lm.model.attention import ring
from lm.parallel.sharding import BATCH

# The platform that each attention runs on. None means any platform.
PLATFORMS = {'reference': None, 'ring': None, 'splash': 'tpu', 'cudnn': 'gpu'}
LANES = 128  # The lanes of a TPU, of which blocks are multiples.
# The number that must divide the tokens of a row on one device. cuDNN is given a mask, and requires
# its sides to be even.
MULTIPLES = {'reference': 1, 'ring': 1, 'splash': LANES, 'cudnn': 2}
BLOCK = 512  # The most queries and keys of a block.


def check(config: FrozenConfigDict, platform: str) -> None:
  """Raises UserError where `config.attention` is unknown or cannot run here.

  The platform (tpu, gpu or cpu) or another field of the model can rule it out.
  """
  if config.attention not in PLATFORMS:
    raise unknown('config.model.attention', config.attention, PLATFORMS)
  needed = PLATFORMS[config.attention]
  if needed not in (None, platform):
    raise UserError(
      field='config.model.attention',
      value=config.attention,
      allowed=[name for name, where in PLATFORMS.items() if where in (None, platform)],
      message=f'The devices are {platform}; this one runs on {needed} only.',
    )
  if config.attention == 'cudnn' and config.attention_softcap:
    raise UserError(
      field='config.model.attention_softcap',
      value=config.attention_softcap,
      allowed="0, with config.model.attention 'cudnn'",
    )


def length_multiple(attention: str, context: int) -> int:
  """Returns the number that must divide the length of a row.

  Args:
    attention: a name that `config.model.attention` may have.
    context: the number of parts that the mesh splits rows into.

  Raises:
    UserError: there is no such attention.
  """
  if attention not in MULTIPLES:
    raise unknown('config.model.attention', attention, MULTIPLES)
  return MULTIPLES[attention] * context


def check_length(attention: str, mesh: Mesh | AbstractMesh, length: int) -> None:
  """Raises UserError where the mesh or the attention does not allow rows of `length` tokens."""
  multiple = length_multiple(attention, mesh.shape['context'])
  if length % multiple:
    raise UserError(
      field='config.seq_len',
      value=length,
      allowed=f'multiples of {multiple}, for config.model.attention = {attention!r} and '
      f'config.mesh.context = {mesh.shape["context"]}',
    )


def attend(
  name: str,
  q_BTNH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  segment_ids_BT: jax.Array,
  scale: float,
  cap: float,
  window: int,
  interpret: bool = False,
) -> jax.Array:
  """Returns causal attention inside the documents of each row, [B, T, N, H].

  Args:
    name: 'splash', 'cudnn' or 'ring'.
    scale, cap: as for `lm.model.attention.reference.attend`.
    window: the number of tokens that a query sees, its own included; 0 means all tokens up to it.
    interpret: whether to interpret Splash's kernel, which works on any platform; for tests.
  """
  if name == 'ring':
    return ring.attend(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, scale, cap, window)
  if name == 'cudnn':
    mask_B1TT = segment_ids_BT[:, None, :, None] == segment_ids_BT[:, None, None, :]
    return jax.nn.dot_product_attention(
      q_BTNH,
      k_BTKH,
      v_BTKH,
      mask=mask_B1TT,
      scale=scale,
      is_causal=True,
      local_window_size=(window - 1, 0) if window else None,
      implementation='cudnn',
    )
  return _splash(q_BTNH * scale, k_BTKH, v_BTKH, segment_ids_BT, cap, window, interpret)


def _splash(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, cap, window, interpret):
  """Runs Splash attention on each device.

  A device computes its own rows and heads. Under context parallelism it computes its own queries,
  with the keys of all devices.
  """
  # Pallas takes a while to import.
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
  )

  mesh = jax.sharding.get_abstract_mesh()
  T, N = q_BTNH.shape[1:3]
  shards = (1, 1) if mesh.empty else (mesh.shape['context'], mesh.shape['tensor'])
  queries = T // shards[0]
  if queries % LANES:
    raise UserError(
      field='number of queries of a row on each device',
      value=queries,
      allowed=f"multiples of {LANES}, for config.model.attention = 'splash'",
      message=f'A row has {T} tokens, and config.mesh.context is {shards[0]}.',
    )
  if window:
    mask = splash_attention_mask.LocalMask((T, T), (window - 1, 0), 0)
  else:
    mask = splash_attention_mask.CausalMask((T, T))
  block = next(size for size in range(min(BLOCK, queries), 0, -LANES) if queries % size == 0)
  kernel = splash_attention_kernel.make_splash_mha(
    splash_attention_mask.MultiHeadMask([mask] * (N // shards[1])),
    head_shards=1,
    q_seq_shards=shards[0],
    block_sizes=splash_attention_kernel.BlockSizes(
      block_q=block,
      block_kv=block,
      block_q_dkv=block,
      block_kv_dkv=block,
      block_q_dq=block,
      block_kv_dq=block,
    ),
    attn_logits_soft_cap=cap or None,
    interpret=interpret,
  )

  def local(kernel, q_BTNH, k_BSKH, v_BSKH, query_ids_BT, key_ids_BS):
    one = functools.partial(
      jax.vmap(kernel), *(x.transpose(0, 2, 1, 3) for x in (q_BTNH, k_BSKH, v_BSKH))
    )
    return one(splash_attention_kernel.SegmentIds(query_ids_BT, key_ids_BS)).transpose(0, 2, 1, 3)

  arrays = q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, segment_ids_BT
  if mesh.empty:
    return local(kernel, *arrays)
  q, kv = PartitionSpec(BATCH, 'context', 'tensor'), PartitionSpec(BATCH, None, 'tensor')
  places = q, kv, kv, PartitionSpec(BATCH, 'context'), PartitionSpec(BATCH)
  kernel_place = kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, 'context')))
  return jax.shard_map(local, in_specs=(kernel_place, *places), out_specs=q, check_vma=False)(
    kernel, *arrays
  )
