"""What a conversation is, and the check of one that comes from outside.

A conversation is {"messages": [{"role": "system" | "user" | "assistant", "content": str | [part,
...]}]}. A part is {"type": "text" | "python" | "output" | "think", "text": str}. Only an
assistant's turn has parts other than text.
"""

from typing import Any

from lm.base.errors import UserError, unknown

ROLES = ('system', 'user', 'assistant')
KINDS = ('python', 'output', 'think')  # of the parts of an assistant's turn, beside text


def check(conversation: Any) -> None:
  """Raises UserError, which names the field, for what `chat_formats.Format.render` cannot take."""
  checked(conversation, last='assistant')


def parts(content: str | list[dict]) -> list[dict]:
  """Returns the parts of a message's content; text alone is one part."""
  return [{'type': 'text', 'text': content}] if isinstance(content, str) else content


def reply(content: str | list[dict]) -> dict[str, Any]:
  """Returns a whole answer in the form that graders take (`chat_formats.Format.parse`)."""
  return {'content': parts(content), 'finished': True, 'well_formed': True}


def checked(conversation: Any, last: str, *, blank_answers: bool = False) -> list[dict]:
  """Returns the messages of a conversation whose last message is of the role `last`.

  Args:
    conversation: what comes from outside.
    last: the role.
    blank_answers: whether the assistant may have said nothing.

  Raises:
    UserError: it names the field that is wrong.
  """
  if not isinstance(conversation, dict) or not isinstance(conversation.get('messages'), list):
    raise UserError(field='conversation', value=conversation, allowed='{"messages": [...]}')
  messages = conversation['messages']
  if not messages:
    raise UserError(field='messages', value=messages, allowed='at least one message')
  for i, message in enumerate(messages):
    _check_message(message, f'messages[{i}]', blank_answers)
  roles = [message['role'] for message in messages]
  first = int(roles[0] == 'system')
  for i, role in enumerate(roles[first:]):
    expected = ('user', 'assistant')[i % 2]
    if role != expected:
      raise UserError(
        field=f'messages[{first + i}].role',
        value=role,
        allowed=(expected,),
        message='User and assistant alternate.',
      )
  if roles[-1] != last:
    raise UserError(
      field=f'messages[{len(roles) - 1}].role',
      value=roles[-1],
      allowed=(last,),
      message='It is the last message.',
    )
  return messages


def taken(messages: Any, last: str) -> list[dict]:
  """Returns the messages of a row of a file, each with its role and its content alone.

  A system turn without text is left out. Calls of tools in another form than parts of the content
  would be lost, so they are an error.

  Raises UserError that names the field that is wrong, as `checked` does.
  """
  for i, message in enumerate(messages if isinstance(messages, list) else ()):
    for name in ('tool_calls', 'function_call') if isinstance(message, dict) else ():
      if message.get(name):
        raise UserError(
          field=f'messages[{i}].{name}', value=message[name], allowed='none: calls are not read'
        )
  if isinstance(messages, list) and len(messages) > 1 and _is_blank_system(messages[0]):
    messages = messages[1:]
  found = checked({'messages': messages}, last)
  return [{'role': message['role'], 'content': message['content']} for message in found]


def with_system(messages: Any, system: Any) -> Any:
  """Returns messages after a system turn with this text, unless there is none or they have one.

  Raises UserError if `system` is neither text nor None.
  """
  if not isinstance(system, str | None):
    raise UserError(field='system', value=system, allowed='text')
  first = messages[0] if isinstance(messages, list) and messages else None
  if not isinstance(first, dict) or not (system or '').strip():
    return messages
  if first.get('role') == 'system' and not _is_blank_system(first):
    return messages
  rest = messages[1:] if first.get('role') == 'system' else messages
  return [{'role': 'system', 'content': system}, *rest]


def _is_blank_system(message: Any) -> bool:
  """Returns whether a message is a system turn without text."""
  if not isinstance(message, dict) or message.get('role') != 'system':
    return False
  content = message.get('content') or ''
  return content == [] or (isinstance(content, str) and not content.strip())


def _check_message(message: Any, where: str, blank_answers: bool) -> None:
  if not isinstance(message, dict) or not {'role', 'content'} <= message.keys():
    raise UserError(field=where, value=message, allowed='an object with "role" and "content"')
  if message['role'] not in ROLES:  # ROLES is a tuple because a role may not be hashable
    raise unknown(f'{where}.role', message['role'], ROLES)
  content = message['content']
  if not isinstance(content, str | list):
    raise UserError(field=f'{where}.content', value=content, allowed='text or a list of parts')
  allowed = ('text', *KINDS) if message['role'] == 'assistant' else ('text',)
  for j, part in enumerate(parts(content)):
    if not isinstance(part, dict) or not isinstance(part.get('text'), str) or 'type' not in part:
      raise UserError(
        field=f'{where}.content[{j}]', value=part, allowed='an object with "type" and "text"'
      )
    if part['type'] not in allowed:
      raise unknown(
        f'{where}.content[{j}].type in a turn of {message["role"]}', part['type'], allowed
      )
  may_be_blank = blank_answers and message['role'] == 'assistant'
  if not may_be_blank and not any(part['text'].strip() for part in parts(content)):
    raise UserError(field=f'{where}.content', value=content, allowed='text that is not blank')


def text(content: str | list[dict]) -> str:
  """Returns the assistant's final words: its text after the last tool result, or all its text."""
  said = ''
  for part in parts(content):
    if part['type'] == 'output':
      said = ''
    elif part['type'] == 'text':
      said += part['text']
  return said.strip()
