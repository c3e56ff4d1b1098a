"""Layouts of chat templates."""

import dataclasses
import datetime
import json

import pytest
from chat_templates import DEFAULT_SYSTEM, GEMMA, LLAMA_2, LLAMA_3_2, MISTRAL, NO_SYSTEM, PROMPT, QWEN3, TULU, TURNS

from data import templates
from lm.errors import UserError

VARIABLES = {'bos_token': '<s>', 'eos_token': '</s>'}


def test_strings_of_known_shapes():
  chatml = templates.Layout(
    start='<|im_start|>user\n', system='<|im_start|>system\n', question='<|im_end|>\n<|im_start|>user\n',
    reply='<|im_end|>\n<|im_start|>assistant\n', lead='', trail='', follow='<|im_end|>\n<|im_start|>user\n', end='<|im_end|>\n',
    stripped=())  # fmt: skip
  assert templates.derive(TURNS + PROMPT, {}) == templates.derive(templates.NAMED['chatml'], {}) == chatml
  assert templates.derive(QWEN3, {}) == chatml
  start = '<|im_start|>system\nYou are Ann.<|im_end|>\n<|im_start|>user\n'
  assert templates.derive(DEFAULT_SYSTEM, {}) == dataclasses.replace(chatml, start=start)
  gemma = templates.Layout(
    start='<s><start_of_turn>user\n', system='<s><start_of_turn>user\n', question='\n\n',
    reply='<end_of_turn>\n<start_of_turn>model\n', lead='', trail='', follow='<end_of_turn>\n<start_of_turn>user\n',
    end='<end_of_turn>\n', stripped=('assistant', 'system', 'user'))  # fmt: skip
  assert templates.derive(GEMMA, VARIABLES) == gemma
  plain = dataclasses.replace(gemma, system=None, question='', stripped=('assistant', 'user'))
  assert templates.derive(NO_SYSTEM, VARIABLES) == plain
  assert templates.derive(MISTRAL, VARIABLES) == templates.Layout(
    start='<s>[INST] ', system=None, question='', reply=' [/INST]', lead=' ', trail='', follow='</s>[INST] ', end='</s>',
    stripped=('assistant',))  # fmt: skip
  assert templates.derive(LLAMA_2, VARIABLES) == templates.Layout(
    start='<s>[INST] ', system='<s>[INST] <<SYS>>\n', question='\n<</SYS>>\n\n', reply=' [/INST]', lead=' ', trail=' ',
    follow='</s><s>[INST] ', end='</s>', stripped=('assistant', 'user'))  # fmt: skip
  assert templates.derive(TULU, VARIABLES) == templates.Layout(
    start='<|user|>\n', system='<|system|>\n', question='\n<|user|>\n', reply='\n<|assistant|>\n', lead='', trail='',
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
