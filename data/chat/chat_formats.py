"""Converts conversations to tokens and a loss mask, in the format of the model's chat template.

It also converts completions back to parts. This is the only module that knows the special tokens.
In this project's own format ('deepdive') a conversation becomes

  <|endoftext|><|system|>...<|end|><|user|>...<|end|><|assistant|>...<|end|><|user|>...

With another model it becomes what that model's own template writes (data/chat/templates.py). Inside
an assistant's turn a tool call with its result is `<|python|>1+1<|/python|><|output|>2<|/output|>`;
the text of a call says which tool it is for (data/tools/toolbox.py). Texts of messages are encoded
by `tokenizer.encode`, which never produces a special id, so no text can forge one. (Some formats,
such as Llama 2's and OLMo 2's, write parts of their headers in plain text. Those can be typed; the
stop token cannot.)

data/chat/schema.py says what a conversation is.
"""

import dataclasses
import datetime
import functools
import itertools
import os
import re
from collections.abc import Callable
from typing import Any

from data.chat import schema, templates
from data.tokenizers import loading as tokenizers
from lm.base import files
from lm.base.errors import UserError

BOS, PAD = '<|endoftext|>', '<|pad|>'  # BOS begins every document
# The opening and the closing tag of each kind of part.
TAGS = {kind: (f'<|{kind}|>', f'<|/{kind}|>') for kind in schema.KINDS}
THINK = ('<think>', '</think>')  # used for thoughts if the vocabulary has them
# The special tokens of tokenizers that this project trains.
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
  """Returns a tokenizer with its chat format.

  A format that cannot be derived is an error when it is needed, not here.

  Args:
    spec: the tokenizer (see data/tokenizers/loading.py).
    name: 'auto' for the template in the tokenizer's folder, else 'deepdive'; a name in
      templates.NAMED; or a .jinja file.
    extend: add the special tokens that the format lacks after the largest id. They are always added
      to a tokenizer without a token that begins a document, because no model uses it yet.
    tools: with `extend`, add the tags of TAGS, too. The format 'deepdive' always has them.
    today: the date that some templates tell the model.

  Raises:
    FileNotFoundError, UserError: see data.tokenizers.loading.load; or the name is unknown.
  """
  path, folder = files.as_path(spec), None
  if path.is_dir():
    folder = path
  elif path.name in ('tokenizer.json', 'tokenizer.model'):
    folder = path.parent
  plain, variables = tokenizers.load(spec), templates.variables(folder)
  source, where = templates.find(name, folder)
  candidates = (BOS, variables.get('bos_token'), variables.get('eos_token'))
  start = next((token for token in candidates if token in plain.special_tokens), BOS)
  names = {template: n for n, template in templates.NAMED.items()}
  known = names.get(source) if source else 'deepdive'
  if known:
    variables['bos_token'] = start
  tags = TAGS
  if known != 'deepdive':
    one_token = [tag in plain.special_tokens or len(plain.encode(tag)) == 1 for tag in THINK]
    if all(one_token):
      tags = TAGS | {'think': THINK}
  tokenizer = plain
  if extend or start not in plain.special_tokens:
    wanted = [start, *templates.SPECIAL_TOKENS.get(known, ())]
    if tools or known == 'deepdive':
      wanted += [tag for pair in tags.values() for tag in pair]
    if known == 'deepdive':
      wanted.append(PAD)
    if set(wanted) - plain.special_tokens.keys():
      tokenizer = tokenizers.load(spec, wanted)
  own_tokens = set(templates.SPECIAL_TOKENS['deepdive'])
  if source is None and own_tokens <= tokenizer.special_tokens.keys():
    source, where = templates.NAMED['deepdive'], 'deepdive'
  return Format(
    tokenizer=tokenizer,
    start=start,
    source=source,
    where=where,
    variables=variables,
    tags=tags,
    plain_fingerprint=plain.fingerprint,
    today=today,
  )


def vocab_size(data: Any) -> int:
  """Returns the number of ids of a new model's tokenizer, chat format included.

  Args:
    data: `config.data` of a run.
  """
  chat_format = load(data.tokenizer, data.chat_format, extend=True, tools=data.tools)
  return chat_format.tokenizer.vocab_size


def fingerprint(folder: files.Path) -> str:
  """Returns the fingerprint of the tokenizer in a folder, as checkpoints of its model record it."""
  return load(os.fspath(folder)).tokenizer.fingerprint


@dataclasses.dataclass(frozen=True)
class Format:
  """A tokenizer, and the format of conversations with a model that uses it.

  Attributes:
    tokenizer: the tokenizer with the special tokens.
    start: name of the special token that begins a document: <|endoftext|>, or else the model's
      bos_token or eos_token.
    source: the Jinja chat template; None if there is none, as for a base model.
    where: the file that contains the template, or its name in templates.NAMED, for errors.
    variables: the special tokens that the template may name.
    tags: names of the opening and the closing tag of each kind of part. A part whose tags the
      tokenizer lacks cannot be rendered.
    plain_fingerprint: fingerprint of the tokenizer before special tokens were added. Other text has
      the same ids with both.
    today: the date that the template may tell the model.
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
    """The constant text around the messages.

    Raises UserError if the model has no chat format, or one that is not supported.
    """
    if self.source is None:
      raise UserError(
        field='chat template of the tokenizer',
        message=f'Its model was not trained to chat. {templates.HINT}',
      )
    try:
      layout = templates.derive(self.source, self.variables, self.today)
    except UserError as error:
      raise error.at(self.where) from error
    for stop in (layout.follow, layout.end):
      if not isinstance(next(iter(self._pieces(stop)), None), int):
        raise UserError(
          field='what the chat template writes after an answer',
          value=stop,
          allowed='a special token of the tokenizer, at which an answer stops',
          message=templates.HINT,
        ).at(self.where)
    return layout

  def check_layout(self) -> None:
    """Raises UserError, as `layout` does, if conversations cannot be written in this format."""
    _ = self.layout

  @functools.cached_property
  def _around(self) -> dict[str, list[str | int]]:
    """The layout's strings as lists of text and ids of special tokens."""
    fields = dataclasses.asdict(self.layout)
    texts = {name: text for name, text in fields.items() if isinstance(text, str)}
    return {name: self._pieces(text) for name, text in texts.items()}

  @property
  def fingerprint(self) -> str:
    """SHA-256 (hex) of what determines how conversations become tokens, except the tokenizer."""
    return files.digest([dataclasses.asdict(self.layout), self.tags])

  @functools.cached_property
  def stops(self) -> tuple[int, ...]:
    """The tokens that end an answer.

    There is usually one, but some templates end the last turn with another.
    """
    return tuple(dict.fromkeys(self._around[where][0] for where in ('end', 'follow')))

  def banned_ids(self, vocab_size: int) -> tuple[int, ...]:
    """Returns the ids that a model of `vocab_size` rows must not draw.

    These are the tags of a tool's result, and the rows beyond the tokenizer's ids.
    """
    return (*self.tag_ids('output'), *range(self.tokenizer.vocab_size, vocab_size))

  @property
  def call_ids(self) -> tuple[int, ...]:
    """The token that ends a tool call; empty if the tokenizer has no such tag."""
    return self.tag_ids('python')[1:]

  @property
  def document_start(self) -> int:
    """The token that begins a document of plain text."""
    return self.tokenizer.special_tokens[self.start]

  def tag_ids(self, kind: str) -> tuple[int, ...]:
    """Returns the opening and the closing tag of a kind of part, or () if there are none."""
    specials = self.tokenizer.special_tokens
    return tuple(specials[tag] for tag in self.tags[kind] if tag in specials)

  def save(self, folder: files.Path) -> None:
    """Writes the tokenizer and, if there is one, the chat template, in transformers' format."""
    self.tokenizer.save(folder)
    config = {'tokenizer_class': 'PreTrainedTokenizerFast'} | self.variables
    files.write_json(files.as_path(folder) / 'tokenizer_config.json', config)
    if self.source:
      files.write_text(files.as_path(folder) / 'chat_template.jinja', self.source)

  def render(
    self, conversation: dict, max_tokens: int | None = None
  ) -> tuple[list[int], list[int]]:
    """Returns the tokens of a conversation to learn from, and the loss mask.

    Args:
      conversation: an optional system turn, then user and assistant in turn. The last turn is the
        assistant's.
      max_tokens: if given, whole exchanges (a question and its answer) are dropped from the end
        until the rest fits. The first is kept whatever its length.

    Returns:
      (ids, mask), equally long. mask[i] is 1 where token i is the assistant's own: text, thoughts,
      tool calls and the token that stops it. It is 0 on headers, on other messages and on tool
      results.

    Raises:
      UserError: a message is not as described; the error names it.
    """
    messages = schema.checked(conversation, last='assistant')
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

  def render_prompt(self, messages: list[dict], *, blank_answers: bool = False) -> list[int]:
    """Returns the tokens of a conversation for the model to answer.

    It ends with a user turn, or with an assistant's turn whose last part is the result of a tool:
    then the model continues that turn.

    Args:
      messages: the conversation.
      blank_answers: whether earlier answers may be blank, as those of a model sometimes are.

    Raises:
      UserError: a message is not as described; the error names it.
    """
    open_turn = messages[-1:] if _ends_with_result(messages) else []
    last = 'assistant' if open_turn else 'user'
    checked = schema.checked({'messages': messages}, last, blank_answers=blank_answers)
    items, said = self._opening(checked[: len(checked) - len(open_turn)])
    follow = self._around['follow']
    for asked, answer in zip(said[:-1:2], said[1::2], strict=True):
      items += [*self._question(asked), *self._answer(answer), *_unlearned(follow)]
    items += self._question(said[-1])
    if open_turn:
      items += self._answer(open_turn[0])[:-1]  # without the white space that ends an answer
    return self._encode(items, inside=False)[0]

  def render_next(self, text: str, stopped: bool) -> list[int]:
    """Returns the tokens between an answer and the next, when the user's next message is `text`.

    Args:
      text: the user's message.
      stopped: whether the answer ended with its stop token. An answer that was cut off gets one.
    """
    before = self._around['follow'][1:] if stopped else [self.layout.trail, *self._around['follow']]
    items = [*_unlearned(before), *self._question({'role': 'user', 'content': text})]
    return self._encode(items, inside=True)[0]

  def parse(self, ids: list[int]) -> dict:
    """Returns the parts of a completion, however malformed. It never raises.

    Args:
      ids: the tokens that follow a prompt, tool results included.

    Returns:
      {"content": [part, ...], "finished": bool, "well_formed": bool}. A completion is finished if
      it has the stop token. It is well formed if, besides, everything opened was closed, each tool
      call has its result (and each result its call), no other special token occurs, and only
      padding follows the end. A malformed reply has the parts that could be read.
    """
    names = {index: name for name, index in self.tokenizer.special_tokens.items()}
    stops, pad = {names[i] for i in self.stops}, self.variables.get('pad_token', PAD)
    opened = {opening: kind for kind, (opening, _) in self.tags.items()}
    parts, kind, start, finished, good = [], 'text', 0, False, True

    def close(end):
      if kind != 'text' or end > start:
        text = self.tokenizer.decode(ids[start:end])
        if kind == 'text' and not parts:  # an answer begins with the layout's lead
          text = text.removeprefix(self.layout.lead)
        parts.append({'type': kind, 'text': text})

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
    kinds = [None, *(part['type'] for part in parts), None]
    pairs = itertools.pairwise(kinds)
    paired = all((kind == 'python') == (following == 'output') for kind, following in pairs)
    return {'content': parts, 'finished': finished, 'well_formed': finished and good and paired}

  def answer_call(self, ids: list[int], tool: Callable[[str], str]) -> list[int]:
    """Returns the tokens to force after a tool call: the result of `tool`, in its tags.

    The result is [] if the completion does not end in the closing tag of a call. `tool` must report
    its own errors as text.
    """
    if not ids or ids[-1] not in self.call_ids:
      return []
    parts = self.parse(ids)['content']
    if not parts or parts[-1]['type'] != 'python':  # the closing tag had no opening tag
      return []
    opening, closing = self._tags('output')
    return [opening, *self.tokenizer.encode_inside(tool(parts[-1]['text'])), closing]

  def _tags(self, kind: str) -> tuple[int, int]:
    """Returns the opening and the closing tag of a kind of part.

    Raises UserError if the tokenizer has no such tags.
    """
    if len(ids := self.tag_ids(kind)) < 2:
      raise UserError(
        field='type of a part',
        value=kind,
        allowed='text',
        message='The tokenizer has no special tokens for other parts; config.data.tools=True adds '
        'them.',
      )
    return ids

  def _pieces(self, text: str) -> list[str | int]:
    """Returns the text of a template as a list of text and ids of special tokens."""
    specials = self.tokenizer.special_tokens
    pattern = '|'.join(map(re.escape, sorted(specials, key=len, reverse=True)))
    return [specials.get(piece, piece) for piece in re.split(f'({pattern})', text) if piece]

  def _opening(self, messages: list[dict]) -> tuple[list, list[dict]]:
    """Returns what comes before the first question, and the turns from that question on."""
    first = messages[0]
    if first['role'] != 'system':
      return _unlearned(self._around['start']), messages
    if self.layout.system is None:
      raise UserError(
        field='messages[0].role',
        value='system',
        allowed=('user',),
        message="The model's chat template does not allow a system turn.",
      )
    opening = [*self._around['system'], self._text(first), *self._around['question']]
    return _unlearned(opening), messages[1:]

  def _question(self, message: dict) -> list[tuple[str | int, int]]:
    return _unlearned([self._text(message), *self._around['reply']])

  def _answer(self, message: dict) -> list[tuple[str | int, int]]:
    lead, trail = (self.layout.lead, 1), (self.layout.trail, 1)
    if all(part['type'] == 'text' for part in schema.parts(message['content'])):
      return [lead, (self._text(message), 1), trail]
    items = [lead]
    for part in schema.parts(message['content']):
      if part['type'] == 'text':
        items.append((part['text'], 1))
      else:
        opening, closing = self._tags(part['type'])
        learned = int(part['type'] != 'output')
        items += [(opening, learned), (part['text'], learned), (closing, learned)]
    return [*items, trail]

  def _text(self, message: dict) -> str:
    said = ''.join(part['text'] for part in schema.parts(message['content']))
    return said.strip() if message['role'] in self.layout.stripped else said

  def _encode(
    self, items: list[tuple[str | int, int]], inside: bool
  ) -> tuple[list[int], list[int]]:
    """Returns ids and mask of items (id or text, whether it is learned).

    The text between special tokens is encoded in one piece, as templates are.

    Args:
      items: the items.
      inside: whether other tokens come before.
    """
    ids, mask = [], []
    for special, group in itertools.groupby(items, key=lambda item: isinstance(item[0], int)):
      run = list(group)
      if special:
        ids += [index for index, _ in run]
        mask += [learned for _, learned in run]
        continue
      given = ''.join(text for text, learned in run if not learned)
      own = ''.join(text for text, learned in run if learned)
      encode = self.tokenizer.encode_inside if inside or ids else self.tokenizer.encode
      # An answer continues the prompt's tokens, whatever it begins with.
      head = encode(given) if given else []
      tokens = encode(given + own) if own else head
      if tokens[: len(head)] != head:
        tokens = head + self.tokenizer.encode_inside(own)
      ids += tokens
      mask += [0] * len(head) + [1] * (len(tokens) - len(head))
    return ids, mask


def _unlearned(pieces: list[str | int]) -> list[tuple[str | int, int]]:
  return [(piece, 0) for piece in pieces]


def grade_format(reply: dict) -> float:
  """Returns 1.0 if a reply of `Format.parse` is finished, well formed and has text, else 0.0."""
  return float(reply['finished'] and reply['well_formed'] and bool(schema.text(reply['content'])))


def _ends_with_result(messages: Any) -> bool:
  """Returns whether the last turn ends with the result of a tool."""
  last = messages[-1] if isinstance(messages, list) and messages else None
  content = last.get('content') if isinstance(last, dict) else None
  part = content[-1] if isinstance(content, list) and content else None
  return isinstance(part, dict) and part.get('type') == 'output'
