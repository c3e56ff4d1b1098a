"""/v1/completions: texts and tokens that a model continues."""

import asyncio
import codecs
import dataclasses
import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from lm.infer.requests import Request, Top
from lm.serve import responding
from lm.serve.answer_parts import KINDS, AnswerParts, ends_in_thought
from lm.serve.api_errors import ApiError
from lm.serve.drafting import Draft, seed_of
from lm.serve.handling import read_body
from lm.serve.responding import Meter
from lm.serve.schemas import CompletionBody
from lm.serve.service import ServedModel, Service

DEFAULT_NEW_TOKENS = 16  # as OpenAI's
Delta = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Prompt:
  """A text to continue.

  Attributes:
    ids: its tokens.
    text: its text, as `echo` returns it.
    first: where in `ids` the tokens begin that the client knows of: behind the token that begins a
      document, which is put before texts.
  """

  ids: list[int]
  text: str
  first: int


async def create_completion(request: HttpRequest) -> Response:
  """Continues prompts."""
  service: Service = request.app.state.service
  body = await read_body(request, CompletionBody)
  model = service.model(body.model)
  count = responding.check_choices('n', body.n, service)
  best_of = responding.check_choices('best_of', body.best_of, service)
  best_of = count if body.best_of is None else best_of
  if best_of < count or (body.stream and best_of > count):
    message = f'best_of is {best_of}; it must be at least n, {count}, and equal n in a stream'
    raise ApiError(400, message, param='best_of')
  new_tokens = responding.new_tokens('max_tokens', body.max_tokens, DEFAULT_NEW_TOKENS, service)
  if body.stream_options is not None and not body.stream:
    raise ApiError(400, 'stream_options needs stream', param='stream_options')
  thinking = responding.thinking_of(body, service)
  prompts = await asyncio.to_thread(_prompts, body, model, service)
  if len(prompts) * best_of > (most := service.limits.answers):
    message = (
      f'{len(prompts)} prompts with {best_of} answers each; this server gives {most} at once'
    )
    raise ApiError(400, message, param='prompt')
  sampling, seed = responding.sampling_of(body, model), responding.seed_or_random(body)
  hides = responding.hides_thoughts(model, thinking)

  def key_of(place: int, index: int) -> np.ndarray:
    # With a seed, the answers to a prompt do not depend on the other prompts. Without one, those to
    # equal prompts differ.
    return seed_of(seed, place * best_of + index if body.seed is None else index)

  requests = [
    Request(
      prompt.ids,
      new_tokens,
      sampling,
      seed=key_of(place, index),
      stop_ids=model.stop_ids,
      stop_strings=() if hides else body.stop_strings,
      token_bytes=model.chat_format.tokenizer.token_bytes,
      # The first alternative is not sent where only the tokens' own are asked for.
      num_top=0 if body.logprobs is None else max(body.logprobs, 1),
      prompt_log_probs=bool(body.echo) and body.logprobs is not None,
    )
    for place, prompt in enumerate(prompts)
    for index in range(best_of)
  ]
  drafts = responding.start_all([functools.partial(Draft, model, r) for r in requests])
  writers = [
    Choice(body, model, prompts[i // best_of], draft, thinking) for i, draft in enumerate(drafts)
  ]
  prompt_tokens = sum(len(prompt.ids) - prompt.first for prompt in prompts)
  meter = Meter(service, model, prompt_tokens, best_of)
  head = {
    'id': responding.new_id('cmpl'),
    'object': 'text_completion',
    'created': responding.now(),
    'model': model.name,
  }
  if body.stream:
    return responding.streamed(body, service, head, writers, drafts, meter)
  work = _whole(head, writers, drafts, meter, count, best_of)
  return await responding.answered(request, service, drafts, work)


class Choice:
  """One continuation of a prompt, as the changes that a stream sends."""

  def __init__(
    self, body: CompletionBody, model: ServedModel, prompt: Prompt, draft: Draft, thinking: str
  ):
    self._body, self._model, self._prompt, self._draft = body, model, prompt, draft
    self._thinking, self._offset = thinking, 0
    in_thought = ends_in_thought(model.chat_format, prompt.ids)
    self._reader = AnswerParts(
      model.chat_format,
      body.stop_strings,
      in_thought,
      stops_in=set(KINDS) - ({'think'} if responding.hides_thoughts(model, thinking) else set()),
    )
    # How many tokens were thoughts; None if that is not told.
    self.thought = None if thinking == 'withhold' else 0

  async def deltas(self, meter: Meter) -> AsyncIterator[Delta]:
    """Yields {text, logprobs, finish_reason} of each change; the last has a reason."""
    is_first = True
    async for parts in responding.read_parts(self._draft, self._reader, meter):
      if is_first and self._body.echo:
        yield await self._echo()
      is_first = False
      if self.thought is not None:
        self.thought += sum(part.tokens for part in parts if part.kind == 'think')
      shown = responding.shown_parts(parts, self._thinking)
      text = ''.join(part.text for part in shown)
      reports = [(r.token, r.top) for part in shown for r in part.reports]
      if text or (reports and self._body.logprobs is not None):
        yield await self._delta(text, reports)
    if is_first and self._body.echo:
      yield await self._echo()
    yield {'text': '', 'logprobs': None, 'finish_reason': responding.REASONS[self._draft.end]}

  async def _echo(self) -> Delta:
    """Returns the prompt as a change."""
    prompt = self._prompt
    tops: list[Top | None] = [None, *self._draft.prompt_tops]
    reports = []
    if self._body.logprobs is not None:
      reports = list(zip(prompt.ids[prompt.first :], tops[prompt.first :], strict=True))
    return await self._delta(prompt.text, reports)

  async def _delta(self, text: str, reports: Sequence[tuple[int, Top | None]]) -> Delta:
    log_probs = None
    if self._body.logprobs is not None:
      work = functools.partial(self._log_probs, reports)
      log_probs = await responding.apart(len(reports), work)
    self._offset += len(text)
    return {'text': text, 'logprobs': log_probs, 'finish_reason': None}

  def _log_probs(self, reports: Sequence[tuple[int, Top | None]]) -> dict[str, list]:
    model, count, offsets = self._model, self._body.logprobs, []
    text_of = functools.cache(functools.partial(responding.token_text, model))
    place, utf8 = self._offset, codecs.getincrementaldecoder('utf-8')('replace')
    for token, _ in reports:
      offsets.append(place)
      place += len(utf8.decode(model.chat_format.tokenizer.decode_bytes([token])))

    def alternatives(token: int, top: Top | None) -> tuple[dict | None, dict | None]:
      """Returns the log-probabilities and the ids of the alternatives, by their text."""
      if top is None or not count:
        return None, None
      found = list(zip(top.ids[:count], top.log_probs[:count], strict=True))
      if token not in top.ids[:count]:
        found.append((token, top.log_prob))
      # Of tokens that look the same, the most probable counts.
      named = [(text_of(i), i, log_prob) for i, log_prob in reversed(found)]
      log_probs = {name: responding.finite(log_prob) for name, _, log_prob in named}
      return log_probs, {name: i for name, i, _ in named}

    tops = [alternatives(token, top) for token, top in reports]
    return {
      'tokens': [text_of(token) for token, _ in reports],
      'token_logprobs': [top and responding.finite(top.log_prob) for _, top in reports],
      'top_logprobs': [log_probs for log_probs, _ in tops],
      # Beyond OpenAI's: the tokens themselves, which a later prompt may name.
      'token_ids': [token for token, _ in reports],
      'top_token_ids': [ids for _, ids in tops],
      'text_offset': offsets,
    }


async def _whole(
  head: dict[str, Any],
  writers: Sequence[Choice],
  drafts: Sequence[Draft],
  meter: Meter,
  count: int,
  best_of: int,
) -> dict[str, Any]:
  """Returns the body of a response that is not streamed."""

  async def read(writer: Choice) -> Delta:
    return _joined([delta async for delta in writer.deltas(meter)])

  try:
    answers = await responding.gathered([read(writer) for writer in writers])
  finally:
    meter.count(drafts)
  choices = []
  for first in range(0, len(answers), best_of):
    places = list(range(first, first + best_of))
    if best_of > count:
      places.sort(key=lambda i: -drafts[i].log_prob / max(drafts[i].num_tokens, 1))
    for place in places[:count]:
      choices.append({'index': len(choices)} | answers[place])
  return head | {'choices': choices, 'usage': meter.usage(drafts, responding.thought(writers))}


def _joined(deltas: Sequence[Delta]) -> Delta:
  """Returns the changes of a choice as one."""
  log_probs = [delta['logprobs'] for delta in deltas if delta['logprobs'] is not None]
  joined = None
  if log_probs:
    joined = {name: [x for part in log_probs for x in part[name]] for name in log_probs[0]}
  return {
    'text': ''.join(delta['text'] for delta in deltas),
    'logprobs': joined,
    'finish_reason': deltas[-1]['finish_reason'],
  }


def _prompts(body: CompletionBody, model: ServedModel, service: Service) -> list[Prompt]:
  """Returns the prompts of a body as tokens.

  Raises:
    ApiError: there are too many, or one does not fit in the context.
  """
  given = body.prompt
  if isinstance(given, str) or (given and isinstance(given[0], int)):
    given = [given]
  most = service.limits.prompts
  if len(given) > most:
    message = f'there are {len(given)} prompts; this server takes {most} in one request'
    raise ApiError(400, message, param='prompt')
  return [_prompt(prompt, model) for prompt in given]


def _prompt(given: str | list[int], model: ServedModel) -> Prompt:
  tokenizer = model.chat_format.tokenizer
  if isinstance(given, str):
    responding.check_text_length(len(given.encode('utf-8', 'replace')), 'prompt', model)
    prompt = Prompt([model.chat_format.document_start, *tokenizer.encode(given)], given, 1)
  else:
    if outside := [index for index in given if index >= tokenizer.vocab_size]:
      message = f'prompt has token {outside[0]}; the tokens are 0 to {tokenizer.vocab_size - 1}'
      raise ApiError(400, message, param='prompt')
    prompt = Prompt(list(given), tokenizer.decode(given), 0)
  if len(prompt.ids) >= model.context:
    message = f'the prompt has {len(prompt.ids)} tokens; the context is {model.context}'
    raise responding.too_long(message, 'prompt')
  return prompt
