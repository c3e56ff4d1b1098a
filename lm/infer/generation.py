"""Completions of a list of prompts, as evaluation and training ask for them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from lm.infer.engine import Engine
from lm.infer.requests import Completion, Request
from lm.infer.sampling import Sampling

STEPS = 32  # The tokens of a row that one step draws: they are read only when all are complete.


def generate(
  config: FrozenConfigDict,
  params: Any,
  prompts: Sequence[Sequence[int]],
  *,
  key: jax.Array,
  sampling: Sampling | Sequence[Sampling],
  max_new_tokens: int,
  stop_ids: Sequence[int],
  capacity: int,
  repeats: int = 1,
  rows: int | None = None,
  tool: Callable[[list[int]], list[int]] | None = None,
  pause_ids: Sequence[int] = (),
  max_calls: int = 4,
) -> list[Completion]:
  """Returns each prompt's continuation to a stop token, `max_new_tokens` or a full context.

  Args:
    config: the model's.
    prompts: token ids, at least one per prompt and fewer than `capacity`.
    key: random key; completion i draws with fold_in(key, i).
    sampling: how tokens are drawn, for all completions or for each.
    capacity: the most tokens of prompt and continuation together.
    repeats: completions of each prompt, one after the other in the result. The prompt is read once.
    rows: how many completions are drawn at once; None means all.
    tool: called with the tokens of a completion, whose last is a pause token; returns the tokens to
      force in.
    pause_ids: tokens after which `tool` is called. After `max_calls` calls a completion is left
      paused and unfinished.

  Raises:
    UserError: a prompt is empty or leaves no room in the context, or the context is longer than the
      table of learned positions.
  """
  count = len(prompts) * repeats
  seeds_B2 = np.asarray(_key_data(key, jnp.arange(count)))
  ways = [sampling] * count if isinstance(sampling, Sampling) else sampling
  engine = Engine(
    config,
    params,
    rows=min(count, rows or count),
    capacity=capacity,
    steps=max(1, min(STEPS, max_new_tokens)),
  )
  handles = [
    engine.submit(
      Request(
        prompts[i // repeats],
        max_new_tokens,
        way,
        seed=seeds_B2[i],
        stop_ids=stop_ids,
        pause_ids=pause_ids,
        tool=tool,
        max_calls=max_calls,
      )
    )
    for i, way in enumerate(ways)
  ]
  engine.run()
  return [handle.result() for handle in handles]


@jax.jit
def _key_data(key: jax.Array, numbers_B: jax.Array) -> jax.Array:
  """Returns the data of a key for each number."""
  return jax.vmap(lambda n: jax.random.key_data(jax.random.fold_in(key, n)))(numbers_B)
