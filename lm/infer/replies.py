"""Replies in a chat format, with the calls of tools answered, as evaluation and RL sample them."""

from collections.abc import Callable
from typing import Any

from ml_collections import FrozenConfigDict

from lm.infer import generation
from lm.infer.requests import Completion
from lm.infer.sampling import Sampling

Generate = Callable[..., list[Completion]]


def make_generate(
  config: FrozenConfigDict,
  chat_format: Any,
  call_tool: Callable[[str], str],
  *,
  temperature: float,
  max_new_tokens: int,
  max_len: int,
) -> Generate:
  """Returns `generate(params, prompts, key, repeats=1)`, which replies in the chat format.

  The `repeats` replies to a prompt are consecutive.

  Args:
    config: the model's.
    chat_format: how turns are written as tokens (`data.chat.chat_formats.Format`).
    call_tool: answers the calls of tools: the text of a call to its result.
    temperature: of the draws; 0 takes the most probable token.
    max_new_tokens: longest reply, tool outputs not counted.
    max_len: longest prompt and reply together, tokens.
  """
  banned_ids = chat_format.banned_ids(config.vocab_size)
  sampling = Sampling(temperature, banned_ids=banned_ids)

  def generate(params, prompts, key, repeats=1):
    return generation.generate(
      config,
      params,
      prompts,
      key=key,
      sampling=sampling,
      max_new_tokens=max_new_tokens,
      stop_ids=chat_format.stops,
      capacity=max_len,
      repeats=repeats,
      tool=lambda ids: chat_format.answer_call(ids, call_tool),
      pause_ids=chat_format.call_ids,
    )

  return generate
