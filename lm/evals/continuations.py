"""Texts that a model writes after given prompts, for people to read."""

from collections.abc import Sequence
from typing import Any

from ml_collections import FrozenConfigDict

from lm.evals.context import Context
from lm.infer import generation
from lm.infer.sampling import Sampling
from lm.parallel import keys
from lm.train.evaluators import Result

TEMPERATURE = 0.8


class Continuations:
  """Continues `config.eval.prompts` as documents, before the first update and after the last."""

  name = 'continuations'
  at_start = True

  def __init__(self, context: Context):
    self._context = context
    self.every = context.config.steps  # Only after the last update.

  @classmethod
  def open(cls, context: Context) -> 'Continuations | None':
    """Returns the evaluator, or None where the config has no prompts."""
    return cls(context) if context.config.eval.prompts else None

  def run(self, params: Any) -> Result:
    """Returns one text for each prompt."""
    config = self._context.config
    texts = continue_texts(
      self._context.model_config,
      params,
      self._context.chat_format,
      config.eval.prompts,
      max_new_tokens=config.eval.max_new_tokens,
      seed=config.seed,
    )
    return Result(texts=texts)


def continue_texts(
  config: FrozenConfigDict,
  params: Any,
  chat_format: Any,
  prompts: Sequence[str],
  *,
  max_new_tokens: int,
  seed: int,
) -> list[dict[str, str]]:
  """Returns what a model writes after each text, as {prompt, text}.

  The tokens are drawn at TEMPERATURE.
  """
  start, tokenizer = chat_format.document_start, chat_format.tokenizer
  rows = [[start, *tokenizer.encode(p)] for p in prompts]
  longest = max(map(len, rows)) + max_new_tokens
  banned_ids = chat_format.banned_ids(config.vocab_size)
  sampling = Sampling(TEMPERATURE, banned_ids=banned_ids)
  out = generation.generate(
    config,
    params,
    rows,
    key=keys.derive(seed, 'continuations'),
    sampling=sampling,
    max_new_tokens=max_new_tokens,
    stop_ids=[start],
    capacity=longest,
  )
  return [
    {'prompt': p, 'text': tokenizer.decode(c.tokens)} for p, c in zip(prompts, out, strict=True)
  ]
