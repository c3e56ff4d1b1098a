"""Reduces a model's Jinja chat template to the constant text that it writes around messages.

In a conversation an optional system turn is followed by questions and answers in turn. Whatever a
template does, what it writes around their texts amounts to a few constant strings, a `Layout`:

  [system SYSTEM question | start] QUESTION reply lead ANSWER trail follow QUESTION reply lead
  ANSWER ... trail end

They are read from probe conversations rendered with the template, which may contain dates, a
default system turn or a name for the assistant. Other probes then prove that the strings give what
the template gives. So no model's format has to be known here.

A template is an untrusted program. Jinja's sandbox bounds what it can access, but not its time and
memory: two nested loops, a list doubled sixty times (`[x, x]`) or `9**(9**9)` would never end. So
it runs in a separate process, which the operating system ends at a limit.

To add a named format, add it to NAMED and SPECIAL_TOKENS.
"""

import contextlib
import dataclasses
import datetime
import functools
import json
import pathlib
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

from lm.base import errors, files
from lm.base.errors import UserError

# Formats for models that have none, by name. `bos_token` and the like come from the tokenizer (see
# `variables`).
NAMED = {
  'deepdive': (
    '{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}'
    '{% if add_generation_prompt %}<|assistant|>{% endif %}'
  ),
  'chatml': (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>{{ '\n' }}"
    '{% endfor %}'
    "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"
  ),
  'llama3': (
    '{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>'
    "{{ '\n\n' + m.content | trim }}<|eot_id|>{% endfor %}"
    '{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>'
    "{{ '\n\n' }}{% endif %}"
  ),
  'gemma': (
    '{{ bos_token }}{% for m in messages %}'
    "{% if m.role == 'system' %}{{ raise_exception('Gemma has no system turn') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}"
    "{{ '\n' + m.content | trim }}<end_of_turn>{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model{{ '\n' }}{% endif %}"
  ),
}
# What errors say besides.
HINT = (
  'config.data.chat_format can choose a format when a model is trained: '
  f'{" | ".join([*NAMED, "PATH.jinja"])}.'
)
# The special tokens of the formats besides bos_token.
SPECIAL_TOKENS = {
  'deepdive': ('<|system|>', '<|user|>', '<|assistant|>', '<|end|>'),
  'chatml': ('<|im_start|>', '<|im_end|>'),
  'llama3': ('<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'),
  'gemma': ('<start_of_turn>', '<end_of_turn>'),
}
# The date that templates tell in training data, which must not depend on the day it is made.
DAY = datetime.date(2025, 1, 1)
CPU_SECONDS = 5  # processor time for a template; published templates take 0.2 s
WALL_SECONDS = 300  # elapsed time for a template, on a machine that may be busy
MEMORY_BYTES = 2**30  # address space of the template's process, Python included
MAX_CHARS = 100_000  # length of a template, and of a conversation that it renders
VARIABLES = (
  'bos_token',
  'eos_token',
  'unk_token',
  'pad_token',
  'sep_token',
  'cls_token',
  'mask_token',
)


@dataclasses.dataclass(frozen=True)
class Layout:
  """What a template writes around the texts of a conversation; special tokens appear by name."""

  start: str  # before the first question, if there is no system turn
  system: str | None  # before the text of a system turn; None if the template allows none
  question: str  # between the system turn and the first question
  reply: str  # between a question and its answer; a prompt ends with it
  lead: str  # white space that begins an answer
  trail: str  # white space that ends an answer
  follow: str  # between an answer and the next question
  end: str  # after the last answer
  stripped: tuple[str, ...]  # roles whose texts are stripped of surrounding white space

  def text(self, messages: Sequence[dict]) -> str:
    """Returns the prompt of a conversation as one string.

    Args:
      messages: {role, content} of each turn.
    """
    said = [m['content'].strip() if m['role'] in self.stripped else m['content'] for m in messages]
    if messages[0]['role'] == 'system':
      system, first, *said = said
      written = [self.system, system, self.question, first]
    else:
      first, *said = said
      written = [self.start, first]
    for answer, question in zip(said[::2], said[1::2], strict=True):
      written += [self.reply, self.lead, answer, self.trail, self.follow, question]
    return ''.join([*written, self.reply])


def derive(source: str, variables: dict[str, str], today: datetime.date = DAY) -> Layout:
  """Returns the layout of a Jinja chat template.

  What precedes an answer is what the template prompts the model with, even if it writes finished
  conversations differently (Qwen3 puts an empty thought before their last answer).

  Args:
    source: the template.
    variables: special tokens that the template may name (see `variables`).
    today: the date that it may tell the model.

  Raises:
    UserError: the template is broken, exceeds the limits of this module, or does more than put
      constant text around the messages.
  """
  if len(source) > MAX_CHARS:
    field = 'number of characters of the chat template'
    raise _refused(field, len(source), f'at most {MAX_CHARS:,}')
  return _derive_apart(source, tuple(sorted(variables.items())), today, CPU_SECONDS)


@functools.lru_cache(maxsize=64)
def _derive_apart(
  source: str, variables: tuple[tuple[str, str], ...], today: datetime.date, cpu_seconds: int
) -> Layout:
  """Returns `derive` of its arguments, computed in a separate process."""
  request = json.dumps([source, dict(variables), today.isoformat(), cpu_seconds])
  command = [sys.executable, '-c', 'from data.chat import templates; templates.answer()']
  try:
    done = subprocess.run(
      command,
      cwd=pathlib.Path(__file__).parents[2],
      input=request,
      text=True,
      capture_output=True,
      timeout=WALL_SECONDS,
      check=False,
    )
  except subprocess.TimeoutExpired as error:
    raise _too_much('time', f'{WALL_SECONDS} s') from error
  if -done.returncode in (signal.SIGKILL, signal.SIGXCPU):
    raise _too_much('processor time', f'{cpu_seconds} s')
  if done.returncode < 0:
    crash = f'Python ends by {signal.Signals(-done.returncode).name}'
    raise _refused('error of the chat template', crash, 'none')
  if done.returncode:
    raise RuntimeError(f'reading a chat template failed:\n{done.stderr}')
  answer = json.loads(done.stdout)
  if 'refused' in answer:
    raise _refused(*answer['refused'])
  return Layout(**answer['layout'] | {'stripped': tuple(answer['layout']['stripped'])})


def _refused(field: str, value: object, allowed: str) -> UserError:
  """Returns an error about a template."""
  return UserError(field=field, value=value, allowed=allowed, message=HINT)


def _too_much(what: str, most: str) -> UserError:
  """Returns the error about a template that exceeds a limit."""
  return _refused(f'{what} that the chat template takes', f'more than {most}', f'at most {most}')


def answer() -> None:
  """Answers a request of `_derive_apart` on standard input.

  The answer is {"layout": ...}, or {"refused": the arguments of `_refused`}.

  It limits the resources of its own process first.
  """
  source, variables, today, cpu_seconds = json.load(sys.stdin)
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
  with contextlib.suppress(ValueError):  # macOS does not support this limit
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
  refused = None
  try:
    with _failures_told():
      template = _environment(datetime.date.fromisoformat(today)).from_string(source)
    result = {'layout': dataclasses.asdict(_derive(template, variables))}
  except UserError as error:
    refused = error
  except MemoryError:
    refused = _too_much('memory', f'{MEMORY_BYTES >> 20} MB')
  except _TooLong:
    refused = _too_much('text', f'{MAX_CHARS:,} characters')
  if refused:
    result = {'refused': [refused.field, refused.value, refused.allowed]}
  json.dump(result, sys.stdout)


class _TooLong(Exception):
  """A rendered conversation exceeds MAX_CHARS."""


@contextlib.contextmanager
def _failures_told() -> Iterator[None]:
  """Turns whatever a template raises into a UserError, except for exceeding a limit."""
  try:
    yield
  except (MemoryError, _TooLong):
    raise
  except Exception as error:  # the template may raise anything
    what = str(error)[:500] or type(error).__name__
    raise _refused('error of the chat template', what, 'none') from error


def _derive(template: jinja2.Template, variables: dict[str, str]) -> Layout:
  """Returns the layout of a compiled template."""

  def render(messages, prompt=True):
    given = {
      'messages': messages,
      'add_generation_prompt': prompt,
      'tools': None,
      'documents': None,
    }
    parts, length = [], 0
    with _failures_told():
      for part in template.generate(given | variables):
        length += len(part)
        if length > MAX_CHARS:
          raise _TooLong
        parts.append(part)
    return ''.join(parts)

  system, *said = [f'Probe{i}text' for i in range(6)]
  conversation = _conversation(said)
  start, reply = _cut(render(conversation[:1]), said[:1])
  *_, before, follow, _ = _cut(render(conversation[:3]), said[:3])
  end = _cut(render(conversation[:2], prompt=False), said[:2])[-1]
  lead = before.removeprefix(reply)
  if not before.startswith(reply) or lead.strip():
    field = 'what the chat template writes before an answer'
    raise _refused(field, before, f'what it prompts with, {reply[:100]!r}')
  trail = follow[: len(follow) - len(follow.lstrip())]
  if end.startswith(trail):
    follow, end = follow.removeprefix(trail), end.removeprefix(trail)
  else:
    trail = ''
  layout = Layout(
    start=start,
    system=None,
    question='',
    reply=reply,
    lead=lead,
    trail=trail,
    follow=follow,
    end=end,
    stripped=(),
  )
  try:
    before, question, _ = _cut(render(_conversation(said[:1], system)), [system, said[0]])
    layout = dataclasses.replace(layout, system=before, question=question)
    _prove(layout, render, [_conversation(said[:n], system) for n in (1, 3, 5)])
  except UserError:  # the template refuses a system turn, or moves it within the conversation
    layout = dataclasses.replace(layout, system=None, question='')
  spaced = _conversation([f'\t{text}\t' for text in said], layout.system and f'\t{system}\t')
  rendered = render(spaced)
  stripped = {m['role'] for m in spaced if m['content'] not in rendered}
  layout = dataclasses.replace(layout, stripped=tuple(sorted(stripped)))
  other = _conversation(['Two\nlines', ' Spaces  inside ', '1 + 1'])
  _prove(layout, render, [conversation[:1], conversation[:3], conversation, other])
  longer = render(conversation[:4], prompt=False)
  if not longer.endswith(said[3] + trail + end):
    raise _refused(
      'end of a longer conversation as the chat template writes it',
      longer.rpartition(said[3])[2],
      f'that of a short one, {(trail + end)[:100]!r}',
    )
  return layout


def _conversation(texts: Sequence[str], system: str | None = None) -> list[dict]:
  """Returns a conversation of these texts, with a system turn if `system` is given."""
  turns = [{'role': ('user', 'assistant')[i % 2], 'content': text} for i, text in enumerate(texts)]
  return [{'role': 'system', 'content': system}] * bool(system) + turns


def _cut(rendered: str, texts: Sequence[str]) -> list[str]:
  """Returns the text before, between and after `texts`.

  Raises UserError unless each of them occurs once, in order.
  """
  parts, whole = [], rendered
  for text in texts:
    part, found, rendered = rendered.partition(text)
    if not found or text in rendered:
      raise _refused('what the chat template writes', whole, 'each turn once and in order')
    parts.append(part)
  return [*parts, rendered]


def _prove(layout: Layout, render: Any, conversations: Sequence[list[dict]]) -> None:
  """Raises UserError unless the layout gives what the template gives for these conversations."""
  for conversation in conversations:
    if layout.text(conversation) != (rendered := render(conversation)):
      raise _refused('what the chat template writes', rendered, 'constant text around the turns')


class _Generation(jinja2.ext.Extension):
  """Ignores `{% generation %}`, which marks the assistant's text for Hugging Face's trainers."""

  tags = frozenset({'generation'})

  def parse(self, parser: Any) -> list:
    next(parser.stream)
    return parser.parse_statements(['name:endgeneration'], drop_needle=True)


def _environment(today: datetime.date) -> jinja2.Environment:
  """Returns a sandboxed environment with what transformers' apply_chat_template provides."""
  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=['jinja2.ext.loopcontrols', _Generation]
  )

  def refuse(message):
    raise jinja2.TemplateError(message)

  def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
      value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )

  environment.filters['tojson'] = tojson
  environment.globals |= {'raise_exception': refuse, 'strftime_now': today.strftime}
  return environment


def find(name: str, folder: pathlib.Path | None) -> tuple[str | None, str]:
  """Returns the text of a template and where it was found: a file, or a name in NAMED.

  The text is None if 'auto' finds no template.

  Args:
    name: 'auto' (the folder's own), a name in NAMED, or the path of a .jinja file.
    folder: the tokenizer's folder, with chat_template.jinja, or with a chat_template in
      tokenizer_config.json; None if there is none.
  """
  if name in NAMED:
    return NAMED[name], name
  if name.endswith('.jinja'):
    return _read(files.as_path(name)), name
  if name != 'auto':
    raise errors.unknown('chat format', name, ('auto', *NAMED, 'PATH.jinja'))
  if folder and (folder / 'chat_template.jinja').exists():
    return _read(folder / 'chat_template.jinja'), str(folder / 'chat_template.jinja')
  where = str(folder / 'tokenizer_config.json') if folder else ''
  found = _config(folder).get('chat_template')
  if isinstance(found, list):  # several templates by name
    named = [x for x in found if isinstance(x, dict) and x.get('name') == 'default']
    found = named[0].get('template') if named else None
  if not isinstance(found, str | None):
    allowed = 'a string, or a list with a template named "default"'
    raise UserError(field='chat_template', value=found, allowed=allowed).at(where)
  return found, where


def _read(path: Any) -> str:
  """Returns the text of a template file. Raises UserError that names it if it is not text."""
  if (size := files.size(path)) > 4 * MAX_CHARS:
    raise UserError(
      field=f'the size of {path}',
      value=f'{size:,} bytes',
      allowed=f'a chat template of at most {MAX_CHARS:,} characters',
    )
  try:
    return path.read_text(encoding='utf-8')
  except UnicodeDecodeError as error:
    raise errors.invalid(path, 'UTF-8 text', error) from error


def variables(folder: pathlib.Path | None) -> dict[str, str]:
  """Returns a folder's special tokens by role: {'bos_token': '<s>', ...}."""
  found = {name: value for name, value in _config(folder).items() if name in VARIABLES and value}
  for name, value in found.items():
    found[name] = value.get('content') if isinstance(value, dict) else value
    if not isinstance(found[name], str):
      where = folder / 'tokenizer_config.json'
      raise UserError(field=name, value=value, allowed='a string').at(where)
  return found


def _config(folder: pathlib.Path | None) -> dict:
  path = folder / 'tokenizer_config.json' if folder else None
  return files.read_object(path) if path and path.exists() else {}
