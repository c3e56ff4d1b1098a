"""What both kinds of completions do: from the fields of a body to requests of the engine, and back.

The files of the two kinds are lm/serve/completions.py and lm/serve/chat_completions.py.
"""

import asyncio
import concurrent.futures
import functools
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from lm.base.choices import THINKING
from lm.infer.sampling import Sampling
from lm.serve.answer_parts import AnswerParts, Part, Report, tag_ids
from lm.serve.api_errors import ApiError
from lm.serve.drafting import Draft
from lm.serve.handling import EventStream, api_error, while_connected
from lm.serve.schemas import Body
from lm.serve.service import ServedModel, Service

T = TypeVar('T')
MOST_AT_ONCE = 256  # tokens whose log-probabilities the event loop writes in one go
_WORKER = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix='log_probs')
LEFT = 499  # the status that is counted where a client has left
# Why an answer ended, in OpenAI's words, by the engine's.
REASONS = {'stop': 'stop', 'string': 'stop', 'call': 'stop', 'length': 'length', 'full': 'length'}


def sampling_of(body: Body, model: ServedModel) -> Sampling:
  """Returns how the tokens of an answer are drawn.

  Raises:
    ApiError: logit_bias names a token that does not exist.
  """
  size = model.chat_format.tokenizer.vocab_size
  bias = {int(index): value for index, value in (body.logit_bias or {}).items()}
  if outside := [index for index in bias if index >= size]:
    message = f'logit_bias names token {outside[0]}; the tokens are 0 to {size - 1}'
    raise ApiError(400, message, param='logit_bias')
  defaults = Sampling()
  fields = ('temperature', 'top_p', 'top_k', 'min_p', 'repetition_penalty')
  given = {field: getattr(body, field) for field in fields}
  if body.top_p == 0:  # Only the most probable token is left, as with temperature 0.
    given |= {'top_p': None, 'temperature': 0.0}
  return Sampling(
    **{f: getattr(defaults, f) if value is None else value for f, value in given.items()},
    logit_bias=bias,
    banned_ids=model.banned_ids,
  )


def seed_or_random(body: Body) -> int:
  """Returns the seed of a request; without one, every request has another."""
  return secrets.randbits(63) if body.seed is None else body.seed


def thinking_of(body: Body, service: Service) -> str:
  """Returns how much of the thoughts is sent.

  Raises:
    ApiError: the request asks for more than the server allows.
  """
  if body.thinking is None:
    return service.thinking
  if THINKING.index(body.thinking) < THINKING.index(service.thinking):
    message = f'thinking: this server allows {service.thinking!r} at most'
    raise ApiError(400, message, param='thinking')
  return body.thinking


def hides_thoughts(model: ServedModel, thinking: str) -> bool:
  """Returns whether a model has thoughts that are not sent.

  Then stop strings are not looked for in them, because where an answer stops would tell of them.
  """
  return thinking in ('length', 'withhold') and bool(tag_ids(model.chat_format, 'think'))


def new_tokens(field: str, asked: int | None, default: int, service: Service) -> int:
  """Returns the most tokens of an answer.

  Raises:
    ApiError: the request asks for more than the server gives.
  """
  most = service.limits.new_tokens
  if asked is not None and most is not None and asked > most:
    raise ApiError(400, f'{field} is {asked}; this server allows at most {most}', param=field)
  asked = default if asked is None else asked
  return asked if most is None else min(asked, most)


def check_choices(field: str, asked: int | None, service: Service) -> int:
  """Returns a number of choices, 1 by default.

  Raises:
    ApiError: it is more than the server gives.
  """
  most = service.limits.choices
  if asked is not None and asked > most:
    raise ApiError(400, f'{field} is {asked}; this server allows at most {most}', param=field)
  return asked or 1


def check_text_length(size: int, field: str, model: ServedModel) -> None:
  """Raises ApiError for texts of so many bytes that no context could hold their tokens."""
  if size > (most := model.context * model.longest_token):
    message = f'the text has {size:,} bytes; the context of {model.context} tokens holds {most:,}'
    raise too_long(message, field)


def too_long(message: str, field: str) -> ApiError:
  """Returns the error for a prompt that does not fit."""
  return ApiError(400, message, param=field, code='context_length_exceeded')


def new_id(kind: str) -> str:
  """Returns the id of a response."""
  return f'{kind}-{secrets.token_hex(12)}'


def now() -> int:
  """Returns the Unix time."""
  return int(time.time())


async def answered(
  request: HttpRequest, service: Service, drafts: Sequence[Draft], work: Coroutine[Any, Any, dict]
) -> Response:
  """Returns the response to a request that is not streamed.

  If the client leaves, or it takes too long, the drafts are cancelled.

  Raises:
    ApiError: the answer could not be completed.
  """
  try:
    async with asyncio.timeout(service.limits.request_seconds):
      value = await while_connected(request.receive, work)
  except Exception as error:
    raise api_error(error) from error
  finally:
    for draft in drafts:
      draft.close()
  if value is None:
    return Response(status_code=LEFT)
  return Response(await _encoded(value), media_type='application/json')


async def apart(size: int, function: Callable[[], T]) -> T:
  """Returns `function()`, from a thread if it would keep other clients waiting.

  Large work is done one after the other, so that the event loop and the engine share the processor
  with one such thread at most.

  Args:
    size: how many tokens the function writes the log-probabilities of.
    function: what to do.
  """
  if size <= MOST_AT_ONCE:
    return function()
  return await asyncio.get_running_loop().run_in_executor(_WORKER, function)


async def _encoded(value: dict[str, Any]) -> bytes:
  """Returns the JSON of a response, whose choices are written one by one."""
  head = _json({name: field for name, field in value.items() if name != 'choices'})
  parts, total = [head[:-1], b',"choices":['], 0
  for i, choice in enumerate(value['choices']):
    told = choice['logprobs'] or {}
    size = len(told.get('tokens') or told.get('content') or ())
    parts += [b','] * bool(i) + [await apart(size, functools.partial(_choice_json, choice))]
    total += size
  return await apart(total, functools.partial(b''.join, [*parts, b']}']))


def _choice_json(choice: dict[str, Any]) -> bytes:
  """Returns the JSON of a choice.

  Lists of log-probabilities are written in steps: Python's encoder lets no other thread run.
  """
  told = choice['logprobs']
  if not told:
    return _json(choice)
  log_probs = []
  for name, entries in told.items():
    starts = range(0, len(entries or ()), MOST_AT_ONCE)
    steps = [_json(entries[start : start + MOST_AT_ONCE])[1:-1] for start in starts]
    written = b'[' + b','.join(steps) + b']' if steps else _json(entries)
    log_probs.append(_json(name) + b':' + written)
  rest = _json({name: field for name, field in choice.items() if name != 'logprobs'})
  return rest[:-1] + b',"logprobs":{' + b','.join(log_probs) + b'}}'


def _json(value: Any) -> bytes:
  text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(',', ':'))
  return text.encode('utf-8')


def streamed(
  body: Body,
  service: Service,
  head: dict[str, Any],
  writers: Sequence[Any],
  drafts: Sequence[Draft],
  meter: 'Meter',
) -> EventStream:
  """Returns the response to a request that is streamed.

  Args:
    body: of the request.
    head: the fields that all events have.
    writers: the choices; `deltas(meter)` of each yields its changes.
    drafts: the answers, which are cancelled when the client leaves or it takes too long.
    meter: of the response.
  """

  def close() -> None:
    meter.count(drafts)
    for draft in drafts:
      draft.close()

  events = _events(body, head, writers, drafts, meter)
  return EventStream(events, close, service.limits.request_seconds)


async def _events(
  body: Body,
  head: dict[str, Any],
  writers: Sequence[Any],
  drafts: Sequence[Draft],
  meter: 'Meter',
) -> AsyncIterator[dict[str, Any]]:
  """Yields the events of a stream."""
  told = body.stream_options is not None and bool(body.stream_options.include_usage)
  more = {'usage': None} if told else {}
  async for index, change in merged([writer.deltas(meter) for writer in writers]):
    yield head | {'choices': [{'index': index} | change]} | more
  if told:
    yield head | {'choices': [], 'usage': meter.usage(drafts, thought(writers))}


def start_all(makers: Sequence[Callable[[], Draft]]) -> list[Draft]:
  """Starts drafts, all or none.

  Args:
    makers: functions that each return a new draft.
  """
  drafts: list[Draft] = []
  try:
    for make in makers:
      drafts.append(make())
  except Exception:
    for draft in drafts:
      draft.close()
    raise
  return drafts


async def merged(streams: Sequence[AsyncIterator[T]]) -> AsyncIterator[tuple[int, T]]:
  """Yields the items of several iterations as they come, each with the number of its iteration.

  An iteration that ends is not announced; an exception of one ends all.
  """
  if len(streams) == 1:
    async for item in streams[0]:
      yield 0, item
    return
  queue: asyncio.Queue[tuple[int, T] | BaseException | None] = asyncio.Queue(maxsize=16)

  async def read(number: int) -> None:
    try:
      async for item in streams[number]:
        await queue.put((number, item))
    except Exception as error:  # noqa: BLE001  The reader of `merged` gets it.
      await queue.put(error)
    else:
      await queue.put(None)

  tasks = [asyncio.create_task(read(number)) for number in range(len(streams))]
  try:
    running = len(tasks)
    while running:
      item = await queue.get()
      if isinstance(item, BaseException):
        raise item
      if item is None:
        running -= 1
      else:
        yield item
  finally:
    for task in tasks:
      task.cancel()


async def gathered(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
  """Returns what all coroutines return; the first exception of one ends all."""
  try:
    async with asyncio.TaskGroup() as group:
      tasks = [group.create_task(one) for one in work]
  except ExceptionGroup as errors:
    raise errors.exceptions[0] from errors
  return [task.result() for task in tasks]


def thought(writers: Sequence[Any]) -> int | None:
  """Returns how many tokens of some choices were thoughts; None if that is not told."""
  counts = [writer.thought for writer in writers]
  return None if None in counts else sum(counts)


class Meter:
  """Counts the tokens of one response, for its usage and for /metrics."""

  def __init__(self, service: Service, model: ServedModel, prompt_tokens: int, answers: int):
    """Creates the meter.

    Args:
      service: the state of the server.
      model: the model that answers.
      prompt_tokens: of all prompts.
      answers: to each prompt.
    """
    self._monitor, self._model, self._answers = service.monitor, model, answers
    self._prompt_tokens, self._began, self._is_first = prompt_tokens, time.monotonic(), True

  def saw_token(self) -> None:
    """Notes the time of the first token."""
    if self._is_first:
      self._is_first = False
      seconds = time.monotonic() - self._began
      self._monitor.first_token_seconds.labels(self._model.name).observe(seconds)

  def count(self, drafts: Sequence[Draft]) -> None:
    """Adds what was read and written to the metrics, at the end of a response."""
    name = self._model.name
    self._monitor.tokens.labels(name, 'prompt').inc(self._prompt_tokens)
    self._monitor.tokens.labels(name, 'cached').inc(self._cached(drafts))
    self._monitor.tokens.labels(name, 'completion').inc(sum(d.num_tokens for d in drafts))
    self._monitor.cancelled.labels(name).inc(sum(not d.end for d in drafts))

  def usage(self, drafts: Sequence[Draft], thought: int | None) -> dict[str, Any]:
    """Returns the usage of a response.

    Args:
      drafts: the answers.
      thought: how many of their tokens were thoughts; None if that is not told.
    """
    written = sum(draft.num_tokens for draft in drafts)
    usage = {
      'prompt_tokens': self._prompt_tokens,
      'completion_tokens': written,
      'total_tokens': self._prompt_tokens + written,
      'prompt_tokens_details': {'cached_tokens': self._cached(drafts)},
    }
    if thought is not None:
      usage['completion_tokens_details'] = {'reasoning_tokens': thought}
    return usage

  def _cached(self, drafts: Sequence[Draft]) -> int:
    """Returns how many tokens of the prompts were in the cache.

    A prompt counts once. The answer that found the fewest counts: the others may have found what
    that one read.
    """
    reused = [max(draft.reused, 0) for draft in drafts]
    firsts = range(0, len(reused), self._answers)
    return sum(min(reused[first : first + self._answers]) for first in firsts)


def token_text(model: ServedModel, token: int) -> str:
  """Returns a token as text: special ones by name, incomplete characters as 'bytes:\\xe2'."""
  data = model.chat_format.tokenizer.decode_bytes([token])
  try:
    return data.decode()
  except UnicodeDecodeError:
    return 'bytes:' + ''.join(f'\\x{byte:02x}' for byte in data)


def finite(log_prob: float) -> float:
  """Returns a log-probability for JSON, which has no infinity; OpenAI's API says -9999."""
  return max(log_prob, -9999.0)


async def read_parts(draft: Draft, reader: AnswerParts, meter: Meter) -> AsyncIterator[list[Part]]:
  """Yields the parts that each piece of an answer adds, and at the end what was held back."""
  async for piece in draft.pieces():
    meter.saw_token()
    if parts := reader.read(piece):
      yield parts
    if reader.stopped:
      draft.stop()
      return
  if parts := reader.end():
    yield parts


def shown_parts(parts: Sequence[Part], thinking: str) -> list[Part]:
  """Returns the parts whose text may leave the process."""
  return [p for p in parts if p.kind != 'think' or thinking in ('show', 'fold')]


def chat_log_probs(model: ServedModel, reports: Sequence[Report], count: int) -> list[dict]:
  """Returns the reports of tokens as chat completions have them.

  Args:
    reports: of the tokens.
    count: alternatives of each.
  """

  def entry(token: int, log_prob: float) -> dict[str, Any]:
    data = model.chat_format.tokenizer.decode_bytes([token])
    return {
      'token': token_text(model, token),
      'logprob': finite(log_prob),
      'bytes': list(data),
    }

  return [
    entry(r.token, r.top.log_prob)
    | {
      'top_logprobs': [
        entry(token, log_prob)
        for token, log_prob in zip(r.top.ids[:count], r.top.log_probs[:count], strict=True)
      ]
    }
    for r in reports
    if r.top is not None
  ]
