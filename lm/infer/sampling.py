"""How the next token is drawn, as data: one compiled program serves every mix of rows.

`Sampling` says how one request is drawn, and `RowSampling` holds that for every row of a batch, as
arrays. The trainer scores with `log_probs` too (lm/stages/rl/policy_gradient.py), so that sampler
and trainer mean the same by a temperature and a ban. Axes are named in lm/model/transformer.py;
here also C, the most probable tokens of a row, and A, the alternatives that are reported.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from lm.base.errors import UserError

# Top-k and top-p first look at this many of the most probable tokens. Sorting the whole vocabulary
# takes a CPU longer than running a small model.
CANDIDATES = (64, 1024)
# Temperatures below it are 0, and penalties are above it: float32 has no quotients by less.
LEAST = 1e-6
# A token is drawn in two steps, its stretch of the vocabulary and then its place there.
STRETCH = 256


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How the tokens of one request are drawn.

  Raises UserError for a number that is not allowed.

  Attributes:
    temperature: 0, and what is below LEAST, takes the most probable token; top_k, top_p and min_p
      then do nothing.
    top_k: only the k most probable tokens can be drawn; 0 means all.
    top_p: only the most probable tokens that sum to p can be drawn, the one that crosses p included
      (arXiv 1904.09751), so that there is always one; 1 means all.
    min_p: only tokens of at least min_p times the largest probability can be drawn (arXiv
      2407.01082); 0 means all.
    repetition_penalty: positive logits of tokens that the prompt or the answer holds are divided by
      it, and negative ones multiplied (arXiv 1909.05858, as in transformers); 1 changes nothing.
    logit_bias: what is added to the logits of tokens, by id.
    banned_ids: tokens that are never drawn, whatever their logits; an array where they are many.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  repetition_penalty: float = 1.0
  logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
  banned_ids: Sequence[int] | np.ndarray = ()

  def __post_init__(self):
    def require(holds: bool, field: str, allowed: str) -> None:
      if not holds:
        raise UserError(field=field, value=getattr(self, field), allowed=allowed)

    require(0 <= self.temperature < np.inf, 'temperature', 'finite numbers of at least 0')
    require(0 <= self.top_k < 2**31, 'top_k', 'at least 0, where 0 means all tokens')
    require(0 < self.top_p <= 1, 'top_p', 'above 0 and at most 1')
    require(0 <= self.min_p <= 1, 'min_p', 'from 0 to 1')
    is_moderate = LEAST <= self.repetition_penalty <= 1 / LEAST
    require(is_moderate, 'repetition_penalty', f'from {LEAST} to {1 / LEAST:g}')
    finite = all(map(np.isfinite, self.logit_bias.values()))
    require(finite, 'logit_bias', 'finite numbers')

  def bias(self, vocab_size: int) -> np.ndarray:
    """Returns what is added to the logits, float32 [V]: the bias, and -inf where tokens are banned.

    Raises:
      UserError: an id is not one of the vocabulary's.
    """
    bias_V = np.zeros(vocab_size, np.float32)
    biased, banned = (np.asarray(ids, int) for ids in (list(self.logit_bias), self.banned_ids))
    for field, ids in (('logit_bias', biased), ('banned_ids', banned)):
      outside = ids[(ids < 0) | (ids >= vocab_size)]
      if len(outside):
        allowed = f'ids from 0 to {vocab_size - 1}'
        raise UserError(field=field, value=int(outside[0]), allowed=allowed)
    bias_V[biased] = list(self.logit_bias.values())
    bias_V[banned] = -np.inf
    return bias_V


@struct.dataclass
class RowSampling:
  """How each row draws its next tokens; the fields are those of `Sampling`.

  Arrays of one row stand for all rows.

  Attributes:
    bias_BV: float32, added to the logits; -inf for tokens that are never drawn.
    seen_BV: bool, True for the tokens that a row's prompt and answer hold.
    seeds_B2: uint32, the data of each row's random key (`jax.random.key_data`).
    num_top_B: int32, how many of the most probable tokens a row reports with each token.
  """

  temperature_B: jax.Array
  top_k_B: jax.Array
  top_p_B: jax.Array
  min_p_B: jax.Array
  repetition_penalty_B: jax.Array
  bias_BV: jax.Array
  seen_BV: jax.Array
  seeds_B2: jax.Array
  num_top_B: jax.Array

  @classmethod
  def of(cls, rows: Sequence[Sampling], vocab_size: int) -> Self:
    """Returns the arrays for these rows, without tokens seen, keys or reports."""

    def column(name: str, dtype: type) -> np.ndarray:
      return np.array([getattr(row, name) for row in rows], dtype)

    return cls(
      np.array([x.temperature if x.temperature >= LEAST else 0 for x in rows], np.float32),
      column('top_k', np.int32),
      column('top_p', np.float32),
      column('min_p', np.float32),
      column('repetition_penalty', np.float32),
      np.stack([row.bias(vocab_size) for row in rows]),
      np.zeros((len(rows), vocab_size), bool),
      np.zeros((len(rows), 2), np.uint32),
      np.zeros(len(rows), np.int32),
    )


def temper(logits_BV: jax.Array, rows: RowSampling) -> jax.Array:
  """Returns logits after the repetition penalty, the bias and the bans, at the temperature.

  At temperature 0 the logits are not divided, and the largest is taken.
  """
  penalty_B = rows.repetition_penalty_B
  is_used = (penalty_B != 1).any()

  def rest(logits_BV: jax.Array) -> jax.Array:
    temperature_B1 = jnp.where(rows.temperature_B == 0, 1, rows.temperature_B)[:, None]
    return (logits_BV + rows.bias_BV) / temperature_B1

  def all_of_it(logits_BV: jax.Array) -> jax.Array:
    return rest(_penalize(logits_BV, rows.seen_BV, penalty_B))

  if isinstance(is_used, np.bool):  # It is known now, as in the trainer's programs.
    return (all_of_it if is_used else rest)(logits_BV)
  return jax.lax.cond(is_used, all_of_it, rest, logits_BV)


def _penalize(logits_BV: jax.Array, seen_BV: jax.Array, penalty_B: jax.Array) -> jax.Array:
  """Returns logits in which the tokens that a row holds are less probable."""
  penalty_B1 = penalty_B[:, None]
  lower_BV = jnp.where(logits_BV > 0, logits_BV / penalty_B1, logits_BV * penalty_B1)
  return jnp.where(seen_BV, lower_BV, logits_BV)


def log_probs(logits_BV: jax.Array, rows: RowSampling) -> jax.Array:
  """Returns log-probabilities after `temper`: the whole policy if no other filter is used."""
  return jax.nn.log_softmax(temper(logits_BV, rows))


def filter_logits(logits_BV: jax.Array, rows: RowSampling) -> jax.Array:
  """Returns the log-probabilities that are drawn from: `temper`, top-k, then top-p and min-p."""
  return jax.nn.log_softmax(_filtered(temper(logits_BV, rows), rows))


def _filtered(logits_BV: jax.Array, rows: RowSampling) -> jax.Array:
  """Returns tempered logits with -inf for the tokens that the filters take away."""
  filtered_B = rows.temperature_B > 0
  top_k_B = jnp.where(filtered_B, rows.top_k_B, 0)
  top_p_B = jnp.where(filtered_B, rows.top_p_B, 1.0)
  min_p_B = jnp.where(filtered_B, rows.min_p_B, 0.0)
  floor_B = logits_BV.max(axis=-1) + jnp.log(min_p_B)
  filters = (
    ((top_k_B > 0).any(), _top_k, top_k_B),
    ((top_p_B < 1).any(), _top_p, top_p_B),
    ((min_p_B > 0).any(), _at_least, floor_B),
  )

  def used(logits_BV: jax.Array) -> jax.Array:
    for is_used, keep, limit_B in filters:
      logits_BV = jax.lax.cond(is_used, keep, lambda logits_BV, _: logits_BV, logits_BV, limit_B)
    return logits_BV

  # A filter that no row asks for costs nothing, or a copy where a row asks for another.
  any_used = functools.reduce(jnp.logical_or, [is_used for is_used, *_ in filters])
  return jax.lax.cond(any_used, used, lambda logits_BV: logits_BV, logits_BV)


def _at_least(logits_BV: jax.Array, floor_B: jax.Array) -> jax.Array:
  """Returns the logits with -inf below a row's floor."""
  return jnp.where(logits_BV >= floor_B[:, None], logits_BV, -jnp.inf)


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
    # The token that crosses p is kept, and the first one whatever rounding makes of p.
    kept_BC = (sum_BC - p_BC < top_p_B[:, None]) | all_B1 | (jnp.arange(count) == 0)[None]
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
  logits_BV: jax.Array, rows: RowSampling, places_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Draws the next token of each row: (token_B int32, log-probability float32 [B]).

  The log-probability is under the distribution that was drawn from; at temperature 0, under that of
  `temper`.

  Args:
    places_B: position of the token in its row. With the row's key it decides the random numbers, so
      that a row does not depend on its neighbours.
  """

  def likeliest(tempered_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
    token_B, largest_B = largest(tempered_BV)
    return token_B, -jnp.log(jnp.exp(tempered_BV - largest_B[:, None]).sum(-1))

  def mixed(tempered_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
    filtered_BV = _filtered(tempered_BV, rows)
    keys_B = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(rows.seeds_B2), places_B)
    uniform_B = jax.vmap(jax.random.uniform)(keys_B)
    likeliest_B, largest_B = largest(filtered_BV)
    weight_BV = jnp.exp(filtered_BV - largest_B[:, None])
    drawn_B = pick(weight_BV, uniform_B).astype(jnp.int32)
    token_B = jnp.where(rows.temperature_B > 0, drawn_B, likeliest_B)
    logit_B = jnp.take_along_axis(filtered_BV, token_B[:, None], axis=-1)[:, 0]
    return token_B, logit_B - largest_B - jnp.log(weight_BV.sum(-1))

  # An operand of a conditional is computed once; inside, it would be computed for each of its uses.
  is_drawn = (rows.temperature_B > 0).any()
  return jax.lax.cond(is_drawn, mixed, likeliest, temper(logits_BV, rows))


def largest(x_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the first place of each row's largest number, int32 [B], and that number.

  It is `argmax` of the stretches and then of one of them, because CPUs find the largest number
  several times as fast as its place.
  """
  x_BWC = _stretches(x_BV, -jnp.inf)
  largest_BW = x_BWC.max(-1)
  stretch_B = jnp.argmax(largest_BW, axis=-1)
  inside_BC = jnp.take_along_axis(x_BWC, stretch_B[:, None, None], axis=1)[:, 0]
  token_B = stretch_B * STRETCH + jnp.argmax(inside_BC, axis=-1)
  return token_B.astype(jnp.int32), largest_BW.max(-1)


def _stretches(x_BV: jax.Array, fill: float) -> jax.Array:
  """Returns the numbers of each row by stretches of the vocabulary, [B, W, C], filled up."""
  B, V = x_BV.shape
  padded_BV = jnp.pad(x_BV, ((0, 0), (0, -V % STRETCH)), constant_values=fill)
  return padded_BV.reshape(B, -1, STRETCH)


def pick(p_BV: jax.Array, uniform_B: jax.Array) -> jax.Array:
  """Returns the token of each row at which its running sum passes a share of the whole sum.

  One random number a row is enough, and the sum runs over stretches of the vocabulary and then
  inside one of them, so that the vocabulary is read once.

  Args:
    p_BV: probabilities, of any sum; a token of probability 0 is never picked.
    uniform_B: numbers of at least 0 and below 1.
  """
  p_BWC = _stretches(p_BV, 0)

  def passed(p_BC: jax.Array, target_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the first place whose running sum is above the target, and the sum before it."""
    sum_BC = jnp.cumsum(p_BC, axis=-1)
    places_C = jnp.arange(p_BC.shape[-1])[None]
    last_B = jnp.where(p_BC > 0, places_C, 0).max(-1)  # Where rounding leaves none above it.
    place_B = jnp.minimum((sum_BC <= target_B[:, None]).sum(-1), last_B)
    before_BC = sum_BC - p_BC
    return place_B, jnp.take_along_axis(before_BC, place_B[:, None], axis=-1)[:, 0]

  sum_BW = p_BWC.sum(-1)
  target_B = uniform_B * sum_BW.sum(-1)
  stretch_B, before_B = passed(sum_BW, target_B)
  inside_BC = jnp.take_along_axis(p_BWC, stretch_B[:, None, None], axis=1)[:, 0]
  return stretch_B * STRETCH + passed(inside_BC, target_B - before_B)[0]


def top(logits_BV: jax.Array, tokens_B: jax.Array, count: int) -> tuple[jax.Array, ...]:
  """Returns the model's own log-probabilities of tokens and of the most probable ones.

  Nothing of `RowSampling` is applied.

  Returns:
    (log_probs_B of `tokens_B`, ids_BA, log_probs_BA), with the most probable first.
  """
  log_p_BV = jax.nn.log_softmax(logits_BV)
  log_p_B = jnp.take_along_axis(log_p_BV, tokens_B[:, None], axis=-1)[:, 0]
  top_BA, ids_BA = jax.lax.top_k(log_p_BV, min(count, log_p_BV.shape[-1]))
  return log_p_B, ids_BA.astype(jnp.int32), top_BA
