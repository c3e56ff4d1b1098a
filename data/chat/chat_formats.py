"""Conversations to tokens and a loss mask, and completions back to parts, in the format of the
model's chat template.

The only place that knows the special tokens. A conversation becomes, in our own format
('deepdive'),

    <|endoftext|><|system|>...<|end|><|user|>...<|end|><|assistant|>...<|end|><|user|>...

and with a model from elsewhere whatever its own template writes (data/chat/templates.py). Inside an
assistant's turn a tool call with its result is `<|python|>1+1<|/python|><|output|>2<|/output|>`.
What people say goes through `tokenizer.encode`, which never yields a special id, so nothing that
anybody types can forge one. (Some formats, as of Llama 2 and OLMo 2, write parts of their headers
in plain text. Those can be typed; the stop token cannot.)

A conversation is {"messages": [{"role": "system" | "user" | "assistant", "content": str | [part,
...]}]}, a part is {"type": "text" | "python" | "output" | "think", "text": str}; only an
assistant's turn has parts other than text.
"""

import dataclasses
import datetime
import functools
import itertools
import os
import re
from collections.abc import Callable
from typing import Any

from data.chat import templates
from data.tokenizers import loading as tokenizers
from lm.base import files
from lm.base.errors import UserError, unknown

BOS, PAD = '<|endoftext|>', '<|pad|>'  # the first begins every document
ROLES = ('system', 'user', 'assistant')
# opening and closing
TAGS = {kind: (f'<|{kind}|>', f'<|/{kind}|>') for kind in ('python', 'output', 'think')}
THINK = ('<think>', '</think>')  # taken for thoughts where the vocabulary has them
# Of tokenizers that are trained here.
SPECIAL_TOKENS = (
  BOS,
  *templates.SPECIAL_TOKENS['deepdive'],
  *(tag for pair in TAGS.values() for tag in pair),
  PAD,
)


def load(
  spec: str,
  name: str = 'auto',
  *,
  extend: bool = False,
  tools: bool = True,
  today: datetime.date = templates.DAY,
) -> 'Format':
  """A tokenizer with its chat format. That a format cannot be had is an error when it is needed,
  not here.

  Args:
    spec: of the tokenizer (see data/tokenizers/loading.py).
    name: 'auto': the template in the tokenizer's folder, else 'deepdive'; a name of
      templates.NAMED; or a .jinja file.
    extend: add the special tokens that the format lacks behind the largest id. They are also added
      to a tokenizer that has none to begin a document with: it is no model's yet.
    tools: with `extend`, add the tags of TAGS too (the format 'deepdive' always has them).
    today: the date that some templates tell the model.

  Raises:
    FileNotFoundError, UserError: as data.tokenizer.load; an unknown name.
  """
  path = files.as_path(spec)
  folder = (
    path
    if path.is_dir()
    else path.parent
    if path.name in ('tokenizer.json', 'tokenizer.model')
    else None
  )
  plain, variables = tokenizers.load(spec), templates.variables(folder)
  source, where = templates.find(name, folder)
  candidates = (BOS, variables.get('bos_token'), variables.get('eos_token'))
  start = next((token for token in candidates if token in plain.special_tokens), BOS)
  names = {template: n for n, template in templates.NAMED.items()}
  known = names.get(source) if source else 'deepdive'
  if known:
    variables['bos_token'] = start
  thinks = known != 'deepdive' and all(
    tag in plain.special_tokens or len(plain.encode(tag)) == 1 for tag in THINK
  )
  tags = TAGS | {'think': THINK} if thinks else TAGS
  tokenizer = plain
  if extend or start not in plain.special_tokens:
    wanted = [start, *templates.SPECIAL_TOKENS.get(known, ())]
    if tools or known == 'deepdive':
      wanted += [tag for pair in tags.values() for tag in pair]
    if known == 'deepdive':
      wanted.append(PAD)
    if set(wanted) - plain.special_tokens.keys():
      tokenizer = tokenizers.load(spec, wanted)
  if (
    source is None
    and not set(templates.SPECIAL_TOKENS['deepdive']) - tokenizer.special_tokens.keys()
  ):
    source, where = templates.NAMED['deepdive'], 'deepdive'
  return Format(tokenizer, start, source, where, variables, tags, plain.fingerprint, today)


def vocab_size(data: Any) -> int:
  """The number of ids of a new model's tokenizer, chat format included, from `config.data`."""
  chat_format = load(data.tokenizer, data.chat_format, extend=True, tools=data.tools)
  return chat_format.tokenizer.vocab_size


def fingerprint(folder: files.Path) -> str:
  """Of the tokenizer in a folder: what a checkpoint of its model records."""
  return load(os.fspath(folder)).tokenizer.fingerprint


@dataclasses.dataclass(frozen=True)
class Format:
  """A tokenizer, and how a model that uses it is talked to.

  Attributes:
    tokenizer: with the special tokens.
    start: name of the special token that begins a document: <|endoftext|>, or else the model's
      bos_token or eos_token.
    source: the Jinja chat template; None: there is none, as of a base model.
    where: the file that the template stands in, or its name in templates.NAMED; for errors.
    variables: the special tokens that the template may name.
    tags: names of the opening and closing tag of each kind of part; what the tokenizer lacks cannot
      be rendered.
    plain_fingerprint: the tokenizer's before special tokens were added. Other text has the same ids
      with either.
    today: the date that the template may tell.
  """

  tokenizer: Any
  start: str
  source: str | None
  where: str
  variables: dict[str, str]
  tags: dict[str, tuple[str, str]]
  plain_fingerprint: str
  today: datetime.date

  @functools.cached_property
  def layout(self) -> templates.Layout:
    """What stands around the texts. Raises UserError if the model has no format, or one that we
    cannot follow.
    """
    hint = (
      f'a format can be chosen: config.data.chat_format = {" | ".join(templates.NAMED)} | '
      'PATH.jinja'
    )
    if self.source is None:
      raise UserError(
        'the tokenizer has no chat template: its model was not trained to chat. When one is '
        f'trained, {hint}'
      )
    try:
      layout = templates.derive(self.source, self.variables, self.today)
    except UserError as error:
      raise UserError(f'{self.where}: {error}; {hint}') from error
    for stop in (layout.follow, layout.end):
      if not isinstance(next(iter(self._pieces(stop)), None), int):
        raise UserError(
          'no special token of the tokenizer stops an answer: the chat template goes on with '
          f'{stop!r}; {hint}'
        )
    return layout

  def check_layout(self) -> None:
    """Raises UserError, as `layout`, if conversations cannot be written in this format."""
    _ = self.layout

  @functools.cached_property
  def _around(self) -> dict[str, list[str | int]]:
    """The layout's strings with the ids of the special tokens that they name."""
    texts = {
      name: text for name, text in dataclasses.asdict(self.layout).items() if isinstance(text, str)
    }
    return {name: self._pieces(text) for name, text in texts.items()}

  @property
  def fingerprint(self) -> str:
    """SHA-256 of what decides how conversations become tokens, the tokenizer apart."""
    return files.digest([dataclasses.asdict(self.layout), self.tags])

  @functools.cached_property
  def stops(self) -> tuple[int, ...]:
    """The tokens that end an answer: mostly one, but some templates close the last turn with
    another.
    """
    return tuple(dict.fromkeys(self._around[where][0] for where in ('end', 'follow')))

  def banned_ids(self, vocab_size: int) -> tuple[int, ...]:
    """Ids that a model of `vocab_size` rows must not draw: the tags of a tool's result, and rows
    that are no token.
    """
    return (*self.tag_ids('output'), *range(self.tokenizer.vocab_size, vocab_size))

  @property
  def call_ids(self) -> tuple[int, ...]:
    """The token that ends a tool call; none if the tokenizer has no such tag."""
    return self.tag_ids('python')[1:]

  @property
  def document_start(self) -> int:
    """The token that begins a document of plain text."""
    return self.tokenizer.special_tokens[self.start]

  def tag_ids(self, kind: str) -> tuple[int, ...]:
    """The opening and the closing tag of a kind of part; none if the tokenizer has no such tags."""
    return tuple(
      self.tokenizer.special_tokens[tag]
      for tag in self.tags[kind]
      if tag in self.tokenizer.special_tokens
    )

  def save(self, folder: files.Path) -> None:
    """Writes the tokenizer's file and, if there is one, the chat template, as transformers reads
    them too.
    """
    self.tokenizer.save(folder)
    config = {'tokenizer_class': 'PreTrainedTokenizerFast'} | self.variables
    files.write_json(files.as_path(folder) / 'tokenizer_config.json', config)
    if self.source:
      files.write_text(files.as_path(folder) / 'chat_template.jinja', self.source)

  def render(
    self, conversation: dict, max_tokens: int | None = None
  ) -> tuple[list[int], list[int]]:
    """Tokens of a conversation to learn from, and which of them are to be learned.

    Args:
      conversation: an optional system turn, then user and assistant by turns; the last turn is the
        assistant's.
      max_tokens: if given, whole exchanges (a question and its answer) are left out from the end
        until it fits; the first is kept, whatever its length.

    Returns:
      (ids, mask), equally long. mask[i] is 1 where token i is the assistant's own: text, thoughts,
      tool calls and the token that stops it; 0 on headers, on what others said and on tool results.

    Raises:
      UserError: naming the message that is not as described.
    """
    messages = _checked(conversation, last='assistant')
    (stop, *before), (final, *after) = self._around['follow'], self._around['end']
    end = [final, *self._encode(_unlearned(after), inside=True)[0]]
    ids, mask, kept = [], [], 0
    items, said = self._opening(messages)
    for question, answer in zip(said[::2], said[1::2], strict=True):
      tokens, learned = self._encode(
        [*items, *self._question(question), *self._answer(answer)], inside=bool(ids)
      )
      ids += tokens
      mask += learned
      if kept and max_tokens is not None and len(ids) + len(end) > max_tokens:
        break
      kept = len(ids)
      ids.append(stop)
      mask.append(1)
      items = _unlearned(before)
    return [*ids[:kept], *end], [*mask[:kept], 1, *[0] * (len(end) - 1)]

  def render_prompt(self, messages: list[dict]) -> list[int]:
    """Tokens of a conversation whose last turn is the user's, ready to be completed by the
    assistant.
    """
    *past, question = _checked({'messages': messages}, last='user')
    items, said = self._opening([*past, question])
    follow = self._around['follow']
    for asked, answer in zip(said[:-1:2], said[1::2], strict=True):
      items += [*self._question(asked), *self._answer(answer), *_unlearned(follow)]
    return self._encode([*items, *self._question(question)], inside=False)[0]

  def render_next(self, text: str, stopped: bool) -> list[int]:
    """Tokens that follow an answer when the user goes on with `text`, up to where the next answer
    begins.

    Args:
      stopped: whether the answer ended with its stop token; one that was cut off gets it.
    """
    before = self._around['follow'][1:] if stopped else [self.layout.trail, *self._around['follow']]
    items = [*_unlearned(before), *self._question({'role': 'user', 'content': text})]
    return self._encode(items, inside=True)[0]

  def parse(self, ids: list[int]) -> dict:
    """The parts of a completion, however malformed; never raises.

    Args:
      ids: the tokens that follow a prompt, tool results included.

    Returns:
      {"content": [part, ...], "finished": bool, "well_formed": bool}: finished if the stop token
      came; well formed if, besides, everything opened was closed, each tool call has its result
      (and each result its call), no other special token occurs, and nothing but padding follows the
      end. Of a malformed reply the parts are kept as far as they go.
    """
    names = {index: name for name, index in self.tokenizer.special_tokens.items()}
    stops, pad = {names[i] for i in self.stops}, self.variables.get('pad_token', PAD)
    opened = {opening: kind for kind, (opening, _) in self.tags.items()}
    parts, kind, start, finished, good = [], 'text', 0, False, True

    def close(end):
      if kind != 'text' or end > start:
        text = self.tokenizer.decode(ids[start:end])
        parts.append(
          {
            'type': kind,
            'text': text if parts or kind != 'text' else text.removeprefix(self.layout.lead),
          }
        )

    for i, name in enumerate(map(names.get, ids)):
      if finished:
        good &= name == pad
      elif name is not None:
        close(i)
        if kind != 'text' and name == self.tags[kind][1]:
          kind = 'text'
        else:
          good &= kind == 'text' and (name in opened or name in stops)
          kind, finished = opened.get(name, 'text'), name in stops
        start = i + 1
    if not finished:
      close(len(ids))
    kinds = [part['type'] for part in parts]
    paired = all(
      (a == 'python') == (b == 'output')
      for a, b in zip([None, *kinds], [*kinds, None], strict=True)
    )
    return {'content': parts, 'finished': finished, 'well_formed': finished and good and paired}

  def answer_call(self, ids: list[int], tool: Callable[[str], str]) -> list[int]:
    """Tokens to force after a completion that ends in the closing tag of a call: the result of
    `tool` on it, in its tags.

    [] if the completion does not end in a call. A result always exists, as `tool` reports its own
    errors as text.
    """
    if not ids or ids[-1] not in self.call_ids:
      return []
    parts = self.parse(ids)['content']
    if not parts or parts[-1]['type'] != 'python':  # the tag closed nothing
      return []
    opening, closing = self._tags('output')
    return [opening, *self.tokenizer.encode_inside(tool(parts[-1]['text'])), closing]

  def _tags(self, kind: str) -> tuple[int, int]:
    if len(ids := self.tag_ids(kind)) < 2:
      raise UserError(
        f'the tokenizer has no special tokens for parts of type {kind!r}; config.data.tools=True '
        'adds them'
      )
    return ids

  def _pieces(self, text: str) -> list[str | int]:
    """Text of the template with the ids of the special tokens that it names."""
    specials = self.tokenizer.special_tokens
    pattern = '|'.join(map(re.escape, sorted(specials, key=len, reverse=True)))
    return [specials.get(piece, piece) for piece in re.split(f'({pattern})', text) if piece]

  def _opening(self, messages: list[dict]) -> tuple[list, list[dict]]:
    """What comes before the first question, and the turns from that on."""
    first = messages[0]
    if first['role'] != 'system':
      return _unlearned(self._around['start']), messages
    if self.layout.system is None:
      raise UserError(
        "messages[0].role is 'system'; the model's chat template has no place for a system turn"
      )
    return _unlearned(
      [*self._around['system'], self._text(first), *self._around['question']]
    ), messages[1:]

  def _question(self, message: dict) -> list[tuple[str | int, int]]:
    return _unlearned([self._text(message), *self._around['reply']])

  def _answer(self, message: dict) -> list[tuple[str | int, int]]:
    lead, trail = (self.layout.lead, 1), (self.layout.trail, 1)
    if all(part['type'] == 'text' for part in _parts(message['content'])):
      return [lead, (self._text(message), 1), trail]
    items = [lead]
    for part in _parts(message['content']):
      if part['type'] == 'text':
        items.append((part['text'], 1))
      else:
        opening, closing = self._tags(part['type'])
        learned = int(part['type'] != 'output')
        items += [(opening, learned), (part['text'], learned), (closing, learned)]
    return [*items, trail]

  def _text(self, message: dict) -> str:
    said = ''.join(part['text'] for part in _parts(message['content']))
    return said.strip() if message['role'] in self.layout.stripped else said

  def _encode(
    self, items: list[tuple[str | int, int]], inside: bool
  ) -> tuple[list[int], list[int]]:
    """Ids and mask of (id or text, learned). Between special tokens text is encoded in one piece,
    as templates are.

    Args:
      inside: whether other tokens come before.
    """
    ids, mask = [], []
    for special, group in itertools.groupby(items, key=lambda item: isinstance(item[0], int)):
      run = list(group)
      if special:
        ids += [index for index, _ in run]
        mask += [learned for _, learned in run]
        continue
      given, own = (''.join(text for text, learned in run if learned == value) for value in (0, 1))
      encode = self.tokenizer.encode_inside if inside or ids else self.tokenizer.encode
      # An answer goes on from the prompt's tokens, whatever it begins with.
      head = encode(given) if given else []
      tokens = encode(given + own) if own else head
      if tokens[: len(head)] != head:
        tokens = head + self.tokenizer.encode_inside(own)
      ids += tokens
      mask += [0] * len(head) + [1] * (len(tokens) - len(head))
    return ids, mask


def _unlearned(pieces: list[str | int]) -> list[tuple[str | int, int]]:
  return [(piece, 0) for piece in pieces]


def text(content: str | list[dict]) -> str:
  """What the assistant says at last: its text after the last tool result (all of it where there is
  none).
  """
  said = ''
  for part in _parts(content):
    if part['type'] == 'output':
      said = ''
    elif part['type'] == 'text':
      said += part['text']
  return said.strip()


def grade_format(reply: dict) -> float:
  """1.0 if a reply (of `Format.parse`) is finished by the stop token, well formed and says
  something, else 0.0.
  """
  return float(reply['finished'] and reply['well_formed'] and bool(text(reply['content'])))


def check(conversation: Any) -> None:
  """Raises a UserError that names the field at fault if this is not a conversation that
  `Format.render` takes.
  """
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
      raise UserError(
        f'messages[{first + i}].role is {role!r} where {expected!r} is due: user and assistant '
        'alternate'
      )
  if roles[-1] != last:
    raise UserError(
      f'messages[{len(roles) - 1}].role, the last, is {roles[-1]!r}; it must be {last!r}'
    )
  return messages


def _check_message(message: Any, where: str) -> None:
  if not isinstance(message, dict) or not {'role', 'content'} <= message.keys():
    raise UserError(f'{where} must have "role" and "content"; found {message!r:.80}')
  if message['role'] not in ROLES:  # a tuple: what was given may not be hashable
    raise unknown(f'{where}.role', message['role'], ROLES)
  content = message['content']
  if not isinstance(content, str | list):
    raise UserError(f'{where}.content must be text or a list of parts; found {content!r:.80}')
  allowed = ('text', *TAGS) if message['role'] == 'assistant' else ('text',)
  for j, part in enumerate(_parts(content)):
    if not isinstance(part, dict) or not isinstance(part.get('text'), str) or 'type' not in part:
      raise UserError(f'{where}.content[{j}] must have "type" and "text"; found {part!r:.80}')
    if part['type'] not in allowed:
      raise unknown(
        f'{where}.content[{j}].type in a turn of {message["role"]}', part['type'], allowed
      )
  if not any(part['text'].strip() for part in _parts(content)):
    raise UserError(f'{where}.content is empty')
