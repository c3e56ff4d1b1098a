"""Turns the messages of a chat completion into the turns of the model's chat format.

Functions of the client's are told to the model in the system turn. It calls one by writing the
function's name, a line end and the arguments between the tags of a call; the client's result comes
back in a message of role "tool", and becomes part of the same turn of the assistant's.
"""

import copy
import json
import re
from collections.abc import Sequence
from typing import Any

from lm.base.errors import UserError
from lm.serve.api_errors import ApiError
from lm.serve.schemas import AssistantMessage, ChatBody, Function, Message, ToolMessage, text_of

Turn = dict[str, Any]


def turns_of(
  body: ChatBody, functions: Sequence[Function], about: str, thoughts: bool
) -> tuple[list[Turn], list[int]]:
  """Returns the turns of a conversation, as `data.chat.chat_formats.Format.render_prompt` reads.

  With them comes the place of each among the body's messages, of the first where it is made of
  several.

  Args:
    functions: what the model may call.
    about: what the system turn tells of the server's own tools, '' for nothing.
    thoughts: whether the format can write the thoughts of earlier answers; otherwise they are left
      out, as templates of reasoning models do.

  Raises:
    ApiError: a call has no result, or a result no call.
  """
  messages = list(body.messages)
  system = []
  while messages and messages[0].role in ('system', 'developer'):
    system.append(text_of(messages.pop(0).content))
  system = [text for text in system if text.strip()]
  if functions:
    system.append(_about_functions(functions))
  elif about:
    system.append(about)
  turns: list[Turn] = [{'role': 'system', 'content': '\n\n'.join(system)}] if system else []
  places = [0] if turns else []
  place = len(body.messages) - len(messages)
  while messages:
    message, where, first = messages.pop(0), f'messages[{place}]', place
    place += 1
    if message.role == 'user':
      turns.append({'role': 'user', 'content': text_of(message.content)})
    elif message.role == 'assistant':
      calls = {call.id: call.function for call in message.tool_calls or ()}
      results = {}
      while messages and messages[0].role == 'tool':
        result = messages.pop(0)
        _check_result(result, calls, results, f'messages[{place}]')
        results[result.tool_call_id] = text_of(result.content)
        place += 1
      if missing := calls.keys() - results.keys():
        text = f'{where}: no message of role tool answers the call {sorted(missing)[0]!r:.80}'
        raise ApiError(400, text, param=where)
      _add_answer(turns, _answer_parts(message, results, thoughts))
    elif message.role == 'tool':
      _check_result(message, {}, {}, where)
    else:
      text = f'{where}: a message of role {message.role} must be at the beginning'
      raise ApiError(400, text, param=where)
    places += [first] * (len(turns) - len(places))
  return turns, places


def placed(error: UserError, places: Sequence[int]) -> UserError:
  """Returns an error about a turn with the name of the message that the client sent.

  Args:
    error: its field names the turn, as `messages[1].content`.
    places: of the turns, as `turns_of` returns them.
  """
  found = re.match(r'messages\[(\d+)\]', error.field)
  if not found or int(found[1]) >= len(places):
    return error
  named = copy.copy(error)
  named.field = f'messages[{places[int(found[1])]}]{error.field[found.end() :]}'
  named.args = (str(error).replace(error.field, named.field, 1),)
  return named


def text_length(messages: Sequence[Message]) -> int:
  """Returns the bytes of all texts of a conversation."""
  texts = [text_of(message.content) for message in messages]
  for message in messages:
    if isinstance(message, AssistantMessage):
      texts += [call.function.arguments for call in message.tool_calls or ()]
  return sum(len(text.encode('utf-8', 'replace')) for text in texts)


def read_call(text: str, names: Sequence[str]) -> tuple[str, str]:
  """Returns the name, '' if it has none, and the arguments of a call that the model wrote."""
  name, _, arguments = text.partition('\n')
  return (name.strip(), arguments) if name.strip() in names else (name.strip()[:64], arguments)


def _check_result(message: ToolMessage, calls: Any, results: Any, where: str) -> None:
  """Raises ApiError where the result of a tool answers no call, or one that has a result."""
  if message.tool_call_id not in calls or message.tool_call_id in results:
    text = f'{where}.tool_call_id is no open call of the message of role assistant before it'
    raise ApiError(400, text, param=f'{where}.tool_call_id')


def _answer_parts(
  message: AssistantMessage, results: dict[str, str], thoughts: bool
) -> list[dict[str, str]]:
  """Returns the parts of an earlier answer."""
  parts = []
  if thoughts and message.reasoning_content:
    parts.append({'type': 'think', 'text': message.reasoning_content})
  content, said = text_of(message.content), 0
  for call in message.server_tool_calls or ():
    before = max(call.offset or 0, said)
    parts.append({'type': 'text', 'text': content[said:before]})
    parts.append({'type': 'python', 'text': call.call})
    parts += [{'type': 'output', 'text': call.result}] if call.result is not None else []
    said = before
  parts.append({'type': 'text', 'text': content[said:]})
  for call in message.tool_calls or ():
    function = call.function
    parts.append({'type': 'python', 'text': f'{function.name}\n{function.arguments}'})
    parts.append({'type': 'output', 'text': results[call.id]})
  said_something = [part for part in parts if part['type'] != 'text' or part['text']]
  return said_something or [{'type': 'text', 'text': ''}]


def _add_answer(turns: list[Turn], parts: list[dict[str, str]]) -> None:
  """Adds an answer; one that goes on after the results of calls belongs to the same turn."""
  if turns and turns[-1]['role'] == 'assistant' and turns[-1]['content'][-1]['type'] == 'output':
    turns[-1]['content'] += parts
  else:
    turns.append({'role': 'assistant', 'content': parts})


def _about_functions(functions: Sequence[Function]) -> str:
  """Returns what the system turn says of the client's functions."""
  lines = [
    'You can call these functions. A call is the name of the function, a line end, and its '
    'arguments as a JSON object.'
  ]
  for function in functions:
    about = f': {function.description}' if function.description else ''
    schema = json.dumps(function.parameters or {'type': 'object'}, ensure_ascii=False)
    lines.append(f'{function.name}{about} Arguments: {schema}')
  return '\n'.join(lines)
