"""Tools by name: how a call says which one it is for, and the command that tries them."""

import io
import json

import pytest
from refusals import refused

from configs import base
from data.chat import chat_formats
from data.tools import __main__ as command
from data.tools import calculator, corpus_search, toolbox
from data.tools.toolbox import TOOLS, open_tools, read_call, write_call


@pytest.fixture(scope='module')
def index(tmp_path_factory):
  folder = tmp_path_factory.mktemp('toolbox')
  row = {'text': 'Tides follow the moon.', 'metadata': {'title': 'Tides', 'url': 'https://a.org'}}
  (folder / 'documents.jsonl').write_text(json.dumps(row))
  corpus_search.build(folder / 'documents.jsonl', folder / 'index')
  return str(folder / 'index')


@pytest.fixture(scope='module')
def all_tools(index):
  return open_tools(TOOLS, index=index)


def test_the_config_allows_the_calculator_alone_by_default():
  tools = toolbox.from_config(base.get_config().tools)
  assert tools.names == ('calculator',) and tools.about == ''


@pytest.mark.parametrize(
  'call', ['1+1', '2**0.5', '6/2', ' 3 * 4 ', '1/0', '', 'x', '1\n+1', '1+\n1', '\n1', 'pi\n1']
)
def test_a_call_without_a_name_is_the_calculators_as_before(all_tools, call):
  """The text of calls in conversations from when the calculator was the only tool."""
  for tools in (all_tools, open_tools(['calculator'])):
    assert tools(call) == calculator.calculate(call)


def test_a_call_is_answered_by_the_tool_that_its_first_line_names(all_tools):
  assert all_tools('calculator\n6/2') == '3'
  assert all_tools('python\nprint(1)\n2 ** 70') == '1\n1180591620717411303424'
  assert all_tools('python\r\n1 / 0') == 'error: ZeroDivisionError: division by zero (line 1)'
  assert all_tools(' search \nmoon') == '[1] Tides (https://a.org)\nTides follow the moon.'
  assert all_tools('python\n') == ''


def test_a_name_without_a_line_end_is_no_tools_name(all_tools):
  assert all_tools('python') == 'error: not arithmetic'
  assert all_tools('python 1+1') == 'error: not arithmetic'


@pytest.mark.parametrize('names', [[], ['calculator'], ['python'], ['calculator', 'python']])
def test_a_tool_that_is_not_allowed_is_never_run(names, monkeypatch):
  monkeypatch.setitem(TOOLS, 'search', TOOLS['calculator'])
  tools = open_tools(names)
  assert tools('search\n1') == f'error: no tool search; allowed: {", ".join(names) or "none"}'
  if 'calculator' not in names:
    assert tools('1+1').startswith('error: no tool calculator; allowed: ')
  if 'python' not in names:
    assert tools('python\nprint("ran")').startswith('error: no tool python; allowed: ')


@pytest.mark.parametrize('tool', TOOLS)
@pytest.mark.parametrize('text', ['1+1', 'print(1)\nx', '', '\n', '1\npython'])
def test_what_is_written_is_read(tool, text):
  assert read_call(write_call(tool, text)) == (tool, text)


def test_an_unknown_name_is_an_error():
  with refused('tool', 'pyton', tuple(TOOLS)):
    open_tools(['calculator', 'pyton'])


def test_search_needs_an_index():
  with refused('config.tools.index', ''):
    open_tools(['search'])


def test_models_are_told_of_other_tools_with_examples_that_work(all_tools):
  for name, tool in TOOLS.items():
    call = write_call(name, tool.example)
    assert f'{name}: {tool.about} Example:\n{call}' in all_tools.about
    assert not all_tools(call).startswith('error')


def test_a_conversation_calls_several_tools_with_the_same_special_tokens(all_tools):
  """The tags of calls and results are those of the calculator; each result is that of its tool."""
  chat_format = chat_formats.load('bytes')
  special, encode = chat_format.tokenizer.special_tokens, chat_format.tokenizer.encode
  answer = []
  for tool, text in (
    ('calculator', '1+1'),
    ('python', 'print("<|/output|>")'),
    ('search', 'moon'),
  ):
    answer += [special['<|python|>'], *encode(write_call(tool, text)), special['<|/python|>']]
    answer += chat_format.answer_call(answer, all_tools)
  answer += [*encode('Done.'), *chat_format.stops[:1]]
  reply = chat_format.parse(answer)
  assert reply['well_formed'] and reply['finished']
  assert [part['text'] for part in reply['content'] if part['type'] == 'output'] == [
    '2',
    '<|/output|>',  # text, which closes nothing
    '[1] Tides (https://a.org)\nTides follow the moon.',
  ]
  conversation = [
    {'role': 'user', 'content': 'q'},
    {'role': 'assistant', 'content': reply['content']},
  ]
  ids, mask = chat_format.render({'messages': conversation})
  learned = [i for i, own in zip(ids, mask, strict=True) if own]
  assert learned.count(special['<|python|>']) == 3 and special['<|output|>'] not in learned


# ---- python -m data.tools ------------------------------------------------------------------------


def printed(argv, text, monkeypatch, capsys):
  monkeypatch.setattr('sys.stdin', io.StringIO(text))
  command.main(argv)
  return capsys.readouterr().out


def test_the_command_tries_each_tool(index, monkeypatch, capsys):
  assert printed(['calculator'], '2**10\n', monkeypatch, capsys) == '1024\n'
  code = 'for i in range(2):\n  print(i)\n\n6 / 2\n'
  assert printed(['python'], code, monkeypatch, capsys) == '0\n1\n3\n'
  found = printed(['search', f'--index={index}'], 'moon', monkeypatch, capsys)
  assert found == '[1] Tides (https://a.org)\nTides follow the moon.\n'


def test_the_command_makes_an_index(index, tmp_path, monkeypatch, capsys):
  documents = index.removesuffix('index') + '*.jsonl'
  argv = ['index', f'--input={documents}', f'--out={tmp_path / "index"}']
  assert printed(argv, '', monkeypatch, capsys) == f'1 passages in {tmp_path / "index"}\n'
  argv = ['search', f'--index={tmp_path / "index"}']
  assert 'Tides' in printed(argv, 'moon', monkeypatch, capsys)


def test_the_command_names_its_tools_when_given_another(capsys):
  with pytest.raises(SystemExit):
    command.main(['shell'])
  assert 'calculator' in capsys.readouterr().err
