"""Conversations to tokens and a loss mask, and completions back to parts: one template language.

The only place that knows the special tokens. A conversation becomes

    <|endoftext|><|system|>...<|end|><|user|>...<|end|><|assistant|>...<|end|><|user|>...

and inside an assistant's turn a tool call with its result is `<|python|>1+1<|/python|><|output|>2<|/output|>`. All text
goes through `tokenizer.encode`, which never yields a special id, so nothing that anybody types can forge one.

A conversation is {"messages": [{"role": "system" | "user" | "assistant", "content": str | [part, ...]}]}, a part is
{"type": "text" | "python" | "output" | "think", "text": str}; only an assistant's turn has parts other than text.
"""

from collections.abc import Callable
from typing import Any

from lm.errors import UserError, unknown

BOS, PAD = '<|endoftext|>', '<|pad|>'  # the first begins every document and conversation
END = '<|end|>'  # ends a turn: the stop token
HEADERS = {role: f'<|{role}|>' for role in ('system', 'user', 'assistant')}
TAGS = {kind: (f'<|{kind}|>', f'<|/{kind}|>') for kind in ('python', 'output', 'think')}  # opening and closing
SPECIAL_TOKENS = (BOS, *HEADERS.values(), END, *(tag for pair in TAGS.values() for tag in pair), PAD)


def render(tokenizer: Any, conversation: dict, max_tokens: int | None = None) -> tuple[list[int], list[int]]:
  """Tokens of a conversation to learn from, and which of them are to be learned.

  Args:
    tokenizer: a `data.tokenizer` with SPECIAL_TOKENS.
    conversation: an optional system turn, then user and assistant by turns; the last turn is the assistant's.
    max_tokens: if given, whole exchanges (a question and its answer) are left out from the end until it fits.

  Returns:
    (ids, mask), equally long. mask[i] is 1 where token i is the assistant's own: text, thoughts, tool calls and the
    <|end|> that stops it; 0 on headers, on what others said and on tool results.

  Raises:
    UserError: naming the message that is not as described, or that not even one exchange fits `max_tokens`.
  """
  messages = _checked(conversation, last='assistant')
  ids, mask, whole = [token_id(tokenizer, BOS)], [0], 0
  for message in messages:
    turn_ids, turn_mask = render_turn(tokenizer, message)
    ids += turn_ids
    mask += turn_mask
    if message['role'] == 'assistant' and (max_tokens is None or len(ids) <= max_tokens):
      whole = len(ids)
  if not whole:
    raise UserError(f'the first exchange of the conversation is longer than max_tokens={max_tokens}')
  return ids[:whole], mask[:whole]


def render_prompt(tokenizer: Any, messages: list[dict]) -> list[int]:
  """Tokens of a conversation whose last turn is the user's, ending in <|assistant|>, ready to be completed."""
  ids = [token_id(tokenizer, BOS)]
  for message in _checked({'messages': messages}, last='user'):
    ids += render_turn(tokenizer, message)[0]
  return [*ids, token_id(tokenizer, HEADERS['assistant'])]


def render_turn(tokenizer: Any, message: dict) -> tuple[list[int], list[int]]:
  """(ids, mask) of one well-formed message, from its header to its <|end|>."""
  learned = int(message['role'] == 'assistant')
  ids, mask = [token_id(tokenizer, HEADERS[message['role']])], [0]
  for part in _parts(message['content']):
    tokens = tokenizer.encode(part['text'])
    if part['type'] in TAGS:
      opening, closing = TAGS[part['type']]
      tokens = [token_id(tokenizer, opening), *tokens, token_id(tokenizer, closing)]
    ids += tokens
    mask += [0 if part['type'] == 'output' else learned] * len(tokens)
  return [*ids, token_id(tokenizer, END)], [*mask, learned]


def parse(tokenizer: Any, ids: list[int]) -> dict:
  """The parts of a completion, however malformed; never raises.

  Args:
    ids: the tokens that follow <|assistant|>, tool results included.

  Returns:
    {"content": [part, ...], "finished": bool, "well_formed": bool}: finished if <|end|> came; well formed if, besides,
    everything opened was closed, each tool call has its result (and each result its call), no other special token
    occurs, and nothing but padding follows the end. Of a malformed reply the parts are kept as far as they go.
  """
  names = {index: name for name, index in tokenizer.special_tokens.items()}
  opened = {opening: kind for kind, (opening, _) in TAGS.items()}
  parts, kind, start, finished, good = [], 'text', 0, False, True

  def close(end):
    if kind != 'text' or end > start:
      parts.append({'type': kind, 'text': tokenizer.decode(ids[start:end])})

  for i, name in enumerate(map(names.get, ids)):
    if finished:
      good &= name == PAD
    elif name is not None:
      close(i)
      if kind != 'text' and name == TAGS[kind][1]:
        kind = 'text'
      else:
        good &= kind == 'text' and (name in opened or name == END)
        kind, finished = opened.get(name, 'text'), name == END
      start = i + 1
  if not finished:
    close(len(ids))
  kinds = [part['type'] for part in parts]
  paired = all((a == 'python') == (b == 'output') for a, b in zip([None, *kinds], [*kinds, None], strict=True))
  return {'content': parts, 'finished': finished, 'well_formed': finished and good and paired}


def answer_call(tokenizer: Any, ids: list[int], tool: Callable[[str], str]) -> list[int]:
  """Tokens to force after a completion that ends in <|/python|>: the result of `tool` on the call, in its tags.

  [] if the completion does not end in a call. A result always exists, as `tool` reports its own errors as text.
  """
  if not ids or ids[-1] != token_id(tokenizer, TAGS['python'][1]):
    return []
  parts = parse(tokenizer, ids)['content']
  if not parts or parts[-1]['type'] != 'python':  # the tag closed nothing
    return []
  opening, closing = (token_id(tokenizer, tag) for tag in TAGS['output'])
  return [opening, *tokenizer.encode(tool(parts[-1]['text'])), closing]


def text(content: str | list[dict]) -> str:
  """What the assistant says at last: its text after the last tool result (all of it where there is none)."""
  said = ''
  for part in _parts(content):
    if part['type'] == 'output':
      said = ''
    elif part['type'] == 'text':
      said += part['text']
  return said.strip()


def grade_format(reply: dict) -> float:
  """1.0 if a reply (of `parse`) is finished by the stop token, well formed and says something, else 0.0."""
  return float(reply['finished'] and reply['well_formed'] and bool(text(reply['content'])))


def token_id(tokenizer: Any, name: str) -> int:
  """Id of a special token. Raises UserError if the tokenizer was made without it."""
  if name not in tokenizer.special_tokens:
    raise UserError(f'the tokenizer has no special token {name!r}; it has: {", ".join(tokenizer.special_tokens)}')
  return tokenizer.special_tokens[name]


def banned_ids(tokenizer: Any) -> tuple[int, ...]:
  """Tokens that only a tool may put into a reply: the tags of its result."""
  return tuple(token_id(tokenizer, tag) for tag in TAGS['output'])


def check(conversation: Any) -> None:
  """Raises a UserError that names the field at fault if this is not a conversation that `render` takes."""
  _checked(conversation, last='assistant')


def _parts(content: str | list[dict]) -> list[dict]:
  return [{'type': 'text', 'text': content}] if isinstance(content, str) else content


def _checked(conversation: Any, last: str) -> list[dict]:
  if not isinstance(conversation, dict) or not isinstance(conversation.get('messages'), list):
    raise UserError('a conversation is {"messages": [...]}; found ' + repr(conversation)[:80])
  messages = conversation['messages']
  if not messages:
    raise UserError('messages is empty')
  for i, message in enumerate(messages):
    _check_message(message, f'messages[{i}]')
  roles = [message['role'] for message in messages]
  first = int(roles[0] == 'system')
  for i, role in enumerate(roles[first:]):
    expected = ('user', 'assistant')[i % 2]
    if role != expected:
      raise UserError(f'messages[{first + i}].role is {role!r} where {expected!r} is due: user and assistant alternate')
  if roles[-1] != last:
    raise UserError(f'messages[{len(roles) - 1}].role, the last, is {roles[-1]!r}; it must be {last!r}')
  return messages


def _check_message(message: Any, where: str) -> None:
  if not isinstance(message, dict) or not {'role', 'content'} <= message.keys():
    raise UserError(f'{where} must have "role" and "content"; found {message!r:.80}')
  if message['role'] not in tuple(HEADERS):  # a tuple: what was given may not be hashable
    raise unknown(f'{where}.role', message['role'], HEADERS)
  content = message['content']
  if not isinstance(content, str | list):
    raise UserError(f'{where}.content must be text or a list of parts; found {content!r:.80}')
  allowed = ('text', *TAGS) if message['role'] == 'assistant' else ('text',)
  for j, part in enumerate(_parts(content)):
    if not isinstance(part, dict) or not isinstance(part.get('text'), str) or 'type' not in part:
      raise UserError(f'{where}.content[{j}] must have "type" and "text"; found {part!r:.80}')
    if part['type'] not in allowed:
      raise unknown(f'{where}.content[{j}].type in a turn of {message["role"]}', part['type'], allowed)
  if not any(part['text'].strip() for part in _parts(content)):
    raise UserError(f'{where}.content is empty')
