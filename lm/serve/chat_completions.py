"""/v1/chat/completions: the next answer of a conversation."""

import asyncio
import dataclasses
import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from lm.base.errors import UserError
from lm.infer.requests import Request
from lm.serve import chat_messages, responding
from lm.serve.answer_parts import AnswerParts, Part, opens_thought, tag_ids
from lm.serve.api_errors import ApiError
from lm.serve.drafting import Draft, JsonDraft, seed_of
from lm.serve.handling import read_body
from lm.serve.responding import Meter
from lm.serve.schemas import ChatBody, ChosenTool
from lm.serve.service import ServedModel, Service

MAX_CALLS = 16  # calls of the server's tools in one answer
Delta = dict[str, Any]


async def create_chat_completion(request: HttpRequest) -> Response:
  """Answers a conversation."""
  service: Service = request.app.state.service
  body = await read_body(request, ChatBody)
  model = service.model(body.model)
  _check(body, model)
  count = responding.check_choices('n', body.n, service)
  thinking = responding.thinking_of(body, service)
  field = 'max_tokens' if body.max_completion_tokens is None else 'max_completion_tokens'
  new_tokens = responding.new_tokens(field, getattr(body, field), model.context, service)
  prompt = await asyncio.to_thread(_prompt, body, model)
  if _wants_json(body):
    await asyncio.to_thread(lambda: model.token_masks)
  stop_strings = () if responding.hides_thoughts(model, thinking) else body.stop_strings
  requests = _requests(body, model, prompt, new_tokens, stop_strings, count)
  in_thought = opens_thought(model.chat_format)
  drafts = responding.start_all(
    [functools.partial(_draft, body, model, r, in_thought) for r in requests]
  )
  writers = [Choice(body, model, draft, thinking, in_thought) for draft in drafts]
  meter = Meter(service, model, len(prompt), count)
  head = {
    'id': responding.new_id('chatcmpl'),
    'created': responding.now(),
    'model': model.name,
    'system_fingerprint': None,
  }
  if body.stream:
    head['object'] = 'chat.completion.chunk'
    return responding.streamed(body, service, head, writers, drafts, meter)
  head['object'] = 'chat.completion'
  work = _whole(head, writers, drafts, meter)
  return await responding.answered(request, service, drafts, work)


class Choice:
  """One answer to a conversation, as the changes that a stream sends."""

  def __init__(
    self, body: ChatBody, model: ServedModel, draft: Draft, thinking: str, in_thought: bool
  ):
    self._body, self._model, self._draft, self._thinking = body, model, draft, thinking
    self._reader = AnswerParts(
      model.chat_format,
      body.stop_strings,
      in_thought,
      stops_in=('text',) if responding.hides_thoughts(model, thinking) else ('text', 'think'),
    )
    self._functions = [function.name for function in _functions(body)]
    self._lead = model.chat_format.layout.lead  # white space that begins an answer
    self._is_after_thought = False
    self._thought, self._call = '', ''  # what is not sent before it is complete
    self._num_calls = self._characters = self._said_characters = 0
    self._called_client = False  # whether a call of the client's was sent
    # How many tokens were thoughts; None if that is not told.
    self.thought = None if thinking == 'withhold' else 0

  async def deltas(self, meter: Meter) -> AsyncIterator[dict[str, Any]]:
    """Yields {delta, logprobs, finish_reason} of each change; the last has a reason."""
    yield self._change({'role': 'assistant', 'content': ''})
    async for parts in responding.read_parts(self._draft, self._reader, meter):
      for part in parts:
        for change in self._changes(part):
          yield change
    for delta in self._end_thought():
      yield self._change(delta)
    if self._call:  # The answer ended inside a call.
      yield self._change(self._client_call())
    reason = responding.REASONS[self._draft.end]
    # A model may also end its answer with the arguments, without the closing tag.
    if self._called_client and self._draft.end in ('call', 'stop'):
      reason = 'tool_calls'
    yield self._change({}) | {'finish_reason': reason}

  def _changes(self, part: Part) -> list[dict[str, Any]]:
    """Returns the changes that a part of the answer makes."""
    if part.kind == 'think':
      return [self._change(delta) for delta in self._think(part)]
    if part.kind == 'text':
      text, log_probs = self._said(part.text), None
      if self._body.logprobs:
        stops = self._model.stop_ids
        reports = [report for report in part.reports if report.token not in stops]
        count = self._body.top_logprobs or 0
        log_probs = responding.chat_log_probs(self._model, reports, count)
      return [self._change({'content': text}, log_probs)] if text or log_probs else []
    return [self._change(delta) for delta in self._called(part)]

  def _change(self, delta: Delta, log_probs: list | None = None) -> dict[str, Any]:
    told = {'content': log_probs, 'refusal': None} if log_probs is not None else None
    return {'delta': delta, 'logprobs': told, 'finish_reason': None}

  def _said(self, text: str) -> str:
    """Returns the text without the white space that the template puts before it."""
    if self._is_after_thought:
      text = text.lstrip('\n')
      self._is_after_thought = not text
    while self._lead and text:
      if text[0] != self._lead[0]:
        self._lead = ''
      else:
        self._lead, text = self._lead[1:], text[1:]
    self._said_characters += len(text)
    return text

  def _think(self, part: Part) -> list[Delta]:
    """Returns what is sent of the next part of a thought."""
    if self.thought is not None:
      self.thought += part.tokens
    deltas = []
    if self._thinking == 'show':
      deltas = [{'reasoning_content': part.text}] if part.text else []
    elif self._thinking != 'withhold':
      self._thought += part.text
    if part.closes:
      deltas += self._end_thought()
      self._is_after_thought = True
    return deltas

  def _end_thought(self) -> list[Delta]:
    """Returns what is sent of a thought when it is complete."""
    thought, self._thought = self._thought, ''
    if not thought:
      return []
    if self._thinking == 'fold':
      return [{'reasoning_content': thought}]
    self._characters += len(thought)
    return [{'reasoning_length': {'tokens': self.thought, 'characters': self._characters}}]

  def _called(self, part: Part) -> list[Delta]:
    """Returns what is sent of the next part of a call, or of its result."""
    if self._functions:
      self._call += part.text
      return [self._client_call()] if part.closes else []
    if not (part.text or part.opens):
      return []
    told: Delta = {'result': part.text}
    if part.kind == 'python':
      self._num_calls += part.opens
      told = {'call': part.text} | ({'offset': self._said_characters} if part.opens else {})
    return [{'server_tool_calls': [{'index': max(self._num_calls - 1, 0)} | told]}]

  def _client_call(self) -> Delta:
    """Returns the call of a function of the client's; without a name it is text.

    A client could not send such a call back.
    """
    call, self._call = self._call, ''
    name, arguments = chat_messages.read_call(call, self._functions)
    if not name:
      return {'content': call}
    self._called_client = True
    function = {'name': name, 'arguments': arguments}
    call = {'id': responding.new_id('call'), 'type': 'function', 'function': function}
    return {'tool_calls': [{'index': 0} | call]}


def _check(body: ChatBody, model: ServedModel) -> None:
  """Raises ApiError for what this model does not do, and for fields that contradict each other."""
  if not model.can_chat:
    message = f'{model.name} has no chat template; use /v1/completions'
    raise ApiError(400, message, param='model', code='not_a_chat_model')

  def refuse(is_wrong: Any, param: str, message: str) -> None:
    if is_wrong:
      raise ApiError(400, message, param=param)

  both = None not in (body.max_tokens, body.max_completion_tokens)
  refuse(both, 'max_tokens', 'only one of max_tokens and max_completion_tokens can be given')
  needs_log_probs = body.top_logprobs is not None and not body.logprobs
  refuse(needs_log_probs, 'top_logprobs', 'top_logprobs needs logprobs')
  only_streams = body.stream_options is not None and not body.stream
  refuse(only_streams, 'stream_options', 'stream_options needs stream')
  if _wants_json(body):
    refuse(body.tools, 'response_format', 'a JSON object cannot be combined with tools')
    refuse(body.stop_strings, 'response_format', 'a JSON object cannot be combined with stop')
  has_tags = bool(tag_ids(model.chat_format, 'python'))
  message = f'{model.name} has no tokens for calls of tools: it was not trained to call any'
  refuse(body.tools and not has_tags, 'tools', message)
  has_system = model.chat_format.layout.system is not None
  message = f'{model.name} cannot be told of tools: its chat template allows no system turn'
  refuse(_functions(body) and not has_system, 'tools', message)
  chosen = body.tool_choice
  needs_tools = chosen not in (None, 'none', 'auto') and not body.tools
  refuse(needs_tools, 'tool_choice', 'tool_choice needs tools')
  if isinstance(chosen, ChosenTool):
    names = [tool.function.name for tool in body.tools or ()]
    name = chosen.function.name
    refuse(name not in names, 'tool_choice', f'tool_choice names {name}, which is not in tools')


def _wants_json(body: ChatBody) -> bool:
  return body.response_format is not None and body.response_format.type == 'json_object'


def _functions(body: ChatBody) -> list[Any]:
  """Returns the functions of the client's that the model may call."""
  return [] if body.tool_choice == 'none' else [tool.function for tool in body.tools or ()]


def _prompt(body: ChatBody, model: ServedModel) -> list[int]:
  """Returns the tokens of a conversation.

  Raises:
    ApiError: it does not fit in the context.
    UserError: the chat format cannot write it.
  """
  responding.check_text_length(chat_messages.text_length(body.messages), 'messages', model)
  uses_tools = body.tool_choice != 'none' and not _wants_json(body)
  turns, places = chat_messages.turns_of(
    body,
    _functions(body),
    model.told_tools if uses_tools else '',
    len(model.chat_format.tag_ids('think')) == 2,
  )
  try:
    prompt = model.chat_format.render_prompt(turns, blank_answers=True)
  except UserError as error:
    raise chat_messages.placed(error, places) from error
  if len(prompt) >= model.context:
    message = f'the messages have {len(prompt)} tokens; the context is {model.context}'
    raise responding.too_long(message, 'messages')
  return prompt


def _requests(
  body: ChatBody,
  model: ServedModel,
  prompt: list[int],
  new_tokens: int,
  stop_strings: Sequence[str],
  count: int,
) -> list[Request]:
  """Returns the requests for `count` answers."""
  chat_format, call_tool = model.chat_format, model.call_tool
  sampling, seed = responding.sampling_of(body, model), responding.seed_or_random(body)
  tool, forced = None, []
  calls = tag_ids(chat_format, 'python')
  if calls and (body.tool_choice == 'none' or _wants_json(body)):
    banned_ids = (*sampling.banned_ids, calls[0])
    sampling = dataclasses.replace(sampling, banned_ids=banned_ids)
  elif calls and not body.tools and call_tool is not None:

    def tool(ids: list[int]) -> list[int]:
      return chat_format.answer_call(ids, call_tool)

  if body.tool_choice == 'required':
    forced = [calls[0]]
  elif isinstance(body.tool_choice, ChosenTool):
    name = body.tool_choice.function.name
    forced = [calls[0], *chat_format.tokenizer.encode_inside(f'{name}\n')]
  top = max(body.top_logprobs or 0, 1) if body.logprobs else 0
  return [
    Request(
      prompt,
      new_tokens,
      sampling,
      seed=seed_of(seed, index),
      stop_ids=model.stop_ids,
      stop_strings=stop_strings,
      call_tags=calls,
      token_bytes=chat_format.tokenizer.token_bytes,
      forced=forced,
      pause_ids=chat_format.call_ids,
      tool=tool,
      max_calls=MAX_CALLS,
      num_top=top,
    )
    for index in range(count)
  ]


def _draft(body: ChatBody, model: ServedModel, request: Request, in_thought: bool) -> Draft:
  if _wants_json(body):
    return JsonDraft(model, request, model.token_masks, in_thought)
  return Draft(model, request)


async def _whole(
  head: dict[str, Any], writers: Sequence[Choice], drafts: Sequence[Draft], meter: Meter
) -> dict[str, Any]:
  """Returns the body of a response that is not streamed."""

  async def read(index: int) -> dict[str, Any]:
    changes = [change async for change in writers[index].deltas(meter)]
    return {'index': index} | _joined(changes)

  try:
    choices = await responding.gathered([read(index) for index in range(len(writers))])
  finally:
    meter.count(drafts)
  return head | {'choices': choices, 'usage': meter.usage(drafts, responding.thought(writers))}


def _joined(changes: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Returns the changes of an answer as a whole message."""
  deltas = [change['delta'] for change in changes]

  def text(name: str) -> str:
    return ''.join(delta.get(name, '') for delta in deltas)

  message: dict[str, Any] = {'role': 'assistant', 'content': text('content'), 'refusal': None}
  if thought := text('reasoning_content'):
    message['reasoning_content'] = thought
  for delta in deltas:
    if 'reasoning_length' in delta:
      message['reasoning_length'] = delta['reasoning_length']
    for call in delta.get('tool_calls', ()):
      message.setdefault('tool_calls', []).append({k: call[k] for k in call if k != 'index'})
    for told in delta.get('server_tool_calls', ()):
      calls = message.setdefault('server_tool_calls', [])
      calls += [{'call': '', 'result': None} for _ in range(told['index'] + 1 - len(calls))]
      call = calls[told['index']]
      call |= {name: told[name] for name in ('offset',) if name in told}
      for name in ('call', 'result'):
        if name in told:
          call[name] = (call[name] or '') + told[name]
  if 'tool_calls' in message:
    message['content'] = message['content'] or None
  log_probs = [change['logprobs']['content'] for change in changes if change['logprobs']]
  joined = {'content': [entry for part in log_probs for entry in part], 'refusal': None}
  return {
    'message': message,
    'logprobs': joined if log_probs else None,
    'finish_reason': changes[-1]['finish_reason'],
  }
