"""How the next token is drawn, as data: one compiled program serves every mix of rows.

Temperature, top-k, top-p, min-p, bans, forced tokens and random keys are arrays with an entry for
each row. The trainer scores with `log_probs` too (lm/stages/rl/policy_gradient.py), so that sampler
and trainer mean the same by a temperature and a ban. Axes are named in lm/model/transformer.py;
here also F, the places of a queue of forced tokens, and C, the most probable tokens of a row.
"""

from collections.abc import Callable, Sequence
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from lm.base.errors import UserError

# Top-k and top-p first look at this many of the most probable tokens. Sorting the whole vocabulary
# takes a CPU longer than running a small model.
CANDIDATES = (64, 1024)


@struct.dataclass
class Sampling:
  """How each row draws its next tokens; `create` makes one.

  Arrays of one row stand for all rows.

  Attributes:
    temperature_B: float32; 0 takes the most probable token, and the other filters do nothing.
    top_k_B: int32; only the k most probable tokens can be drawn; 0 means all.
    top_p_B: float32; only the most probable tokens that sum to p can be drawn, the one that crosses
      p included (arXiv 1904.09751); 1 means all.
    min_p_B: float32; only tokens of at least min_p times the largest probability can be drawn
      (arXiv 2407.01082); 0 means all.
    banned_BV: bool, True for tokens that are never drawn, whatever their logits. [1, V] for all
      rows or [B, V].
    forced_BF: int32, tokens that a row takes, in this order, before it draws any. They are read as
      if they had been drawn, but no log-probability, budget or end token is looked at.
    num_forced_B: int32, how many of the F places of `forced_BF` are taken.
    keys_B: random keys; None until `for_rows`.
  """

  temperature_B: jax.Array
  top_k_B: jax.Array
  top_p_B: jax.Array
  min_p_B: jax.Array
  banned_BV: jax.Array
  forced_BF: jax.Array
  num_forced_B: jax.Array
  keys_B: jax.Array | None = None

  @classmethod
  def create(
    cls,
    temperature: float | Sequence[float] = 1.0,
    *,
    top_k: int | Sequence[int] = 0,
    top_p: float | Sequence[float] = 1.0,
    min_p: float | Sequence[float] = 0.0,
  ) -> Self:
    """Returns a Sampling without bans or forced tokens.

    Args:
      temperature, top_k, top_p, min_p: a number for all rows, or one for each.

    Raises:
      UserError: a number that is not allowed.
    """
    fields = {'temperature': temperature, 'top_k': top_k, 'top_p': top_p, 'min_p': min_p}
    rows = {name: np.atleast_1d(np.asarray(value)) for name, value in fields.items()}
    rules = {
      'temperature': (rows['temperature'] >= 0, 'at least 0'),
      'top_k': (rows['top_k'] >= 0, 'at least 0'),
      'top_p': ((rows['top_p'] > 0) & (rows['top_p'] <= 1), 'above 0 and at most 1'),
      'min_p': ((rows['min_p'] >= 0) & (rows['min_p'] <= 1), 'from 0 to 1'),
    }
    for name, (holds, allowed) in rules.items():
      if not holds.all():
        raise UserError(field=name, value=fields[name], allowed=allowed)
    return cls(
      rows['temperature'].astype(np.float32),
      rows['top_k'].astype(np.int32),
      rows['top_p'].astype(np.float32),
      rows['min_p'].astype(np.float32),
      np.zeros((1, 1), bool),
      np.zeros((1, 0), np.int32),
      np.zeros(1, np.int32),
    )

  def ban(self, ids: Sequence[int], vocab_size: int) -> Self:
    """Returns a copy that never draws `ids`, nor what was banned before."""
    return self.replace(banned_BV=self.banned_BV | token_set(ids, vocab_size)[None])

  def force(self, rows: Sequence[Sequence[int]], size: int) -> Self:
    """Returns a copy that takes the tokens of `rows` first.

    Args:
      rows: token ids, for each row, at most `size`.
      size: places of the queue. Queues of one size share a compiled program.
    """
    forced_BF = np.zeros((len(rows), size), np.int32)
    for queue, row in zip(forced_BF, rows, strict=True):
      queue[: len(row)] = row
    return self.replace(
      forced_BF=forced_BF, num_forced_B=np.array([len(row) for row in rows], np.int32)
    )

  def for_rows(self, batch_size: int, vocab_size: int, keys_B: jax.Array) -> Self:
    """Returns a copy with an entry for each of `batch_size` rows, and these random keys."""
    rows = {
      name: np.broadcast_to(getattr(self, name), (batch_size, *getattr(self, name).shape[1:]))
      for name in ('temperature_B', 'top_k_B', 'top_p_B', 'min_p_B', 'forced_BF', 'num_forced_B')
    }
    banned_BV = np.broadcast_to(self.banned_BV, (self.banned_BV.shape[0], vocab_size))
    return self.replace(**rows, banned_BV=banned_BV, keys_B=keys_B)


def token_set(ids: Sequence[int], vocab_size: int) -> np.ndarray:
  """Returns a bool [V] that is True at `ids`."""
  chosen = np.zeros(vocab_size, bool)
  chosen[list(ids)] = True
  return chosen


def temper(logits_BV: jax.Array, sampling: Sampling) -> jax.Array:
  """Returns logits at the temperature and without the banned tokens.

  At temperature 0 nothing but the bans is applied: these are the model's own logits, of which the
  largest is taken.
  """
  temperature_B1 = jnp.where(sampling.temperature_B == 0, 1, sampling.temperature_B)[:, None]
  return jnp.where(sampling.banned_BV, -jnp.inf, logits_BV / temperature_B1)


def log_probs(logits_BV: jax.Array, sampling: Sampling) -> jax.Array:
  """Returns log-probabilities after `temper`: the whole policy if no other filter is used."""
  return jax.nn.log_softmax(temper(logits_BV, sampling))


def filter_logits(logits_BV: jax.Array, sampling: Sampling) -> jax.Array:
  """Returns the log-probabilities that are drawn from: `temper`, top-k, then top-p and min-p."""
  filtered_B = sampling.temperature_B > 0
  top_k_B = jnp.where(filtered_B, sampling.top_k_B, 0)
  top_p_B = jnp.where(filtered_B, sampling.top_p_B, 1.0)
  min_p_B = jnp.where(filtered_B, sampling.min_p_B, 0.0)
  logits_BV = temper(logits_BV, sampling)
  floor_B1 = logits_BV.max(axis=-1, keepdims=True) + jnp.log(min_p_B)[:, None]
  kept_BV = logits_BV >= floor_B1
  # A filter that no row asks for costs nothing.
  logits_BV = jax.lax.cond(
    (top_k_B > 0).any(), _top_k, lambda logits_BV, _: logits_BV, logits_BV, top_k_B
  )
  logits_BV = jax.lax.cond(
    (top_p_B < 1).any(), _top_p, lambda logits_BV, _: logits_BV, logits_BV, top_p_B
  )
  return jax.nn.log_softmax(jnp.where(kept_BV, logits_BV, -jnp.inf))


def _top_k(logits_BV: jax.Array, top_k_B: jax.Array) -> jax.Array:
  """Returns the logits with -inf below the k-th largest, where k is not 0."""
  V = logits_BV.shape[-1]
  k_B = jnp.where(top_k_B > 0, jnp.minimum(top_k_B, V), 0)

  def keep_among(count: int) -> tuple[jax.Array, jax.Array]:
    sorted_BC = jax.lax.top_k(logits_BV, count)[0]
    kth_B1 = jnp.take_along_axis(sorted_BC, jnp.clip(k_B - 1, 0, count - 1)[:, None], axis=-1)
    kth_B1 = jnp.where(k_B[:, None] > 0, kth_B1, -jnp.inf)
    return jnp.where(logits_BV < kth_B1, -jnp.inf, logits_BV), k_B <= count

  return _among_enough(keep_among, V)


def _top_p(logits_BV: jax.Array, top_p_B: jax.Array) -> jax.Array:
  """Returns the logits with -inf behind the most probable tokens that sum to p.

  Rows whose p is 1 are unchanged.
  """
  B, V = logits_BV.shape
  rows_B1, all_B1 = jnp.arange(B)[:, None], (top_p_B >= 1)[:, None]
  p_BV = jax.nn.softmax(logits_BV)

  def keep_among(count: int) -> tuple[jax.Array, jax.Array]:
    order_BC = jax.lax.top_k(logits_BV, count)[1]  # Equal logits keep their order.
    p_BC = jnp.take_along_axis(p_BV, order_BC, axis=-1)
    sum_BC = jnp.cumsum(p_BC, axis=-1)
    kept_BC = (sum_BC - p_BC < top_p_B[:, None]) | all_B1  # The token that crosses p is kept.
    kept_BV = jnp.broadcast_to(all_B1, (B, V)).at[rows_B1, order_BC].set(kept_BC)
    return jnp.where(kept_BV, logits_BV, -jnp.inf), all_B1[:, 0] | (sum_BC[:, -1] >= top_p_B)

  return _among_enough(keep_among, V)


def _among_enough(
  keep_among: Callable[[int], tuple[jax.Array, jax.Array]], vocab_size: int
) -> jax.Array:
  """Returns what `keep_among` leaves, given as many of the most probable tokens as it needs.

  Args:
    keep_among: number of most probable tokens -> (logits, the rows for which they were enough).
  """
  *counts, all_tokens = [count for count in CANDIDATES if count < vocab_size] + [vocab_size]

  def attempt(counts: Sequence[int]) -> jax.Array:
    if not counts:
      return keep_among(all_tokens)[0]
    logits_BV, enough_B = keep_among(counts[0])
    return jax.lax.cond(enough_B.all(), lambda: logits_BV, lambda: attempt(counts[1:]))

  return attempt(counts)


def draw(
  logits_BV: jax.Array, sampling: Sampling, places_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Draws the next token of each row: (token_B int32, log-probability float32 [B]).

  The log-probability is under the distribution that was drawn from; at temperature 0, under the
  model's own without the banned tokens.

  Args:
    places_B: position of the token in its row. With the row's key it decides the random numbers, so
      that a row does not depend on its neighbours.
  """

  def of(token_B: jax.Array, log_p_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
    log_p_B = jnp.take_along_axis(log_p_BV, token_B[:, None], axis=-1)[:, 0]
    return token_B.astype(jnp.int32), log_p_B

  def likeliest() -> tuple[jax.Array, jax.Array]:
    log_p_BV = log_probs(logits_BV, sampling)
    return of(jnp.argmax(log_p_BV, axis=-1), log_p_BV)

  def mixed() -> tuple[jax.Array, jax.Array]:
    log_p_BV = filter_logits(logits_BV, sampling)
    keys_B = jax.vmap(jax.random.fold_in)(sampling.keys_B, places_B)
    drawn_B = jax.vmap(jax.random.categorical)(keys_B, log_p_BV)
    token_B = jnp.where(sampling.temperature_B > 0, drawn_B, jnp.argmax(log_p_BV, axis=-1))
    return of(token_B, log_p_BV)

  # Random numbers for the whole vocabulary are expensive, and greedy rows need none.
  return jax.lax.cond((sampling.temperature_B > 0).any(), mixed, likeliest)
