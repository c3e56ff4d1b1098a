import collections
import itertools
import json
import math
import pathlib
import re

import pytest
from commands import call, run
from refusals import refused

from data import tasks
from data.batches import prepare
from data.chat import chat_formats
from data.records import jsonl
from data.shards import token_shards
from data.tasks import conversation_rows, demonstrations
from lm.base.config import load


def rows(path):
  return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def lines(path, *items):
  path.write_text(
    ''.join((item if isinstance(item, str) else json.dumps(item)) + '\n' for item in items)
  )
  return path


MADE = tasks.make(['arithmetic', 'identity'], seed=1)


def test_tasks_share_out_the_examples_by_weight_in_a_mixed_order(tmp_path):
  out = tmp_path / 'c.jsonl'
  counts = demonstrations.write(out, MADE, examples=101, turns=1, seed=5, weights={'identity': 3})
  written = rows(out)
  assert (
    counts
    == collections.Counter(row['task'] for row in written)
    == {'arithmetic': 25, 'identity': 76}
  )
  first = [row['task'] for row in written[:40]]
  assert 2 <= first.count('arithmetic') <= 20
  for task in MADE:
    mine = [row for row in written if row['task'] == task.name]
    assert mine == [task.demo(i) for i in range(len(mine))]
  special = chat_formats.load('bytes')
  assert all(sum(special.render(row)[1]) for row in written)


def test_the_same_seed_writes_the_same_bytes_and_another_another_order(tmp_path):
  a, b, c = (tmp_path / name for name in 'abc')
  for path, seed in ((a, 5), (b, 5), (c, 6)):
    demonstrations.write(path, MADE, examples=50, turns=3, seed=seed)
  assert a.read_bytes() == b.read_bytes() != c.read_bytes()


def test_demonstrations_are_joined_into_conversations_of_one_to_so_many_questions(tmp_path):
  for turns in (1, 3):
    demonstrations.write(tmp_path / f'{turns}', MADE, examples=600, turns=turns, seed=5)
  single, joined = rows(tmp_path / '1'), rows(tmp_path / '3')
  messages = [[message for row in part for message in row['messages']] for part in (single, joined)]
  assert messages[0] == messages[1]
  assert ','.join(row['task'] for row in joined) == ','.join(row['task'] for row in single)
  counts = collections.Counter(len(row['messages']) // 2 for row in joined[:-1])
  assert counts.keys() == {1, 2, 3} and min(counts.values()) > 70  # 100 of each are expected
  pairs = collections.Counter(row['task'] for row in joined if row['task'].count(',') == 1)
  assert len(pairs) == 4 and min(pairs.values()) > 10  # any task after any


def test_every_answer_of_a_conversation_is_learned_and_nothing_else(tmp_path):
  made_by, special = tasks.make(['calculator', 'identity'], seed=1), chat_formats.load('bytes')
  demonstrations.write(tmp_path / 'c', made_by, examples=60, turns=4, seed=0)
  for row in rows(tmp_path / 'c'):
    ids, mask = special.render(row)
    learned = special.tokenizer.decode([i for i, own in zip(ids, mask, strict=True) if own])
    expected = ''
    for message in row['messages'][1::2]:
      if isinstance(message['content'], str):
        expected += f'{message["content"]}<|end|>'
      else:
        asked, _, said = (part['text'] for part in message['content'])
        expected += f'<|python|>{asked}<|/python|>{said}<|end|>'
    assert learned == expected


def test_what_training_reads_are_whole_turns_that_fit_a_row(tmp_path):
  config = load('configs/sft.py:smoke')
  config.data.examples, config.data.turns, config.seq_len = 80, 4, 100
  special = chat_formats.load('bytes', extend=True)
  train, _ = prepare.prepare_training_data(config, special, tmp_path, 'packed')
  folder = pathlib.Path(train).parent
  manifest = token_shards.read_manifest(train)
  starts = [*token_shards.document_index(folder, manifest)[:, 0], manifest['tokens']]
  talks = list(token_shards.Stream(folder, manifest).read(itertools.pairwise(starts)))
  user = special.tokenizer.special_tokens['<|user|>']
  assert all(talk[-1] in special.stops for talk in talks)
  assert all(len(talk) <= 101 or list(talk).count(user) == 1 for talk in talks)
  made = rows(tmp_path / 'conversations.jsonl')
  assert max(len(special.render(row)[0]) for row in made) > 150  # there was something to cut
  assert max(list(talk).count(user) for talk in talks) > 1


def test_a_file_to_validate_on_has_problems_of_the_test_split(tmp_path):
  demonstrations.write(tmp_path / 'c', MADE[:1], examples=20, turns=1, seed=0, split='test')
  expected = {json.dumps(MADE[0].problem(i, 'test')['messages']) for i in range(20)}
  assert {json.dumps(row['messages'][:-1]) for row in rows(tmp_path / 'c')} == expected


ULTRACHAT = {'id': '7', 'data': ['Hello <|end|>', 'Hi, é.', 'More?', 'Yes.']}
ULTRACHAT_200K = {
  'prompt': 'Hello',
  'prompt_id': 'x',
  'messages': [
    {'role': 'system', 'content': 'Be kind.', 'id': 1},
    {'role': 'user', 'content': 'Hello'},
    {'role': 'assistant', 'content': 'Hi.'},
  ],
}


def test_public_formats_are_read(tmp_path):
  source = lines(
    tmp_path / 'chat.jsonl',
    ULTRACHAT,
    ULTRACHAT_200K,
    {'id': '8', 'data': ['a', 'b', 'unanswered']},
  )
  expected = [
    {
      'messages': [
        {'role': 'user', 'content': 'Hello <|end|>'},
        {'role': 'assistant', 'content': 'Hi, é.'},
        {'role': 'user', 'content': 'More?'},
        {'role': 'assistant', 'content': 'Yes.'},
      ]
    },
    {
      'messages': [
        {'role': 'system', 'content': 'Be kind.'},
        {'role': 'user', 'content': 'Hello'},
        {'role': 'assistant', 'content': 'Hi.'},
      ]
    },
    {'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}]},
  ]
  assert list(demonstrations.read(source, jsonl.Skipped())) == expected
  counts = demonstrations.write(
    tmp_path / 'out', MADE, examples=2, turns=1, seed=0, inputs=[source]
  )
  assert counts == {'arithmetic': 1, 'identity': 1, 'chat': 3}
  assert rows(tmp_path / 'out')[2:] == [{**row, 'task': 'chat'} for row in expected]
  # what is written can be read again
  assert list(demonstrations.read(tmp_path / 'out', jsonl.Skipped()))[2:] == expected


def test_rows_of_sharegpt_alpaca_and_gsm8k_are_read(tmp_path):
  turns = [('system', 'Be kind.'), ('human', 'Hi'), ('gpt', 'Hello.'), ('human', 'unanswered')]
  problem = {'question': 'Half of 48?', 'answer': 'It is 48/2 = <<48/2=24>>24.\n#### 24'}
  source = lines(
    tmp_path / 'chat.jsonl',
    {'id': 'x', 'conversations': [{'from': who, 'value': text} for who, text in turns]},
    {'instruction': 'Add.', 'input': '2, 3', 'output': '5'},
    {'instruction': 'Say hi.', 'input': '', 'output': 'Hi!', 'system': 'Be brief.'},
    problem,
  )

  def user(text):
    return {'role': 'user', 'content': text}

  def assistant(content):
    return {'role': 'assistant', 'content': content}

  expected = [
    [{'role': 'system', 'content': 'Be kind.'}, user('Hi'), assistant('Hello.')],
    [user('Add.\n\n2, 3'), assistant('5')],
    [{'role': 'system', 'content': 'Be brief.'}, user('Say hi.'), assistant('Hi!')],
  ]
  parts = [
    {'type': 'text', 'text': 'It is 48/2 = '},
    {'type': 'python', 'text': '48/2'},
    {'type': 'output', 'text': '24'},
    {'type': 'text', 'text': '24.\n#### 24'},
  ]
  for calls, solution in (('tool', parts), ('steps', 'It is 48/2 = 24.\n#### 24')):
    found = [row['messages'] for row in demonstrations.read(source, jsonl.Skipped(), calls)]
    assert found == [*expected, [user('Half of 48?'), assistant(solution)]]
  out = tmp_path / 'out.jsonl'
  options = f'--input={source}', '--calls=steps', f'--out={out}'
  status, _, err = call('-m', 'data.conversations', '--examples=0', *options)
  assert status == 0, err
  assert rows(out)[-1]['messages'][1]['content'].startswith('It is 48/2 = 24.')


SYSTEM = {'role': 'system', 'content': 'Be kind.'}
ASKED, SAID = {'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello.'}
FROM = [{'from': 'human', 'value': 'Hi'}, {'from': 'gpt', 'value': 'Hello.'}]
ALPACA = {'instruction': 'More', 'input': '', 'output': 'Yes.'}
MORE = [{'role': 'user', 'content': 'More'}, {'role': 'assistant', 'content': 'Yes.'}]


@pytest.mark.parametrize(
  ('row', 'messages'),
  [
    ({'conversations': FROM, 'system': 'Be kind.'}, [SYSTEM, ASKED, SAID]),
    (
      {'conversations': [{'from': 'system', 'value': 'Be kind.'}, *FROM], 'system': 'Be brief.'},
      [SYSTEM, ASKED, SAID],
    ),
    ({'conversations': [{'from': 'system', 'value': ''}, *FROM]}, [ASKED, SAID]),
    ({'conversations': FROM, 'system': ''}, [ASKED, SAID]),
    ({'conversations': [SYSTEM, ASKED, SAID]}, [SYSTEM, ASKED, SAID]),
    ({'conversations': None, 'messages': [ASKED, SAID]}, [ASKED, SAID]),
    ({'messages': [ASKED, SAID], 'system': 'Be kind.'}, [SYSTEM, ASKED, SAID]),
    ({'messages': [{'role': 'system', 'content': ''}, ASKED, SAID]}, [ASKED, SAID]),
    ({'messages': [ASKED, SAID | {'tool_calls': []}]}, [ASKED, SAID]),
    (
      {'problem': 'How?', 'solution': '\\boxed{5}', 'messages': [ASKED, SAID]},
      [ASKED, SAID],
    ),
    (ALPACA | {'history': [['Hi', 'Hello.']]}, [ASKED, SAID, *MORE]),
    (ALPACA | {'history': [], 'system': 'Be kind.'}, [SYSTEM, *MORE]),
    (ALPACA | {'history': None}, MORE),
  ],
)
def test_the_whole_context_of_a_row_is_kept(row, messages):
  assert conversation_rows.conversation(row) == {'messages': messages}


@pytest.mark.parametrize(
  ('row', 'field'),
  [
    ({'messages': [ASKED, SAID | {'tool_calls': [{'id': 'x'}]}]}, 'messages[1].tool_calls'),
    ({'messages': [ASKED, SAID | {'function_call': {'name': 'f'}}]}, 'messages[1].function_call'),
    (
      {'conversations': [ASKED, SAID | {'tool_calls': [{'id': 'x'}]}]},
      'messages[1].tool_calls',
    ),
    ({'messages': [ASKED, SAID], 'system': ['Be kind.']}, 'system'),
    (ALPACA | {'history': 'Hi'}, 'history'),
    (ALPACA | {'history': [['Hi']]}, 'history'),
    (ALPACA | {'history': [['Hi', 7]]}, 'history[0][1]'),
  ],
)
def test_a_row_whose_context_would_be_lost_is_refused(row, field):
  with refused(field):
    conversation_rows.conversation(row)


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ('{"data": ["a", "b"', 'not JSON'),
    ('{"messages": ' + '[' * 3_000 + ']' * 3_000 + '}', 'nested too deep'),
    ([], 'row is '),
    ({'id': 'x'}, 'row is '),
    ('null', 'row is '),
    ('{"data": ["a", "' + '[' * 9 + '", ' + '[' * 100_000, 'nested too deep'),
    ({'data': ['\ud800 ', 7]}, r'data\[1\] is 7; allowed: text'),
    ({'data': ['a', 'b'], 'conversations': []}, 'row is .* the fields of one form'),
    ({'conversations': 'hello'}, "conversations is 'hello'; allowed: a list"),
    ({'conversations': [{'from': 'human'}]}, r'conversations\[0\] is .* "from" and "value"'),
    ({'conversations': [{'from': 'bing', 'value': 'a'}]}, r"conversations\[0\].from is 'bing'"),
    ({'conversations': [{'from': 'human', 'value': 3}]}, r'conversations\[0\].value is 3'),
    ({'instruction': 3, 'output': 'a'}, 'instruction is 3; allowed: text'),
    ({'instruction': 'a', 'output': ''}, r"messages\[1\].content is ''"),
    ({'question': 'a', 'answer': 'no mark'}, 'row is .*ends with ####'),
    ({'data': 'hello'}, "data is 'hello'; allowed: a list"),
    ({'data': ['a', None]}, r'data\[1\] is None; allowed: text'),
    ({'data': ['a', '']}, r"messages\[1\].content is ''"),
    ({'data': ['a']}, r'messages\[0\].role'),
    ({'data': []}, r'messages is \[\]'),
    ({'messages': None}, 'messages'),
    (
      {'messages': [{'role': 'user', 'content': 'a'}, {'role': 'bot', 'content': 'b'}]},
      r"messages\[1\].role 'bot'",
    ),
    ({'messages': [{'role': 'user', 'value': 'a'}]}, r'messages\[0\]'),
  ],
)
def test_malformed_rows_are_skipped_by_file_line_and_field(tmp_path, row, message, capsys):
  source, out = (
    lines(tmp_path / 'chat.jsonl', ULTRACHAT, row, ULTRACHAT_200K),
    tmp_path / 'out.jsonl',
  )
  assert demonstrations.write(out, MADE, examples=3, turns=1, seed=0, inputs=[source])['chat'] == 2
  assert len(rows(out)) == 5
  assert re.search(
    rf'1 row skipped; the first: .*chat\.jsonl, line 2: .*{message}', capsys.readouterr().err
  )


def test_an_input_without_conversations_is_refused_and_nothing_is_written(tmp_path):
  source, out = lines(tmp_path / 'chat.jsonl', [], {}), tmp_path / 'out.jsonl'
  out.write_text('what was there')
  with refused(f'conversation in {source}') as raised:
    demonstrations.write(out, MADE, examples=3, turns=1, seed=0, inputs=[source])
  assert f'2 rows skipped; the first: {source}, line 1: row is ' in raised.value.message
  assert out.read_text() == 'what was there'
  assert {path.name for path in tmp_path.iterdir()} == {'chat.jsonl', 'out.jsonl'}


@pytest.mark.parametrize(
  ('arguments', 'field', 'value'),
  [
    ({'examples': 3, 'weights': {'identty': 1}}, 'task with a weight', 'identty'),
    ({'examples': 3, 'weights': {'identity': -1}}, "weight of task 'identity'", -1),
    ({'examples': 3, 'weights': {'identity': math.inf}}, "weight of task 'identity'", math.inf),
    (
      {'examples': 3, 'weights': {'identity': 0, 'arithmetic': 0}},
      'sum of the weights of tasks',
      0,
    ),
    ({'examples': -3}, 'examples', -3),
    ({'examples': 3, 'turns': 0}, 'turns', 0),
  ],
)
def test_what_cannot_be_shared_out_is_refused(tmp_path, arguments, field, value):
  with refused(field, value):
    demonstrations.write(tmp_path / 'c', MADE, **{'turns': 1, 'seed': 0} | arguments)
  assert not list(tmp_path.iterdir())


def test_a_weight_that_is_no_number_and_nothing_to_write_are_refused(tmp_path):
  options = {'turns': 1, 'seed': 0}
  with refused("weight of task 'identity'"):
    demonstrations.write(
      tmp_path / 'c', MADE, examples=3, weights={'identity': math.nan}, **options
    )
  with refused(f'conversation to write to {tmp_path / "c"}'):
    demonstrations.write(tmp_path / 'c', MADE, examples=0, **options)
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_writes_a_file_and_says_what_is_wrong_in_one_line(tmp_path):
  out = tmp_path / 'c.jsonl'
  status, written, _ = run(
    '-m',
    'data.conversations',
    '--tasks=identity:3,comparison',
    '--examples=8',
    '--turns=2',
    '--seed=1',
    f'--out={out}',
  )
  assert status == 0 and sorted(written.splitlines()) == ['comparison: 2', 'identity: 6']
  assert 4 <= len(rows(out)) < 8 == sum(len(row['messages']) // 2 for row in rows(out))
  for wrong, message in (
    (['--tasks=identiy'], "did you mean 'identity'"),
    (['--tasks=docs'], 'commands have the flag --documents'),
    (['--tasks=identity:x'], "'identity:x'; allowed: NAME"),
    ([], 'conversation to write to '),
    (['--tasks=docs', '--documents=nowhere'], 'nowhere'),
  ):
    status, _, err = run('-m', 'data.conversations', *wrong, f'--out={tmp_path / "none"}')
    assert status == 1 and message in err and err.count('\n') == 1
    assert err.startswith('error: ') and not (tmp_path / 'none').exists()
