"""Jitted generation: rows of unequal length, a key/value cache, stop tokens, tool calls, per-token
log-probabilities.

Rows end at a stop token. A pause token (the end of a tool call) hands the row to the host, which
may force tokens into it (the tool's output) and let it go on. Nothing here knows what the tokens
mean.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from ml_collections import FrozenConfigDict

from lm.base.errors import UserError
from lm.model.cache import Cache, init_cache
from lm.model.transformer import Transformer, unembed
from lm.parallel import distributed


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How the next token is drawn. Temperature 0 takes the likeliest; top_k 0 and top_p 1 leave the
  distribution whole.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  # never drawn, whatever their logits: what only a tool may put in
  banned_ids: tuple[int, ...] = ()

  def __post_init__(self):
    if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
      raise UserError(
        f'{self}: temperature and top_k are at least 0, top_p is above 0 and at most 1'
      )


@struct.dataclass
class State:
  """What generation goes on from: the cache and the logits that follow each row's last token."""

  cache: Cache
  logits_BV: jax.Array


@struct.dataclass
class Decoded:
  """What one call of `decode` drew."""

  tokens_BM: jax.Array
  log_probs_BM: jax.Array
  count_B: jax.Array  # how many of the M are real


@dataclasses.dataclass
class Completion:
  """One row's continuation: sampled tokens and the tokens forced between them."""

  tokens: list[int]
  log_probs: list[float]  # under the distribution that was sampled from; 0 for forced tokens
  sampled: list[bool]  # False: forced in by a tool
  finished: bool  # ended by a stop token rather than by a limit


def filter_logits(logits_BV: jax.Array, sampling: Sampling) -> jax.Array:
  """Log-probabilities of the sampled distribution: bans, temperature, then top-k, then top-p (arXiv
  1904.09751).

  The trainer scores with it too (lm/stages/rl/policy_gradient.py), so the two agree. At temperature 0 nothing but
  the bans is applied: the model's own log-probabilities, of which the largest will be taken.
  """
  if sampling.banned_ids:
    banned_V = token_set(sampling.banned_ids, logits_BV.shape[-1])
    logits_BV = jnp.where(banned_V[None], -jnp.inf, logits_BV)
  if sampling.temperature == 0:
    return jax.nn.log_softmax(logits_BV)
  logits_BV = logits_BV / sampling.temperature
  if sampling.top_k:
    kth_B1 = jax.lax.top_k(logits_BV, min(sampling.top_k, logits_BV.shape[-1]))[0][:, -1:]
    logits_BV = jnp.where(logits_BV < kth_B1, -jnp.inf, logits_BV)
  if sampling.top_p < 1:
    order_BV = jnp.argsort(-logits_BV, axis=-1)
    p_BV = jnp.take_along_axis(jax.nn.softmax(logits_BV), order_BV, axis=-1)
    # the token that crosses top_p is kept
    drop_BV = jnp.cumsum(p_BV, axis=-1) - p_BV >= sampling.top_p
    rank_BV = jnp.argsort(order_BV, axis=-1)
    logits_BV = jnp.where(jnp.take_along_axis(drop_BV, rank_BV, axis=-1), -jnp.inf, logits_BV)
  return jax.nn.log_softmax(logits_BV)


@functools.partial(jax.jit, static_argnums=(0,), donate_argnums=(2,))
def prefill(
  config: FrozenConfigDict, params: Any, state: State, tokens_BT: jax.Array, num_B: jax.Array
) -> State:
  """Appends the first `num_B` of each row's tokens to the cache; rows with none keep their
  logits.
  """
  hidden_BTD, cache = Transformer(config).apply(
    {'params': params}, tokens_BT, cache=state.cache, num_tokens_B=num_B
  )
  last_B11 = jnp.maximum(num_B - 1, 0)[:, None, None]
  hidden_BD = jnp.take_along_axis(hidden_BTD, last_B11, axis=1)[:, 0]
  logits_BV = jnp.where((num_B > 0)[:, None], unembed(params, config, hidden_BD), state.logits_BV)
  return State(cache, logits_BV)


def start(config: FrozenConfigDict, batch_size: int, capacity: int) -> State:
  """An empty state: nothing read yet. Raises UserError where learned positions end before
  `capacity`.
  """
  if config.position == 'learned' and capacity > config.max_len:
    raise UserError(
      f'a context of {capacity} tokens was asked for; the learned positions end at max_len, '
      f'{config.max_len}'
    )
  return State(
    init_cache(config, batch_size, capacity),
    jnp.zeros((batch_size, config.vocab_size), jnp.float32),
  )


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(4,))
def decode(
  config: FrozenConfigDict,
  sampling: Sampling,
  max_new: int,
  params: Any,
  state: State,
  budget_B: jax.Array,
  ends_V: jax.Array,
  keys_B: jax.Array,
) -> tuple[State, Decoded]:
  """Samples until every row has drawn an end token, its budget, or filled the cache.

  Args:
    max_new: size of the output, tokens.
    budget_B: how many tokens each row may still draw (at most max_new; 0: the row rests).
    ends_V: True for tokens after which a row rests. The end token itself is drawn and appended.
    keys_B: a random key per row; token n of a row depends on its key, its logits and n alone, not
      on its neighbours.
  """
  model = Transformer(config)
  B = budget_B.shape[0]

  def running(state, out, ended_B):
    return (out.count_B < budget_B) & ~ended_B & (state.cache.length_B < state.cache.capacity)

  def body(carry):
    state, out, ended_B = carry
    run_B = running(state, out, ended_B)
    log_p_BV = filter_logits(state.logits_BV, sampling)
    if sampling.temperature == 0:
      token_B = jnp.argmax(log_p_BV, axis=-1)
    else:
      keys = jax.vmap(jax.random.fold_in)(keys_B, state.cache.length_B)
      token_B = jax.vmap(jax.random.categorical)(keys, log_p_BV)
    token_B = token_B.astype(jnp.int32)
    log_p_B = jnp.take_along_axis(log_p_BV, token_B[:, None], axis=-1)[:, 0]
    slot_B = jnp.where(run_B, out.count_B, max_new)  # out of range: dropped
    rows_B = jnp.arange(B)
    out = Decoded(
      out.tokens_BM.at[rows_B, slot_B].set(token_B, mode='drop'),
      out.log_probs_BM.at[rows_B, slot_B].set(log_p_B, mode='drop'),
      out.count_B + run_B.astype(jnp.int32),
    )
    hidden_B1D, cache = model.apply(
      {'params': params}, token_B[:, None], cache=state.cache, num_tokens_B=run_B.astype(jnp.int32)
    )
    logits_BV = jnp.where(
      run_B[:, None], unembed(params, config, hidden_B1D[:, 0]), state.logits_BV
    )
    return State(cache, logits_BV), out, ended_B | (run_B & ends_V[token_B])

  empty = Decoded(
    jnp.zeros((B, max_new), jnp.int32),
    jnp.zeros((B, max_new), jnp.float32),
    jnp.zeros(B, jnp.int32),
  )
  state, out, _ = jax.lax.while_loop(
    lambda carry: running(*carry).any(), body, (state, empty, jnp.zeros(B, bool))
  )
  return state, out


def pad_tokens(rows: Sequence[Sequence[int]], multiple: int) -> tuple[np.ndarray, np.ndarray]:
  """Rows of ids as int32 [B, T], padded at the end to a multiple of T, and their lengths [B]."""
  num_B = np.array([len(row) for row in rows], np.int32)
  tokens_BT = np.zeros((len(rows), max(1, -(-int(num_B.max()) // multiple)) * multiple), np.int32)
  for padded, row in zip(tokens_BT, rows, strict=True):
    padded[: len(row)] = row
  return tokens_BT, num_B


def token_set(ids: Sequence[int], vocab_size: int) -> np.ndarray:
  """bool [V], True at `ids`."""
  chosen = np.zeros(vocab_size, bool)
  chosen[list(ids)] = True
  return chosen


def generate(
  config: FrozenConfigDict,
  params: Any,
  prompts: Sequence[Sequence[int]],
  *,
  key: jax.Array,
  sampling: Sampling,
  max_new_tokens: int,
  stop_ids: Sequence[int],
  capacity: int,
  tool: Callable[[list[int]], list[int]] | None = None,
  pause_ids: Sequence[int] = (),
  max_calls: int = 4,
) -> list[Completion]:
  """Continues each prompt until a stop token, `max_new_tokens` or a full cache.

  Args:
    config: the model's.
    prompts: token ids, at least one per prompt and fewer than `capacity`.
    key: random key; row i of the batch draws with fold_in(key, i).
    capacity: tokens of prompt and continuation that the cache holds. Costs memory and time in
      proportion.
    tool: called with the tokens a row has drawn, whose last is a pause token; returns the tokens to
      force in.
    pause_ids: tokens that hand the row to `tool`. After `max_calls` calls a row is left paused and
      unfinished.

  Raises:
    UserError: a prompt that is empty or leaves no room in the cache, or a cache longer than learned
      positions go.
  """
  for i, prompt in enumerate(prompts):
    if not 0 < len(prompt) < capacity:
      raise UserError(
        f'prompt {i} has {len(prompt)} tokens; allowed: 1 to {capacity - 1} (the context is '
        f'{capacity})'
      )
  B = len(prompts)
  completions = [Completion([], [], [], False) for _ in prompts]
  ends_V = jnp.asarray(token_set([*stop_ids, *pause_ids], config.vocab_size))
  keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(B))
  state = start(config, B, capacity)
  pending, budget_B = list(prompts), np.full(B, max_new_tokens, np.int32)
  for call in range(max_calls + 1):
    tokens_BT, num_B = pad_tokens(pending, 32)
    state = prefill(config, params, state, tokens_BT, num_B)
    state, out = decode(config, sampling, max_new_tokens, params, state, budget_B, ends_V, keys_B)
    drawn, lengths_B = distributed.fetch((out, state.cache.length_B))
    pending = [[] for _ in prompts]
    for i, c in enumerate(completions):
      n = int(drawn.count_B[i])
      c.tokens += drawn.tokens_BM[i, :n].tolist()
      c.log_probs += drawn.log_probs_BM[i, :n].tolist()
      c.sampled += [True] * n
      budget_B[i] -= n
      last = c.tokens[-1] if n else None
      c.finished |= last in stop_ids
      if tool is not None and last in pause_ids and call < max_calls and budget_B[i] > 0:
        forced = tool(c.tokens)
        if len(forced) < capacity - lengths_B[i]:
          pending[i] = forced
          c.tokens, c.log_probs, c.sampled = (
            c.tokens + forced,
            c.log_probs + [0.0] * len(forced),
            c.sampled + [False] * len(forced),
          )
    budget_B = np.where([len(p) > 0 for p in pending], budget_B, 0).astype(np.int32)
    if not budget_B.any():
      break
  return completions
