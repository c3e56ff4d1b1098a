"""Layouts of chat templates, whose shapes are those of the known model families, in words of our own."""

import dataclasses
import datetime
import json

import pytest

from data import templates
from lm.errors import UserError

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{ '\n' }}{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"
DEFAULT_SYSTEM = (
  "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Ann.<|im_end|>{{ '\n' }}{% endif %}" + TURNS + PROMPT
)
GEMMA = """
{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- if messages[0].role == 'system' %}
  {%- set ns.system = messages[0].content | trim + '\n\n' %}
  {%- set messages = messages[1:] %}
{%- endif %}
{%- for m in messages %}
  {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant alternate') }}{% endif %}
  {{- '<start_of_turn>' + m.role.replace('assistant', 'model') + '\n' }}
  {{- (ns.system if loop.first else '') + m.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<start_of_turn>model\n' }}
{%- endif %}"""
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + GEMMA
MISTRAL = """
{{- bos_token }}
{%- for m in messages %}
  {%- if m.role == 'user' %}
    {%- if loop.last and messages[0].role == 'system' %}
      {{- '[INST] ' + messages[0].content + '\n\n' + m.content + ' [/INST]' }}
    {%- else %}
      {{- '[INST] ' + m.content + ' [/INST]' }}
    {%- endif %}
  {%- elif m.role == 'assistant' %}
    {{- ' ' + m.content | trim + eos_token }}
  {%- endif %}
{%- endfor %}"""
TULU = """
{%- for m in messages %}
  {{- '<|' + m.role + '|>\n' + m.content }}
  {%- if m.role == 'assistant' %}{{ eos_token }}{% endif %}
  {%- if not loop.last or m.role != 'assistant' %}{{ '\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""
LLAMA_3_2 = """
{{- bos_token }}
{%- set system = '' %}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set messages = messages[1:] %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\nToday: ' + strftime_now('%d %b %Y') + '\n\n' + system + '<|eot_id|>' }}
{%- for m in messages %}
  {%- generation %}
  {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}
  {%- endgeneration %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
# An empty thought before the last answer of a finished conversation alone.
QWEN3 = """
{%- for m in messages %}
  {{- '<|im_start|>' + m.role + '\n' + ('<think>\n\n</think>\n\n' if loop.last and m.role == 'assistant' else '') }}
  {{- m.content + '<|im_end|>\n' }}
{%- endfor %}""" + PROMPT
VARIABLES = {'bos_token': '<s>', 'eos_token': '</s>'}


def test_strings_of_known_shapes():
  chatml = templates.Layout(
    start='<|im_start|>user\n', system='<|im_start|>system\n', question='<|im_end|>\n<|im_start|>user\n',
    reply='<|im_end|>\n<|im_start|>assistant\n', lead='', follow='<|im_end|>\n<|im_start|>user\n', end='<|im_end|>\n',
    stripped=())  # fmt: skip
  assert templates.derive(TURNS + PROMPT, {}) == templates.derive(templates.NAMED['chatml'], {}) == chatml
  assert templates.derive(QWEN3, {}) == chatml
  start = '<|im_start|>system\nYou are Ann.<|im_end|>\n<|im_start|>user\n'
  assert templates.derive(DEFAULT_SYSTEM, {}) == dataclasses.replace(chatml, start=start)
  gemma = templates.Layout(
    start='<s><start_of_turn>user\n', system='<s><start_of_turn>user\n', question='\n\n',
    reply='<end_of_turn>\n<start_of_turn>model\n', lead='', follow='<end_of_turn>\n<start_of_turn>user\n',
    end='<end_of_turn>\n', stripped=('assistant', 'system', 'user'))  # fmt: skip
  assert templates.derive(GEMMA, VARIABLES) == gemma
  plain = dataclasses.replace(gemma, system=None, question='', stripped=('assistant', 'user'))
  assert templates.derive(NO_SYSTEM, VARIABLES) == plain
  assert templates.derive(MISTRAL, VARIABLES) == templates.Layout(
    start='<s>[INST] ', system=None, question='', reply=' [/INST]', lead=' ', follow='</s>[INST] ', end='</s>',
    stripped=('assistant',))  # fmt: skip
  assert templates.derive(TULU, VARIABLES) == templates.Layout(
    start='<|user|>\n', system='<|system|>\n', question='\n<|user|>\n', reply='\n<|assistant|>\n', lead='',
    follow='</s>\n<|user|>\n', end='</s>', stripped=())  # fmt: skip


def test_a_date_is_the_given_day():
  layout = templates.derive(LLAMA_3_2, VARIABLES, datetime.date(2031, 5, 17))
  assert layout.system == '<s><|start_header_id|>system<|end_header_id|>\n\nToday: 17 May 2031\n\n'
  assert layout.start == layout.system + '<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n'
  assert templates.derive(LLAMA_3_2, VARIABLES) == templates.derive(LLAMA_3_2, VARIABLES) != layout


@pytest.mark.parametrize(('source', 'message'), [
  ('{% for', 'the chat template fails'),
  ('{{ raise_exception("never") }}', 'the chat template fails: never'),
  ('{{ messages[0].content + 1 }}', 'the chat template fails'),
  ("{{ ''.__class__.__mro__ }}", 'the chat template fails'),  # the sandbox
  ('{{ messages[-1].content }}', 'each turn once and in order'),
  ('{% for m in messages %}{{ m.content + m.content }}{% endfor %}', 'each turn once and in order'),
  ('{% for m in messages %}<a>{{ m.content }}({{ loop.index }}){% endfor %}', 'more than constant text|prompts with'),
  (TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}", 'prompts with .*<think>'),
  ("{% for m in messages %}{{ m.content.replace('\n', ' ') }}|{% endfor %}", 'more than constant text'),
])  # fmt: skip
def test_templates_that_cannot_be_followed_are_refused(source, message):
  with pytest.raises(UserError, match=message):
    templates.derive(source, VARIABLES)


def test_where_a_template_is_found(tmp_path):
  assert templates.find('auto', None) is None and templates.find('auto', tmp_path) is None
  config = {'bos_token': {'content': '<s>', 'lstrip': False}, 'eos_token': '</s>', 'pad_token': None, 'chat_template': 'one'}
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  assert templates.find('auto', tmp_path) == 'one'
  assert templates.variables(tmp_path) == VARIABLES and templates.variables(None) == {}
  named = [{'name': 'tool_use', 'template': 'no'}, {'name': 'default', 'template': 'two'}]
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config | {'chat_template': named}))
  assert templates.find('auto', tmp_path) == 'two'
  (tmp_path / 'chat_template.jinja').write_text('three')
  assert templates.find('auto', tmp_path) == 'three'
  assert templates.find(str(tmp_path / 'chat_template.jinja'), None) == 'three'
  assert templates.find('chatml', tmp_path) == templates.NAMED['chatml']
  with pytest.raises(UserError, match=r"unknown chat format 'chatlm' \(did you mean 'chatml'"):
    templates.find('chatlm', tmp_path)
