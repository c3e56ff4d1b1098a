"""Conversations shown as a model learns them."""

import json

import commands
import pytest

from data.chat import chat_formats
from data.chat.token_kinds import ASKED, LEARNED, RESULT, kinds

CALL = [
  {'type': 'text', 'text': 'Let me see: '},
  {'type': 'python', 'text': '1+1'},
  {'type': 'output', 'text': '2'},
  {'type': 'text', 'text': 'two.'},
]
TALK = [
  {'role': 'system', 'content': 'Be kind.'},
  {'role': 'user', 'content': '1+1?'},
  {'role': 'assistant', 'content': CALL},
  {'role': 'user', 'content': 'Thanks'},
  {'role': 'assistant', 'content': 'Welcome.'},
]


@pytest.mark.parametrize('name', ['deepdive', 'chatml', 'llama3', 'gemma'])
def test_every_token_has_its_kind(name):
  chat_format = chat_formats.load('bytes', name, extend=True)
  has_system = chat_format.layout.system is not None
  ids, found = kinds(chat_format, {'messages': TALK if has_system else TALK[1:]})

  def said(kind):
    return chat_format.tokenizer.decode(
      [i for i, own in zip(ids, found, strict=True) if own == kind]
    )

  assert '1+1?' in said(ASKED) and 'Thanks' in said(ASKED) and 'two' not in said(ASKED)
  assert ('Be kind.' in said(ASKED)) == has_system
  assert 'Let me see: ' in said(LEARNED) and '1+1' in said(LEARNED) and 'two.' in said(LEARNED)
  assert 'Welcome.' in said(LEARNED) and 'Thanks' not in said(LEARNED)
  assert '2' in said(RESULT) and 'Thanks' not in said(RESULT) and 'two' not in said(RESULT)


def test_the_command_shows_rows_of_any_form_in_colours(tmp_path):
  path = tmp_path / 'talks.jsonl'
  rows = [
    {'messages': TALK},
    {'instruction': 'Add.', 'input': '2, 3', 'output': '5'},
    {'instruction': 'broken'},
  ]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  status, out, err = commands.call('-m', 'data.chat', 'show', path, '--tokenizer=bytes')
  assert status == 0 and '1 row skipped' in err
  assert '5 messages' in out and '2 messages' in out
  assert '\x1b[32m5' in out and 'Add.\n\n2, 3' in out
  options = 'show', path, '--tokenizer=bytes', '--first=2'
  status, _, err = commands.call('-m', 'data.chat', *options)
  assert status == 1 and 'conversation number 2 in ' in err.splitlines()[-1]
