"""Replies in a chat format, calls of the calculator answered: what evaluation and RL sample."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import FrozenConfigDict

from lm.infer import engine

Generate = Callable[[Any, Sequence[list[int]], jax.Array], list[engine.Completion]]


def make_generate(
  config: FrozenConfigDict,
  chat_format: Any,
  calculate: Callable[[str], str],
  *,
  temperature: float,
  max_new_tokens: int,
  max_len: int,
) -> Generate:
  """Returns `generate(params, prompts, key)`, which replies to prompts in the chat format.

  Args:
    config: the model's.
    chat_format: how turns are written as tokens (`data.chat.chat_formats.Format`).
    calculate: answers the calls of the calculator.
    temperature: of the draws; 0 takes the likeliest token.
    max_new_tokens: longest reply, tool outputs not counted.
    max_len: longest prompt and reply together, tokens.
  """
  sampling = engine.Sampling(temperature, banned_ids=chat_format.banned_ids(config.vocab_size))

  def generate(params, prompts, key):
    return engine.generate(
      config,
      params,
      prompts,
      key=key,
      sampling=sampling,
      max_new_tokens=max_new_tokens,
      stop_ids=chat_format.stops,
      capacity=max_len,
      tool=lambda ids: chat_format.answer_call(ids, calculate),
      pause_ids=chat_format.call_ids,
    )

  return generate
