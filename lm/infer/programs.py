"""The compiled programs of the engine: reading prompts into the cache, and decoding.

The shapes are those of the engine's rows and of a few buckets (`BUCKETS`, `CHUNKS`), so that the
number of compilations is bounded. How tokens are drawn is data (lm/infer/sampling.py). Axes are
named in lm/model/transformer.py; here also R, some of the B rows, F, the places of a queue of
tokens, M, the tokens of one call of `decode`, and A, the alternatives that are reported.
"""

import functools
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct
from ml_collections import FrozenConfigDict

from lm.infer import sampling
from lm.infer.requests import MAX_TOP
from lm.infer.sampling import RowSampling
from lm.model.cache import Cache, init_cache
from lm.model.heads import unembed
from lm.model.transformer import Transformer

# The tokens of a row that one call of `prefill` reads. A longer prompt takes several calls.
CHUNKS = (16, 64, 256)
# The most tokens that one call of `prefill` reads, of all its rows together, if it has several.
CHUNK_TOKENS = 512
# The size of the queue of tokens that `decode` reads; `prefill` reads more than these.
QUEUE = 4
GOES_ON, STOPS, PAUSES = 0, 1, 2  # What a token does to a row, in `Rows.ends_BV`.


@struct.dataclass
class Rows:
  """What the engine keeps on the devices.

  Attributes:
    cache: the tokens that each row has read.
    sampling: how each row draws.
    ends_BV: uint8: GOES_ON, STOPS or PAUSES, for every token that a row may draw.
  """

  cache: Cache
  sampling: RowSampling
  ends_BV: jax.Array


@struct.dataclass
class Decoded:
  """The tokens that one call of `decode` drew."""

  tokens_BM: jax.Array
  log_probs_BM: jax.Array  # Under the distribution that was drawn from.
  count_B: jax.Array  # The number of the M tokens that are real.
  fed_B: jax.Array  # The number of tokens that were read into the cache.
  # The model's own log-probabilities, of the tokens and of the most probable ones, in rows that
  # report them.
  model_log_probs_BM: jax.Array
  top_ids_BMA: jax.Array
  top_log_probs_BMA: jax.Array

  @classmethod
  def nothing(cls, num_rows: int, steps: int, alternatives: int) -> Self:
    """Returns room for `steps` tokens of each row, of which none is drawn."""
    B, M, A = num_rows, steps, alternatives
    return cls(
      tokens_BM=jnp.zeros((B, M), jnp.int32),
      log_probs_BM=jnp.zeros((B, M)),
      count_B=jnp.zeros(B, jnp.int32),
      fed_B=jnp.zeros(B, jnp.int32),
      model_log_probs_BM=jnp.zeros((B, M)),
      top_ids_BMA=jnp.zeros((B, M, A), jnp.int32),
      top_log_probs_BMA=jnp.zeros((B, M, A)),
    )

  def append(
    self,
    is_drawn_B: jax.Array,
    tokens_B: jax.Array,
    log_probs_B: jax.Array,
    reports: jax.Array,
    top: Callable[[], tuple[jax.Array, jax.Array, jax.Array]],
  ) -> Self:
    """Returns this with a token more in some rows.

    Args:
      is_drawn_B: bool: which rows.
      tokens_B, log_probs_B: what they draw.
      reports: bool: whether any row reports what `top` returns.
      top: returns what `lm.infer.sampling.top` does.
    """
    rows_B = jnp.arange(len(tokens_B))
    # Slots out of range are dropped.
    slot_B = jnp.where(is_drawn_B, self.count_B, self.tokens_BM.shape[1])

    def put(held: jax.Array, new: jax.Array) -> jax.Array:
      return held.at[rows_B, slot_B].set(new, mode='drop')

    held = self.model_log_probs_BM, self.top_ids_BMA, self.top_log_probs_BMA
    model_log_probs_BM, top_ids_BMA, top_log_probs_BMA = jax.lax.cond(
      reports, lambda: tuple(map(put, held, top())), lambda: held
    )
    return self.replace(
      tokens_BM=put(self.tokens_BM, tokens_B),
      log_probs_BM=put(self.log_probs_BM, log_probs_B),
      count_B=self.count_B + is_drawn_B.astype(jnp.int32),
      model_log_probs_BM=model_log_probs_BM,
      top_ids_BMA=top_ids_BMA,
      top_log_probs_BMA=top_log_probs_BMA,
    )


def buckets(capacity: int) -> list[int]:
  """Returns the numbers of slots that a cache of up to `capacity` tokens may have.

  They are 64, 128, 256, ... up to three quarters of `capacity`, and `capacity` itself: each of them
  compiles all programs anew.
  """
  sizes, size = [], 64
  while 4 * size <= 3 * capacity:
    sizes.append(size)
    size *= 2
  return [*sizes, capacity]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def start(
  config: FrozenConfigDict, batch_size: int, capacity: int, quantization: str, stacked: bool
) -> Rows:
  """Returns rows that have read nothing; the arguments are those of `init_cache`."""
  B, V = batch_size, config.vocab_size
  empty = RowSampling(
    temperature_B=jnp.zeros(B),
    top_k_B=jnp.zeros(B, jnp.int32),
    top_p_B=jnp.ones(B),
    min_p_B=jnp.zeros(B),
    repetition_penalty_B=jnp.ones(B),
    bias_BV=jnp.zeros((B, V)),
    seen_BV=jnp.zeros((B, V), bool),
    seeds_B2=jnp.zeros((B, 2), jnp.uint32),
    num_top_B=jnp.zeros(B, jnp.int32),
  )
  cache = init_cache(config, B, capacity, quantization, stacked)
  return Rows(cache, empty, jnp.zeros((B, V), jnp.uint8))


@functools.partial(jax.jit, donate_argnums=0)
def set_row(
  rows: Rows, row: jax.Array, length: jax.Array, drawing: RowSampling, ends_1V: jax.Array
) -> Rows:
  """Returns the rows with another request in one of them.

  Args:
    length: how many of the tokens that the row holds are kept.
    drawing: the request's arrays, of one row.
  """
  return Rows(
    rows.cache.keep(row, length),
    jax.tree.map(lambda x, new: x.at[row].set(new[0]), rows.sampling, drawing),
    rows.ends_BV.at[row].set(ends_1V[0]),
  )


@functools.partial(jax.jit, static_argnums=3, donate_argnums=0)
def copy_row(rows: Rows, source_1: jax.Array, target_1: jax.Array, capacity: int) -> Rows:
  """Returns the rows with the first `capacity` slots of a row copied into another."""
  return rows.replace(cache=rows.cache.put(target_1, rows.cache.take(source_1, capacity)))


@functools.partial(jax.jit, static_argnums=1)
def resize(rows: Rows, capacity: int) -> Rows:
  """Returns the rows with another number of slots."""
  return rows.replace(cache=rows.cache.resize(capacity))


@functools.partial(jax.jit, static_argnums=(0, 6), donate_argnums=2)
def prefill(
  config: FrozenConfigDict,
  params: Any,
  rows: Rows,
  rows_R: jax.Array,
  tokens_RT: jax.Array,
  num_R: jax.Array,
  capacity: int,
) -> Rows:
  """Returns the rows after some of them have read tokens.

  Args:
    rows_R: numbers of rows; one beyond the rows stands for none.
    tokens_RT: what they read, of which the first num_R tokens of each row are real.
    capacity: slots that hold what these rows have read and will have read.
  """
  return rows.replace(
    cache=_read(config, params, rows.cache, rows_R, tokens_RT, num_R, capacity)[1]
  )


@functools.partial(jax.jit, static_argnums=(0, 7), donate_argnums=2)
def prefill_and_score(
  config: FrozenConfigDict,
  params: Any,
  rows: Rows,
  rows_R: jax.Array,
  tokens_RT: jax.Array,
  num_R: jax.Array,
  next_RT: jax.Array,
  capacity: int,
) -> tuple[Rows, tuple[jax.Array, ...]]:
  """Returns what `prefill` does, and the model's log-probabilities of the tokens that follow.

  Args:
    next_RT: for each token the one behind it.

  Returns:
    (rows, (log_probs_RT, ids_RTA, log_probs_RTA)), as of `lm.infer.sampling.top`.
  """
  hidden_RTD, cache = _read(config, params, rows.cache, rows_R, tokens_RT, num_R, capacity)

  def score(place):
    hidden_RD, next_R = place
    return sampling.top(unembed(params, config, hidden_RD), next_R, MAX_TOP)

  # One place after the other: the logits of all places would be far larger than the model.
  scores = jax.lax.map(score, (hidden_RTD.swapaxes(0, 1), next_RT.swapaxes(0, 1)))
  return rows.replace(cache=cache), jax.tree.map(lambda x: x.swapaxes(0, 1), scores)


def _read(config, params, cache, rows_R, tokens_RT, num_R, capacity):
  """Returns (hidden states, the cache) after some rows have read tokens."""
  model = Transformer(config)
  taken = cache.take(rows_R, capacity)
  hidden_RTD, taken = model.apply({'params': params}, tokens_RT, cache=taken, num_tokens_B=num_R)
  return hidden_RTD, cache.put(rows_R, taken)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def decode(
  config: FrozenConfigDict,
  steps: int,
  params: Any,
  rows: Rows,
  queue_BF: jax.Array,
  num_queued_B: jax.Array,
  budget_B: jax.Array,
  stop_early: jax.Array,
) -> tuple[Rows, Decoded]:
  """Reads the queue of each row and draws behind it, until rows end or pause.

  A row reads a token, and once its queue is empty it draws the next one, which it reads then. The
  token drawn last is not read. All rows end after `steps` tokens, as soon as one pauses, or when
  none goes on.

  Args:
    queue_BF: the tokens that a row reads before it draws, at least one; all but the last have no
      effect but to be read.
    num_queued_B: their number; 0 for rows that are left alone.
    budget_B: how many tokens a row may draw, at most `steps`.
    stop_early: bool; whether to return as soon as a row ends, because another request waits for it.
  """
  B, V = rows.ends_BV.shape
  A, rows_B = min(MAX_TOP, V), jnp.arange(B)
  model, ends_BV = Transformer(config), rows.ends_BV

  def body(carry):
    step, _, cache, draws, out, last_B, running_B = carry
    queued_B = out.fed_B < num_queued_B
    place_B = jnp.minimum(out.fed_B, QUEUE - 1)
    token_B = jnp.where(queued_B, queue_BF[rows_B, place_B], last_B)
    hidden_B1D, cache = model.apply(
      {'params': params},
      token_B[:, None],
      cache=cache,
      num_tokens_B=running_B.astype(jnp.int32),
    )
    fed_B = out.fed_B + running_B.astype(jnp.int32)
    draw_B = running_B & (fed_B >= num_queued_B)
    logits_BV = unembed(params, config, hidden_B1D[:, 0])
    new_B, log_p_B = sampling.draw(logits_BV, draws, cache.length_B)
    seen_BV = draws.seen_BV.at[rows_B, jnp.where(draw_B, new_B, V)].set(True, mode='drop')
    top = functools.partial(sampling.top, logits_BV, new_B, A)
    out = out.append(draw_B, new_B, log_p_B, (draws.num_top_B > 0).any(), top)
    out = out.replace(fed_B=fed_B)
    what_B = jnp.where(draw_B, ends_BV[rows_B, new_B].astype(jnp.int32), GOES_ON)
    going_B = running_B & (what_B == GOES_ON) & (out.count_B < budget_B)
    halt = (what_B == PAUSES).any() | (stop_early & (running_B & ~going_B).any())
    last_B = jnp.where(draw_B, new_B, last_B)
    return step + 1, halt, cache, draws.replace(seen_BV=seen_BV), out, last_B, going_B

  running_B = (num_queued_B > 0) & (budget_B > 0)
  step, halt, last_B = jnp.zeros((), jnp.int32), jnp.zeros((), bool), jnp.zeros(B, jnp.int32)
  out = Decoded.nothing(B, steps, A)
  carry = step, halt, rows.cache, rows.sampling, out, last_B, running_B
  _, _, cache, draws, out, *_ = jax.lax.while_loop(
    lambda carry: (carry[0] < steps + QUEUE) & ~carry[1] & carry[-1].any(), body, carry
  )
  return Rows(cache, draws, ends_BV), out
