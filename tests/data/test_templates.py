"""Layouts of chat templates."""

import concurrent.futures
import datetime
import itertools
import json

import pytest
from chat_templates import (
  GEMMA,
  LLAMA_2,
  LLAMA_3_2,
  MISTRAL,
  NO_SYSTEM,
  PROMPT,
  QWEN3,
  TURNS,
)
from refusals import refused

from data.chat import templates
from lm.base.errors import UserError

VARIABLES = {'bos_token': '<s>', 'eos_token': '</s>'}
WRITES = 'what the chat template writes'


@pytest.mark.slow
def test_templates_that_write_the_same_have_one_layout():
  """That the layouts are right is tested beside transformers, in test_chat_formats.py."""
  chatml = templates.derive(templates.NAMED['chatml'], {})
  assert templates.derive(TURNS + PROMPT, {}) == templates.derive(QWEN3, {}) == chatml
  others = [templates.derive(text, VARIABLES) for text in (GEMMA, NO_SYSTEM, MISTRAL, LLAMA_2)]
  assert all(a != b for a, b in itertools.combinations([chatml, *others], 2))


def test_a_date_is_the_given_day():
  layout = templates.derive(LLAMA_3_2, VARIABLES, datetime.date(2031, 5, 17))
  assert layout.system == '<s><|start_header_id|>system<|end_header_id|>\n\nToday: 17 May 2031\n\n'
  assert layout.start == layout.system + '<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n'
  assert templates.derive(LLAMA_3_2, VARIABLES) == templates.derive(LLAMA_3_2, VARIABLES) != layout


@pytest.mark.slow
@pytest.mark.parametrize(('source', 'field', 'allowed'), [
  ('{% for', 'error of the chat template', 'none'),
  ('{{ raise_exception("never") }}', 'error of the chat template', 'none'),
  ('{{ messages[0].content + 1 }}', 'error of the chat template', 'none'),
  ("{{ ''.__class__.__mro__ }}", 'error of the chat template', 'none'),  # the sandbox
  ('{{ messages[-1].content }}', WRITES, 'each turn once and in order'),
  ('{% for m in messages %}{{ m.content + m.content }}{% endfor %}', WRITES,
   'each turn once and in order'),
  ('{% for m in messages %}<a>{{ m.content }}({{ loop.index }}){% endfor %}',
   f'{WRITES} before an answer', "what it prompts with, '(1)'"),
  (TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
   f'{WRITES} before an answer', "what it prompts with, '<|im_end|>\\n<|im_start|>assistant\\n<think>\\n'"),
  ("{% for m in messages %}{{ m.content.replace('\n', ' ') }}|{% endfor %}", WRITES,
   'constant text around the turns'),
])  # fmt: skip
def test_templates_that_cannot_be_followed_are_refused(source, field, allowed):
  with refused(field, allowed=allowed):
    templates.derive(source, VARIABLES)


def test_what_a_template_says_of_its_failure_is_told():
  with refused('error of the chat template', 'never'):
    templates.derive('{{ raise_exception("never") }}', VARIABLES)


# Programs that would take for ever, or more memory than there is, or fail.
SIXTY_TIMES = (
  '{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = NEXT %}{% endfor %}'
)
HOSTILE = {
  'nested loops': '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}',
  'filters that loop': '{% for i in range(99999) %}{{ range(99999) | sum and "" }}{% endfor %}',
  'recursive loop': '{% for i in range(9) recursive %}{{ loop(range(9)) }}{% endfor %}',
  'doubling macro': '{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro '
  '%}{{ m(60) }}',
  'endless macro': '{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}',
  'a long range': '{% for i in range(10**12) %}{% endfor %}',
  'repetition': '{{ "x" * 10**9 }}',
  'repetition of lists': '{{ ([0] * 10**10) | length }}',
  'padding': '{{ "x".center(10**10) }}',
  'format': '{{ "%01000000000d" % 1 }}',
  'format filter': '{{ "{:>10000000000}".format(1) }}',
  'indentation': '{{ "x" | indent(10**10, first=True) }}',
  'bytes': '{{ (1).to_bytes(10**10, "big") | length }}',
  'doubling text': SIXTY_TIMES.replace('START', '"x"').replace('NEXT', 'ns.x ~ ns.x'),
  'doubling lists': SIXTY_TIMES.replace('START', '[0]').replace('NEXT', '[ns.x, ns.x]')
  + '{{ ns.x }}',
  'huge integers': '{{ 9**(9**9) }}',
  'huge products': SIXTY_TIMES.replace('START', '7').replace('NEXT', 'ns.x * ns.x'),
  'regular expressions': '{% for i in range(9999) %}{{ (messages[0].content * 9999) | urlize and '
  '"" }}{% endfor %}',
  'a flood of text': '{% for i in range(9999) %}{{ "x" * 1000 }}{% endfor %}',
  'a flood within a macro': '{% macro m() %}'
  + 'y{{ "x" * 10**8 }}' * 20
  + '{% endmacro %}{{ m() }}',
  'a long error': '{{ raise_exception("x" * 10**8) }}',
  'deep nesting': '{{ ' + '(' * 20_000 + '1' + ')' * 20_000 + ' }}',
  'deep conditions': '{% if 1 %}' * 5_000 + '{% endif %}' * 5_000,
  'a long template': 'x' * 10**6,
  'other errors': '{{ 1 / 0 }}',
  'missing keys': '{{ {}["a"]["b"] }}',
}


@pytest.mark.slow
@pytest.mark.parametrize('name', HOSTILE)
def test_a_hostile_template_is_bounded_in_any_thread(name, monkeypatch):
  monkeypatch.setattr(templates, 'CPU_SECONDS', 1)
  source = HOSTILE[name] + templates.NAMED['chatml']
  with concurrent.futures.ThreadPoolExecutor(1) as thread, pytest.raises(UserError) as error:
    thread.submit(templates.derive, source, {}).result()
  assert 'the chat template' in error.value.field
  assert len(str(error.value)) < 1000


def test_a_template_that_is_too_much_with_a_system_turn_alone_is_refused(monkeypatch):
  monkeypatch.setattr(templates, 'CPU_SECONDS', 1)
  for waste, what in (
    ('{{ "x" * 10**10 }}', 'memory'),
    (HOSTILE['nested loops'], 'processor time'),
    (HOSTILE['a flood of text'], 'text'),
  ):
    only = '{% if messages[0].role == "system" %}' + waste + '{% endif %}'
    with refused(f'{what} that the chat template takes'):
      templates.derive(only + templates.NAMED['chatml'], {})


def test_a_fault_of_ours_is_not_taken_for_the_templates(monkeypatch):
  monkeypatch.setattr(templates.json, 'dumps', lambda value: '["not a request"]')
  with pytest.raises(RuntimeError, match=r'not enough values to unpack'):
    templates.derive('not cached', {})


def test_files_that_hold_no_template_are_named(tmp_path):
  for content in (3, {'a': 1}, [{'name': 'default', 'template': 5}]):
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'chat_template': content}))
    with refused('chat_template', place=tmp_path / 'tokenizer_config.json'):
      templates.find('auto', tmp_path)
  for content in (3, {'a': 1}, ['<s>']):
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'bos_token': content}))
    with refused('bos_token', content, place=tmp_path / 'tokenizer_config.json'):
      templates.variables(tmp_path)
  (tmp_path / 'chat_template.jinja').write_bytes(b'\xff')
  with refused(tmp_path / 'chat_template.jinja', allowed='UTF-8 text'):
    templates.find('auto', tmp_path)
  (tmp_path / 'chat_template.jinja').write_bytes(b'x' * 10**6)
  with refused(f'the size of {tmp_path / "chat_template.jinja"}', '1,000,000 bytes'):
    templates.find('auto', tmp_path)


def test_where_a_template_is_found(tmp_path):
  assert templates.find('auto', None) == (None, '') and templates.find('auto', tmp_path)[0] is None
  config = {
    'bos_token': {'content': '<s>', 'lstrip': False},
    'eos_token': '</s>',
    'pad_token': None,
    'chat_template': 'one',
  }
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  assert templates.find('auto', tmp_path) == ('one', str(tmp_path / 'tokenizer_config.json'))
  assert templates.variables(tmp_path) == VARIABLES and templates.variables(None) == {}
  named = [{'name': 'tool_use', 'template': 'no'}, {'name': 'default', 'template': 'two'}]
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config | {'chat_template': named}))
  assert templates.find('auto', tmp_path) == ('two', str(tmp_path / 'tokenizer_config.json'))
  (tmp_path / 'chat_template.jinja').write_text('three')
  path = str(tmp_path / 'chat_template.jinja')
  assert templates.find('auto', tmp_path) == ('three', path)
  assert templates.find(path, None) == ('three', path)
  assert templates.find('chatml', tmp_path) == (templates.NAMED['chatml'], 'chatml')
  with refused('chat format', 'chatlm'):
    templates.find('chatlm', tmp_path)
