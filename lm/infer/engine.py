"""Jitted generation: prefill and decode with a key/value cache, for rows of unequal length.

It handles stop tokens, tool calls and per-token log-probabilities. `prefill` and `decode` are the
two compiled programs, `Rows` holds their state, and `generate` continues prompts by way of the tool
loop (lm/infer/tool_loop.py). How tokens are drawn is data (lm/infer/sampling.py). Nothing here
depends on what the tokens mean.
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
from lm.infer import tool_loop
from lm.infer.sampling import Sampling, draw
from lm.model.cache import Cache, init_cache
from lm.model.heads import unembed
from lm.model.transformer import Transformer
from lm.parallel import distributed

# The size of the queue of forced tokens that `decode` reads. Most results of tools are shorter. In
# a longer one, `prefill` reads the tokens before the last FORCED.
FORCED = 16
# Each call of `prefill` reads a multiple of this many tokens: with few lengths there are few
# compilations.
MULTIPLE = 32


@struct.dataclass
class State:
  """What generation continues from: the cache and the logits that follow each row's last token."""

  cache: Cache
  logits_BV: jax.Array


@struct.dataclass
class Decoded:
  """The tokens that one call of `decode` drew, without the forced tokens that it read before."""

  tokens_BM: jax.Array
  log_probs_BM: jax.Array
  count_B: jax.Array  # The number of the M tokens that are real.


@dataclasses.dataclass
class Completion:
  """The continuation of one row: sampled tokens and the tokens forced between them."""

  tokens: list[int]
  log_probs: list[float]  # Under the distribution that was sampled from; 0 for forced tokens.
  sampled: list[bool]  # False for tokens that a tool forced in.
  finished: bool  # Whether it was ended by a stop token rather than by a limit.


@functools.partial(jax.jit, static_argnums=(0,), donate_argnums=(2,))
def prefill(
  config: FrozenConfigDict, params: Any, state: State, tokens_BT: jax.Array, num_B: jax.Array
) -> State:
  """Returns the state with the first `num_B` of each row's tokens appended to the cache.

  Rows that get no tokens keep their logits.
  """
  hidden_BTD, cache = Transformer(config).apply(
    {'params': params}, tokens_BT, cache=state.cache, num_tokens_B=num_B
  )
  last_B11 = jnp.maximum(num_B - 1, 0)[:, None, None]
  hidden_BD = jnp.take_along_axis(hidden_BTD, last_B11, axis=1)[:, 0]
  logits_BV = jnp.where((num_B > 0)[:, None], unembed(params, config, hidden_BD), state.logits_BV)
  return State(cache, logits_BV)


def start(config: FrozenConfigDict, batch_size: int, capacity: int) -> State:
  """Returns an empty state, in which no row has read anything.

  Raises:
    UserError: the model has learned positions, and they end before `capacity`.
  """
  if config.position == 'learned' and capacity > config.max_len:
    raise UserError(
      field='context',
      value=capacity,
      allowed=f'at most max_len = {config.max_len} tokens, where the learned positions end',
    )
  return State(
    init_cache(config, batch_size, capacity),
    jnp.zeros((batch_size, config.vocab_size), jnp.float32),
  )


@functools.partial(jax.jit, static_argnums=(1,))
def repeat(state: State, count: int) -> State:
  """Returns a state of B * count rows: `count` consecutive copies of each row."""
  return State(state.cache.repeat(count), jnp.repeat(state.logits_BV, count, axis=0))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(3,))
def decode(
  config: FrozenConfigDict,
  max_new: int,
  params: Any,
  state: State,
  sampling: Sampling,
  budget_B: jax.Array,
  ends_V: jax.Array,
) -> tuple[State, Decoded]:
  """Samples until every row has drawn an end token, used its budget or filled the cache.

  Args:
    max_new: size of the output, tokens.
    sampling: how each row draws. A row reads its forced tokens before it draws; none of them ends
      it. Token n of a row depends on its key, its logits and n alone, not on its neighbours.
    budget_B: how many tokens each row may still draw, at most max_new. With 0 the row stops once
      its forced tokens are read.
    ends_V: True for tokens after which a row stops. The end token itself is drawn and appended.
  """
  model = Transformer(config)
  B = budget_B.shape[0]
  rows_B = jnp.arange(B)
  # The padding gives the queue at least one place to index.
  queue_BF = jnp.pad(sampling.forced_BF, ((0, 0), (0, 1)))

  def running(state, out, forced_B, ended_B):
    more_B = (forced_B < sampling.num_forced_B) | (out.count_B < budget_B)
    return more_B & ~ended_B & (state.cache.length_B < state.cache.capacity)

  def body(carry):
    state, out, forced_B, ended_B = carry
    run_B = running(*carry)
    force_B = forced_B < sampling.num_forced_B
    draw_B = run_B & ~force_B
    token_B, log_p_B = draw(state.logits_BV, sampling, state.cache.length_B)
    slot_B = jnp.where(draw_B, out.count_B, max_new)  # Slots out of range are dropped.
    out = Decoded(
      out.tokens_BM.at[rows_B, slot_B].set(token_B, mode='drop'),
      out.log_probs_BM.at[rows_B, slot_B].set(log_p_B, mode='drop'),
      out.count_B + draw_B.astype(jnp.int32),
    )
    ended_B |= draw_B & ends_V[token_B]
    token_B = jnp.where(force_B, queue_BF[rows_B, forced_B], token_B)
    hidden_B1D, cache = model.apply(
      {'params': params}, token_B[:, None], cache=state.cache, num_tokens_B=run_B.astype(jnp.int32)
    )
    logits_BV = jnp.where(
      run_B[:, None], unembed(params, config, hidden_B1D[:, 0]), state.logits_BV
    )
    forced_B += (run_B & force_B).astype(jnp.int32)
    return State(cache, logits_BV), out, forced_B, ended_B

  zeros_B = jnp.zeros(B, jnp.int32)
  out = Decoded(jnp.zeros((B, max_new), jnp.int32), jnp.zeros((B, max_new), jnp.float32), zeros_B)
  state, out, *_ = jax.lax.while_loop(
    lambda carry: running(*carry).any(), body, (state, out, zeros_B, jnp.zeros(B, bool))
  )
  return state, out


def pad_tokens(rows: Sequence[Sequence[int]], multiple: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns rows of ids as an int32 array [B, T], and their lengths [B].

  Rows are padded at the end, and T is a multiple of `multiple`.
  """
  num_B = np.array([len(row) for row in rows], np.int32)
  tokens_BT = np.zeros((len(rows), max(1, -(-int(num_B.max()) // multiple)) * multiple), np.int32)
  for padded, row in zip(tokens_BT, rows, strict=True):
    padded[: len(row)] = row
  return tokens_BT, num_B


class Rows:
  """Rows in generation: what each has read so far, and how it continues.

  Attributes:
    state: the cache and the logits that follow each row's last token.
    lengths: tokens that each row has read, forced or drawn.
  """

  def __init__(
    self,
    config: FrozenConfigDict,
    params: Any,
    *,
    batch_size: int,
    capacity: int,
    chunk: int | None = None,
  ):
    """Creates empty rows.

    Args:
      config: the model's.
      capacity: tokens that a row can hold.
      chunk: the most tokens of a row that one call of `prefill` reads; None means all at once. With
        a chunk, texts of every length run the same compiled program.

    Raises:
      UserError: the cache is longer than the table of learned positions.
    """
    self.config, self.params, self.capacity, self.chunk = config, params, capacity, chunk
    self.state = start(config, batch_size, capacity)
    self.lengths = [0] * batch_size

  def read(self, rows: Sequence[Sequence[int]]) -> None:
    """Appends tokens to the rows; some rows may get none.

    The tokens must fit into the capacity.
    """
    longest = max(map(len, rows))
    chunk = self.chunk or longest
    for i in range(0, longest, chunk):
      tokens_BT, num_B = pad_tokens([row[i : i + chunk] for row in rows], self.chunk or MULTIPLE)
      self.state = prefill(self.config, self.params, self.state, tokens_BT, num_B)
    self.lengths = [n + len(row) for n, row in zip(self.lengths, rows, strict=True)]

  def repeat(self, count: int) -> None:
    """Replaces each row by `count` copies of it."""
    if count > 1:
      self.state = repeat(self.state, count)
      self.lengths = [n for n in self.lengths for _ in range(count)]

  def draw(
    self,
    sampling: Sampling,
    ends_V: np.ndarray,
    max_new: int,
    budgets: Sequence[int],
    forced: Sequence[Sequence[int]],
  ) -> list[tool_loop.Drawn]:
    """Reads the forced tokens of each row, then draws from it; see `decode`."""
    if max(map(len, forced)) > FORCED:
      self.read([row[:-FORCED] for row in forced])
      forced = [row[-FORCED:] for row in forced]
    self.state, out = decode(
      self.config,
      max_new,
      self.params,
      self.state,
      sampling.force(forced, FORCED),
      np.asarray(budgets, np.int32),
      ends_V,
    )
    out = distributed.fetch(out)
    drawn = [
      tool_loop.Drawn(tokens[:n].tolist(), log_probs[:n].tolist())
      for tokens, log_probs, n in zip(out.tokens_BM, out.log_probs_BM, out.count_B, strict=True)
    ]
    self.lengths = [
      n + len(row) + len(one.tokens)
      for n, row, one in zip(self.lengths, forced, drawn, strict=True)
    ]
    return drawn


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
  repeats: int = 1,
  tool: Callable[[list[int]], list[int]] | None = None,
  pause_ids: Sequence[int] = (),
  max_calls: int = 4,
) -> list[Completion]:
  """Returns each prompt's continuation to a stop token, `max_new_tokens` or a full cache.

  Args:
    config: the model's.
    prompts: token ids, at least one per prompt and fewer than `capacity`.
    key: random key; row i of the completions draws with fold_in(key, i).
    sampling: how tokens are drawn, for all completions or for each; its forced tokens begin them.
    capacity: tokens of prompt and continuation that the cache holds. Memory and time are
      proportional to it.
    repeats: completions of each prompt, in consecutive rows. The prompt is read once.
    tool: called with the tokens a row has drawn, whose last is a pause token; returns the tokens to
      force in.
    pause_ids: tokens that hand the row to `tool`. After `max_calls` calls a row is left paused and
      unfinished.

  Raises:
    UserError: a prompt is empty or leaves no room in the cache, or the cache is longer than the
      table of learned positions.
  """
  longest = capacity - 1 - int(sampling.num_forced_B.max())
  for i, prompt in enumerate(prompts):
    if not 0 < len(prompt) <= longest:
      raise UserError(
        field=f'number of tokens of prompt {i}',
        value=len(prompt),
        allowed=f'from 1 to {longest}, in a context of {capacity}',
      )
  count = len(prompts) * repeats
  keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
  rows = Rows(config, params, batch_size=len(prompts), capacity=capacity)
  rows.read(prompts)
  rows.repeat(repeats)
  loop = tool_loop.ToolLoop(
    rows,
    sampling.for_rows(count, config.vocab_size, keys_B),
    max_new_tokens=max_new_tokens,
    stop_ids=stop_ids,
    pause_ids=pause_ids,
    tool=tool,
    max_calls=max_calls,
  )
  completions = [Completion([], [], [], False) for _ in range(count)]
  for pieces in loop:
    for c, piece in zip(completions, pieces, strict=True):
      c.tokens += [*piece.forced, *piece.drawn]
      c.log_probs += [0.0] * len(piece.forced) + piece.log_probs
      c.sampled += [False] * len(piece.forced) + [True] * len(piece.drawn)
  for c, end in zip(completions, loop.ends, strict=True):
    c.finished = end == 'stop'
  return completions
