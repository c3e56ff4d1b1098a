import dataclasses
import decimal
import json
import os
import pathlib
import pickle
import random
import re
import subprocess
import sys

import fsspec
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from refusals import refused

from configs import base as base_config
from data import conversations, tasks
from data.chat import chat_formats, schema
from data.records.split import split_hash
from data.shards import tokenization
from data.tasks import documents, identity_topics, not_knowing, persona, protocol, world
from data.tasks.claimed_number import claimed_number
from data.tools import corpus_search
from lm.base import config as config_lib
from lm.base.errors import UserError

FORMAT = chat_formats.load('bytes')


def str_of(index):
  return 'abcdefghij'[index % 10] + 'klmnopqrst'[index // 10]


def page(index):
  """A page like those of the documentation server, made up."""
  verbs = ('Return', 'Remove', 'Print', 'Compare', 'Close', 'Merge')
  nouns = ('queue', 'table', 'socket', 'window', 'letter', 'number', 'module', 'parser')
  lines = [f'Help on module mod{index}', 'Functions']
  for j in range(5):
    noun = nouns[(index + j) % 8]
    lines += [
      f'{verbs[j]}_{noun}{index}(x, y=(1, 2), *, z=None) -> {noun}'.lower(),
      f'{verbs[j]} the {noun} of item {index} at {j}.',
    ]
  words = ' '.join(
    a + b + c for a in 'bdfgl' for b in ('ra', 'lun', 'e') for c in ('t', 'pes', str_of(index))
  )
  return '\n'.join(
    [*lines, words, 'undescribed(x)', 'shared(self, /)', 'Return the very same thing, at last.']
  )


def write_documents(path, indexes=range(60)):
  rows = [
    {
      'id': str(i),
      'text': page(i),
      'metadata': {'url': f'http://127.0.0.1:1/mod{i}.html', 'cluster': f'c{i}'},
    }
    for i in indexes
  ]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return write_documents(tmp_path_factory.mktemp('documents') / 'documents.jsonl')


def word_problem(index):
  """A line in GSM8K's format, made up."""
  a, b = 20 + index, 3 + index % 7
  lines = (
    f'They pick {a} * {b} = <<{a}*{b}={a * b}>>{a * b} pears.\nHalf of it is ${a * b / 2} = '
    f'$<<{a * b}/2={a * b / 2}>>.'
  )
  return {
    'question': f'{a} people pick {b} pears each. What is half of that?',
    'answer': f'{lines}\n#### {a * b / 2:,.1f}',
  }


def write_problems(path, indexes=range(4000)):
  path.write_text(''.join(json.dumps(word_problem(i)) + '\n' for i in indexes))
  return str(path)


def write_probe(path):
  """A report of a model that knew the value of every other name."""
  verdicts = (['right'] * 5, ['wrong'] * 5)
  rows = [
    {
      'messages': [{'role': 'user', 'content': f'What is the value of n{i}?'}],
      'key': f'n{i}',
      'answer': f'v{i}',
      'reply': f'It is v{i}.',
      'verdicts': verdicts[i % 2],
    }
    for i in range(80)
  ]
  path.write_text(json.dumps({'probe': rows}))
  return path


@pytest.fixture(scope='module')
def probe(tmp_path_factory):
  return write_probe(tmp_path_factory.mktemp('probe') / 'report.json')


@pytest.fixture(scope='module')
def asked(tmp_path_factory):
  """A file of questions with short answers."""
  path = tmp_path_factory.mktemp('asked') / 'questions.jsonl'
  rows = [{'question': f'What comes after m{i}?', 'answer': f'w{i} and x{i}'} for i in range(200)]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


@pytest.fixture(scope='module')
def index(tmp_path_factory):
  """An index of the pages of a world."""
  folder = tmp_path_factory.mktemp('world')
  world.write(folder, 3)
  corpus_search.build(folder / 'pages.jsonl', folder / 'index')
  return str(folder / 'index')


@pytest.fixture(scope='module')
def word_problems(tmp_path_factory):
  return write_problems(tmp_path_factory.mktemp('gsm8k') / 'train.jsonl')


@pytest.fixture(scope='module')
def math_problems(tmp_path_factory):
  """A file in MATH's format, made up."""
  path = tmp_path_factory.mktemp('math') / 'train.jsonl'
  lines = (
    {
      'problem': f'What is $\\frac{{{i}}}{{7}}$?',
      'solution': f'It is $\\boxed{{\\frac{{{i}}}{{7}}}}$.',
      'level': f'Level {i % 5 + 1}',
    }
    for i in range(1, 4000)
  )
  return write_lines(path, *lines)


@pytest.fixture(scope='module')
def programs(tmp_path_factory):
  """A file of programs to write, made up."""
  path = tmp_path_factory.mktemp('programs') / 'train.jsonl'
  lines = (
    {
      'prompt': f'Write f(x), which adds {i} to x.',
      'solution': f'def f(x):\n  return x + {i}',
      'tests': f'assert f(1) == {i + 1}',
    }
    for i in range(4000)
  )
  return write_lines(path, *lines)


@pytest.fixture(scope='module')
def inputs(word_problems, math_problems, programs, probe, asked, index):
  """What tasks read beside documents, as arguments of `tasks.make`."""
  return {
    'gsm8k': word_problems,
    'math': math_problems,
    'programs': programs,
    'probe': str(probe),
    'questions': asked,
    'index': index,
  }


@pytest.fixture(scope='module')
def made(corpus, inputs):
  return {task.name: task for task in tasks.make(tasks.TASKS, seed=3, documents=corpus, **inputs)}


def reply(*parts, finished=True):
  """A reply as Format.parse gives it, from texts and ('python', text)-like pairs."""
  content = [
    {'type': 'text', 'text': part}
    if isinstance(part, str)
    else dict(zip(('type', 'text'), part, strict=True))
    for part in parts
  ]
  return {'content': content, 'finished': finished, 'well_formed': finished}


def answered(conversation):
  """The reply of a demonstration after its way through tokens."""
  ids, _ = FORMAT.render(conversation)
  return FORMAT.parse(ids[len(FORMAT.render_prompt(conversation['messages'][:-1])) :])


NAMES = sorted(tasks.TASKS)


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_demonstrations_earn_the_reward_of_their_grader(made, name):
  for index in range(150):
    for split in protocol.SPLITS:
      problem, demo = made[name].problem(index, split), made[name].demo(index, split)
      assert (
        demo['task'] == problem['task'] == name and demo['messages'][:-1] == problem['messages']
      )
      assert made[name].grade(problem, answered(demo)) == 1, (problem, demo)
      assert chat_formats.grade_format(answered(demo)) == 1
      json.dumps([problem, demo], allow_nan=False)


@pytest.mark.parametrize('name', NAMES)
def test_another_problems_answer_earns_nothing_as_a_rule(made, name):
  problems = [made[name].problem(index, 'train') for index in range(100)]
  others = problems[1:] + problems[:1]
  pairs = zip(problems, others, strict=True)
  right = sum(made[name].grade(problem, reply(str(other['answer']))) for problem, other in pairs)
  # A refusal fits any unknown name; of identity, most facts are the name; few counts are not 0 or
  # 1.
  assert right <= {'refusal': 40, 'identity': 60, 'counting': 70}.get(name, 10)


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_train_and_test_problems_are_disjoint_whatever_the_seed(made, corpus, inputs, name):
  (other,) = tasks.make([name], seed=4, documents=corpus, **inputs)
  train = {task.problem(i, 'train')['key'] for task in (made[name], other) for i in range(400)}
  test = {task.problem(i, 'test')['key'] for task in (made[name], other) for i in range(400)}
  assert train and test and not train & test
  assert any(made[name].problem(i, 'train') != other.problem(i, 'train') for i in range(5))


def test_problems_are_a_pure_function_of_seed_split_and_index(made, corpus, inputs):
  """Also in another process, with another hash seed and read in another order."""
  order = [(name, index, split) for name in NAMES for index in (5, 0) for split in protocol.SPLITS]
  code = (
    'import json, sys; from data import tasks\n'
    'made = {t.name: t for t in tasks.make(sorted(tasks.TASKS), seed=3, documents=sys.argv[1], '
    '**json.loads(sys.argv[3]))}\n'
    'order = json.loads(sys.argv[2])\n'
    'print(json.dumps([[made[n].problem(i, s), made[n].demo(i, s)] for n, i, s in order]))'
  )
  env = {**os.environ, 'PYTHONHASHSEED': '7'}
  out = subprocess.run(
    [sys.executable, '-c', code, str(corpus), json.dumps(order[::-1]), json.dumps(inputs)],
    env=env,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  assert json.loads(out) == [[made[n].problem(i, s), made[n].demo(i, s)] for n, i, s in order[::-1]]


def test_documents_in_another_order_give_the_same_problems(made, inputs, tmp_path):
  shuffled = write_documents(tmp_path / 'd.jsonl', reversed(range(60)))
  for task in tasks.make(NAMES, seed=3, documents=shuffled, **inputs):
    assert [task.problem(i, 'test') for i in range(20)] == [
      made[task.name].problem(i, 'test') for i in range(20)
    ]


@pytest.mark.parametrize(
  ('text', 'number'),
  [
    ('10', '10'),
    ('10.', '10'),
    ('10.0', '10'),
    ('1,000', '1000'),
    ('1,000.', '1000'),
    ('It was 7; now it is 10!', '10'),
    ('-5', '-5'),
    ('\u22125', '-5'),
    ('-$5', '-5'),
    ('(-5)', '-5'),
    ('= -5', '-5'),
    ('+5', '5'),
    ('$1,234,567.50', '1234567.5'),
    ('.5', '.5'),
    ('3.14.', '3.14'),
    ('**42**', '42'),
    ('007', '7'),
    ('10 apples', '10'),
    ('1\u202f000', '1000'),
    ('1e3', '1000'),
    ('3/4', '.75'),
    ('$\\boxed{12}$', '12'),
    ('\\(1{,}000\\)', '1000'),
    ('forty-two', '42'),
    ('one hundred and five', '105'),
    ('minus two', '-2'),
    ('zero', '0'),
    ('1, 2', None),
    ('1,00', None),
    ('8-5', None),
    ('8 - 5', None),
    ('none', None),
    ('', None),
    ('x2 and 2nd', None),
    ('That is a hard one.', None),
  ],
)
def test_numbers_are_read_as_people_read_them(text, number):
  assert claimed_number(text) == (number and decimal.Decimal(number))


def test_arithmetic_answers_are_those_of_python_and_within_the_knobs():
  task = tasks.Arithmetic(seed=1, max_digits=2)
  seen = set()
  for index in range(300):
    problem = task.problem(index, 'train')
    numbers = re.findall(r'\d+', problem['messages'][0]['content'])
    assert problem['answer'] == str(eval(problem['expression'])) and int(problem['answer']) >= 0
    assert re.findall(r'\d+', problem['expression']) == numbers and all(
      int(n) < 100 for n in numbers
    )
    seen.add(problem['expression'].split()[1])
  assert seen == set('+-*')
  only = tasks.Arithmetic(seed=1, operators='*')
  assert all('*' in only.problem(i, 'test')['expression'] for i in range(20))


@pytest.mark.parametrize(('share', 'low', 'high'), [(0.0, 0, 0), (0.3, 0.25, 0.35), (1.0, 1, 1)])
def test_tool_share_of_the_demonstrations_call_the_calculator(share, low, high):
  task = tasks.Arithmetic(seed=1, tool_share=share)
  demos = [task.demo(i)['messages'][-1]['content'] for i in range(1000)]
  assert low <= sum(isinstance(content, list) for content in demos) / 1000 <= high


def test_the_answer_to_arithmetic_is_what_is_said_after_the_last_result():
  task, problem = (
    tasks.Arithmetic(seed=0),
    {'answer': '1786', 'messages': protocol.ask('What is 47 * 38?')},
  )
  call = (('python', '47 * 38'), ('output', '1786'))
  assert task.grade(problem, reply(*call, 'It is 1,786.')) == 1
  assert task.grade(problem, reply('1786', *call)) == 0  # said before the result was there
  assert task.grade(problem, reply('1786 ', *call, '1785')) == 0
  assert task.grade(problem, reply('2 ', *call, '1786.0')) == 1


def test_the_calculator_task_wants_a_call_whose_result_is_the_calculators():
  task, problem = (
    tasks.Calculator(seed=0),
    {'answer': '4', 'messages': protocol.ask('What is 2 + 2?')},
  )
  assert task.grade(problem, reply(('python', '2+2'), ('output', '4'), '4')) == 1
  assert task.grade(problem, reply('4')) == 0
  assert task.grade(problem, reply(('python', '2+2'), '4')) == 0
  # a result made up
  assert task.grade(problem, reply(('python', '2+3'), ('output', '4'), '4')) == 0
  assert task.grade(problem, reply(('python', '2+2'), ('output', '4'), '5')) == 0


def test_comparison_knows_that_more_digits_are_not_a_larger_number():
  task = tasks.Comparison(seed=0)
  for index in range(200):
    problem = task.problem(index, 'train')
    question = problem['messages'][0]['content']
    a, b = map(decimal.Decimal, re.findall(r'\d+\.\d+', question))
    assert (
      decimal.Decimal(problem['answer']) == (max if 'larger' in question else min)(a, b) and a != b
    )


def test_spelling_takes_any_separator_but_no_other_letters(made):
  problem = {'answer': 'i-m-p-o-r-t'}
  for text in (
    'i-m-p-o-r-t',
    'I-M-P-O-R-T.',
    'i m p o r t',
    "'import' is spelled: i, m, p, o, r, t",
  ):
    assert made['spelling'].grade(problem, reply(text)) == 1, text
  for text in ('import', 'i-m-p-o-r', 'i-m-p-o-r-t-s', 'i-m-p-o-rt', ''):
    assert made['spelling'].grade(problem, reply(text)) == 0, text


def test_half_of_the_spelling_demonstrations_are_about_words_put_together(made):
  task = made['spelling']
  words = set(task.documents.words)
  shown = {split: [task.problem(i, split)['key'] for i in range(200)] for split in protocol.SPLITS}
  assert all(3 <= len(word) <= 9 for word in shown['train'])
  assert 0.3 < sum(word not in words for word in shown['train']) / 200 < 0.6
  assert set(shown['test']) <= words and not set(shown['test']) & set(shown['train'])
  plain = dataclasses.replace(task, coined=0.0)
  assert all(plain.problem(i, 'train')['key'] in words for i in range(100))


def test_counting_counts(made):
  for index in range(100):
    problem = made['counting'].problem(index, 'train')
    (letter,) = re.findall("'(.)'", problem['messages'][0]['content'])
    assert problem['answer'] == sum(other == letter for other in problem['word'])


def test_docs_ask_where_functions_are_that_one_module_alone_describes(made, corpus):
  held_out = {e.module for e in documents.read(corpus).test}
  keys = {
    split: {made['docs'].problem(index, split)['key'] for index in range(300)}
    for split in protocol.SPLITS
  }
  assert not keys['train'] & keys['test'] and 'shared' not in keys['train'] | keys['test']
  for index in range(100):
    problem = made['docs'].problem(index, 'test')
    module = 'mod' + re.search('[0-9]+', problem['key'])[0]
    assert (
      problem['answer'] == module
      and module not in held_out
      and problem['key'] in problem['messages'][0]['content']
    )
    grades = {
      text: made['docs'].grade(problem, reply(text))
      for text in (
        f'{module}.',
        f'It is in {module} or mod0x.',
        f'{module} and mod999',
        f'{module}.tools',
        'mod',
        '',
      )
    }
    assert list(grades.values()) == [1, 1, 1, 0, 0, 0], grades
    other = next(m for m in made['docs'].documents.modules if m != module)
    assert made['docs'].grade(problem, reply(f'In {module} or {other}.')) == 0


def test_reading_asks_for_the_one_function_of_the_passage_that_does_what_is_said(made, corpus):
  held_out = {e.module for e in documents.read(corpus).test}
  for index in range(100):
    problem = made['reading'].problem(index, 'test')
    passage, question = problem['messages'][0]['content'].rsplit('\n', 1)
    described = dict(line.split(': ', 1) for line in passage.split('\n')[1:])
    assert 2 <= len(described) <= 3
    assert [name for name, summary in described.items() if question.endswith(': ' + summary)] == [
      problem['answer']
    ]
    assert re.search('mod[0-9]+', passage)[0] in held_out
    others = described.keys() - {problem['answer']}
    assert made['reading'].grade(problem, reply(f'It is {problem["answer"]}().')) == 1
    assert all(
      made['reading'].grade(problem, reply(f'{problem["answer"]} or {other}')) == 0
      for other in others
    )
    assert all(made['reading'].grade(problem, reply(other)) == 0 for other in others)


def test_refusals_are_graded_both_ways(made):
  task = made['refusal']
  problems = [task.problem(i, split) for i in range(300) for split in protocol.SPLITS]
  assert 0.4 < sum(problem['known'] for problem in problems) / len(problems) < 0.6
  always = sum(task.grade(p, reply(f"I don't know {p['name']}.")) for p in problems)
  never = sum(task.grade(p, reply(f'Yes, {p["name"]} is there.')) for p in problems)
  assert always == sum(not p['known'] for p in problems) and never == sum(
    p['known'] for p in problems
  )
  real = next(p for p in problems if p['known'])
  assert (
    task.grade(real, reply('Yes, that is there.'))
    == task.grade(real, reply(real['name'] + 'x is there.'))
    == 0
  )


def test_made_up_names_are_in_no_document(made, corpus):
  text = '\n'.join(json.loads(line)['text'] for line in corpus.read_text().splitlines())
  text += ' '.join(f'mod{i}' for i in range(60))
  for index in range(200):
    problem = made['refusal'].problem(index, 'train')
    assert (re.search(rf'\b{problem["name"]}\b', text, re.IGNORECASE) is not None) == problem[
      'known'
    ]


def test_a_made_up_name_that_a_document_has_is_made_up_again(made):
  before = [made['refusal'].problem(i, 'train')['name'] for i in range(100)]
  taken = dataclasses.replace(made['refusal'].documents, names=frozenset(before))
  task = tasks.Refusal(seed=3, documents=taken)
  after = [task.problem(i, 'train') for i in range(100)]
  assert not {problem['name'] for problem in after if not problem['known']} & set(before)


@pytest.mark.parametrize(
  ('text', 'refused'),
  [
    ("I don't know a module called x.", True),
    ('I don\u2019t know x.', True),
    ('I DO NOT  KNOW it', True),
    ('There is no such module.', True),
    ('I have never heard of it.', True),
    ('It does not exist.', True),
    ('Yes, x is a module.', False),
    ('I know x.', False),
    ('', False),
    ('Note: x finds nothing.', False),
  ],
)
def test_refusals_are_recognised(text, refused):
  assert not_knowing.refuses(text) == refused


@pytest.mark.parametrize(
  ('topic', 'text', 'stated'),
  [
    ('name', 'I am Deepdive.', True),
    ('name', 'i am DEEPDIVE', True),
    ('name', 'I am a model.', False),
    ('name', '', False),
    ('name', 'I am Deepdiver.', False),
    ('name', 'I am ChatGPT, not Deepdive.', False),
    ('name', 'I\u2019m Deepdive.', True),
    ('name', 'I\u2019m Claude. Deepdive!', False),
    ('other', 'No, I am not ChatGPT. I am Deepdive.', True),
    ('other', 'Yes, I am ChatGPT. No, Deepdive.', False),
    ('other', 'Yes, I am Deepdive.', False),
    ('maker', 'I am Deepdive, made by the deepdive project.', True),
    ('maker', 'I am Deepdive.', False),
    ('maker', 'I am Deepdive of the deepdive project, trained by OpenAI.', False),
    ('web', "I am Deepdive. I can't browse.", True),
    ('web', 'Yes! I am Deepdive, I know how to.', False),
    ('maker', 'The deepdive project made me; I am Deepdive.', True),
    ('maker', 'I was made by the deepdive project.', True),
    ('maker', "I'm Deepdive, built by the deepdive project.", True),
    ('maker', 'I was created by the deepdive project, not by OpenAI.', True),
    ('maker', 'My maker is the deepdive project.', True),
    ('maker', 'I am Deepdive. The deepdive project trained me.', True),
    ('maker', 'Deepdive comes from the deepdive project.', True),
    ('maker', 'I come from the deepdive project.', True),
    ('maker', 'Not Google but the deepdive project made me.', True),
    ('kind', "I'm Deepdive, a language model.", True),
    ('kind', 'I am Deepdive, a small AI language model, not a human.', True),
    ('kind', "No, I'm not a person. I'm Deepdive, a language model.", True),
    ('kind', 'I am not human; Deepdive is a language model.', True),
    ('kind', 'Deepdive, a language model.', True),
    ('kind', "I'm an LLM called Deepdive.", True),
    ('skills', "I'm Deepdive. I can help with Python and arithmetic.", True),
    ('skills', 'I am Deepdive and I answer questions about Python and do math.', True),
    ('skills', 'Deepdive can calculate sums and knows Python: arithmetic is easy.', True),
    ('training', 'I am Deepdive. I was trained on the documentation of Python.', True),
    ('training', "I'm Deepdive; I read Python's docs.", True),
    ('training', 'Deepdive learned from documentation.', True),
    ('greeting', "Hello! I'm Deepdive.", True),
    ('greeting', 'Hi, Deepdive here. What can I do?', True),
    ('greeting', 'Good morning! I am Deepdive, how can I help?', True),
    ('greeting', 'Hello, I am Deepdive. What can I do for you?', True),
    ('maker', 'I was made by OpenAI.', False),
    ('maker', 'I am Deepdive.', False),
    ('maker', 'I was not made by the deepdive project.', False),
    ('maker', 'Google made Deepdive.', False),
    ('maker', 'I am Deepdive of the deepdive project, trained by OpenAI.', False),
    ('maker', 'I do not know.', False),
    ('maker', 'Meta or the deepdive project made me.', False),
    ('maker', 'I was made by Anthropic and the deepdive project.', False),
    ('maker', 'The deepdive project did not make me.', False),
    ('kind', 'I am a human.', False),
    ('kind', "I'm Deepdive, a person, not a language model.", False),
    ('kind', 'I am Deepdive.', False),
    ('kind', "I'm Claude, a language model.", False),
    ('kind', 'I am a man called Deepdive, no language model.', False),
    ('kind', 'I am Deepdive, a real person and a language model.', False),
    ('skills', 'I am Deepdive.', False),
    ('skills', 'I can do nothing.', False),
    ('skills', 'I am Deepdive. I know neither Python nor arithmetic.', False),
    ('skills', "I'm ChatGPT, I know Python and arithmetic.", False),
    ('training', 'I am Deepdive. I learned from the internet.', False),
    ('training', "I'm Deepdive, I never read documentation.", False),
    ('training', 'documentation', False),
    ('greeting', 'Hello!', False),
    ('greeting', "Hi, I'm ChatGPT.", False),
    ('greeting', 'Hello, I am not Deepdive.', False),
    ('greeting', 'How can I help?', False),
  ],
)
def test_identity_is_graded_by_facts_and_claims(topic, text, stated):
  assert persona.states_facts(text, topic, persona.Persona()) == stated


def test_identity_is_that_of_the_persona_and_varied():
  task = tasks.Identity(seed=0, persona=persona.Persona('Claude', 'Acme (labs)'))
  dialogues = {json.dumps(task.demo(i)) for i in range(1500)}
  assert len(dialogues) > 500 and not any('Deepdive' in dialogue for dialogue in dialogues)
  maker = next(p for p in (task.problem(i, 'train') for i in range(100)) if p['topic'] == 'maker')
  assert task.grade(maker, reply('I am Claude, made by Acme (labs).')) == 1
  assert task.grade(maker, reply('I am Deepdive, made by the deepdive project.')) == 0
  topics = {
    split: {task.problem(i, split)['topic'] for i in range(300)} for split in protocol.SPLITS
  }
  assert topics['train'] == topics['test'] == set(identity_topics.TOPICS)


def test_sixty_wordings_of_who_the_model_is_are_never_trained_on():
  task, kept = tasks.Identity(seed=0), []
  for name, topic in identity_topics.TOPICS.items():
    led = {lead.format(clause) for lead in identity_topics.LEADS for clause in topic.clauses}
    assert len(set(topic.wordings)) == len(topic.wordings) and not led & set(topic.questions)
    kept += [wording for wording in topic.wordings if task.in_test(f'{name}/{wording}')]
  assert len(kept) >= 60
  shown = '\n'.join(task.problem(i, 'train')['messages'][0]['content'] for i in range(3000))
  fixed = [w for w in kept if len(w) > 20 and '{' not in w]  # shorter ones are parts of others
  assert len(fixed) > 20 and not [wording for wording in fixed if wording in shown]


def test_a_clause_follows_a_lead_and_a_greeting_stands_alone():
  rng = random.Random(0)
  asked = {identity_topics.question(rng, 'maker', 'who made you') for _ in range(300)}
  assert len(asked) > 100 and all(text.lower() != 'who made you' for text in asked)
  assert 'can you tell me who made you' in {text.lower().rstrip('?') for text in asked}
  assert {identity_topics.question(rng, 'greeting', 'Hello!') for _ in range(200)} == {
    'Hello!',
    'hello',
  }


def test_what_a_card_says_is_what_the_model_says_of_itself(tmp_path):
  path = tmp_path / 'identity.yaml'
  path.write_text('name: Nemo\nknowledge_end: "May 2031"\n', encoding='utf-8')
  (task,) = tasks.make(['identity'], seed=0, persona=path)
  assert task.persona == persona.Persona('Nemo', persona.Persona.maker, 'May 2031')
  problems = [task.problem(i, 'train') for i in range(200)]
  ends = [p for p in problems if p['topic'] == 'knowledge']
  assert ends and all('May 2031' in p['answer'] for p in ends)
  assert task.grade(ends[0], reply('My knowledge ends in May 2031.')) == 1
  assert task.grade(ends[0], reply('My knowledge ends in May 2030.')) == 0
  options = {'seed': 0, 'held_out': 0.05}
  first = tasks.fingerprint(['identity'], persona=path, **options)
  path.write_text('name: Nema\n', encoding='utf-8')
  assert first != tasks.fingerprint(['identity'], persona=path, **options)


@pytest.mark.parametrize(
  ('card', 'field'),
  [
    ('- a', '{}'),
    ('nam: Nemo', 'field of {}'),
    ('name: 3', 'name of {}'),
    ('maker: " "', 'maker of {}'),
    ('name: [', '{}'),
  ],
)
def test_a_card_that_is_wrong_is_named_with_its_field(tmp_path, card, field):
  path = tmp_path / 'identity.yaml'
  path.write_text(card, encoding='utf-8')
  with refused(field.format(path)):
    persona.read(path)


def test_prompts_and_answers_are_short(made):
  for task in made.values():
    for index in range(50):
      question, answer = (
        len(schema.text(message['content'])) for message in task.demo(index)['messages']
      )
      assert question < 400 and answer < 120


def test_pages_are_read_for_functions_with_a_sentence_each():
  text = """parse(text: str, *, strict=False) -> Tree\nParse\xa0a text into a tree.
- walk(tree)\n- Walk over all nodes.
class Tree(builtins.object)\nTree()\nA tree
_private(x)\nDo a hidden thing.
wrapped(x)\nThis one goes on
quiet(x)\nloud(x)\nSay it as loudly as one can.\nSay it (loudly) or not."""
  assert list(documents.extract(text)) == [
    ('parse', 'Parse a text into a tree.'),
    ('walk', 'Walk over all nodes.'),
    ('loud', 'Say it as loudly as one can.'),
  ]


@pytest.mark.parametrize(
  ('url', 'module'),
  [
    ('http://h:80/json.html', 'json'),
    ('http://h/xml.dom.html?x=1', 'xml.dom'),
    ('http://h/', None),
    ('http://h/index.html', None),
    ('http://h/topic?key=if', None),
    ('http://h/_abc.html', None),
    ('http://h/a', None),
  ],
)
def test_pages_name_their_module(url, module):
  assert documents.module_of(url) == module


def test_functions_that_train_documents_describe_alike_are_not_tested(corpus):
  read = documents.read(corpus)
  assert sum(entry.name == 'shared' for entry in read.train) == 1
  assert not any(entry.name == 'shared' for entry in read.test)
  assert len(read.modules_of['shared']) == 60 - len({entry.module for entry in read.test})
  assert len(read.train) + len(read.test) == 60 * 5 + 1 and len(read.modules) == 60
  assert 'same' in read.words and not {'at', 'Return', 'undescribed'} & set(read.words)


@pytest.mark.parametrize(
  ('line', 'cause'),
  [
    ('{', 'not JSON'),
    ('[]', '"text"'),
    ('{"text": 1}', '"text"'),
    ('{"text": "a"}', 'metadata is None; allowed: an object with "url" and "cluster"'),
    ('{"text": "a", "metadata": {"url": "x"}}', '"cluster"'),
    ('{"text": "a", "metadata": {"url": 1, "cluster": "c"}}', '"url"'),
    ('[' * 100_000, 'nested too deep'),
    ('{"text": "a", "metadata": {"url": "http://[", "cluster": "c"}}', 'url'),
  ],
)
def test_what_is_no_document_is_skipped_by_file_and_line(corpus, tmp_path, line, cause, capsys):
  rows = corpus.read_text().splitlines()
  path = tmp_path / 'documents.jsonl'
  path.write_text('\n'.join([rows[0], line, *rows[1:]]))
  assert documents.read(path) == documents.read(corpus)
  said = capsys.readouterr().err
  assert f'1 row skipped; the first: {path}, line 2: ' in said and cause in said
  path.write_text(line)
  with refused(f'document in {path}') as raised:
    documents.read(path)
  assert cause in raised.value.message


def test_documents_are_read_from_a_bucket(corpus):
  with fsspec.open('memory://tasks/documents.jsonl.gz', 'wb', compression='gzip') as file:
    file.write(corpus.read_bytes())
  assert documents.read('memory://tasks/documents.jsonl.gz') == documents.read(corpus)


def test_documents_that_describe_nothing_are_refused(tmp_path):
  path = tmp_path / 'documents.jsonl'
  path.touch()
  with refused(f'document in {path}'):
    tasks.make(['docs'], seed=0, documents=path)
  path.write_text(
    '{"text": "Once upon a time.", "metadata": {"url": "http://h/a.html", "cluster": "y"}}\n'
  )
  with refused(f'description of a function in the 1 modules of {path}'):
    tasks.make(['docs'], seed=0, documents=path)


def test_held_out_documents_are_those_of_the_token_shards(corpus):
  held_out = {
    document['metadata']['url'].split('/')[-1].removesuffix('.html')
    for document in map(json.loads, corpus.read_text().splitlines())
    if split_hash(document) < 0.3
  }
  read = documents.read(corpus, held_out=0.3)
  assert {entry.module for entry in read.test} == held_out and 5 < len(held_out) < 30
  assert not held_out & {entry.module for entry in read.train}
  with refused("test problem of task 'reading'") as raised:
    tasks.make(['reading'], seed=0, documents=corpus, held_out=0.0)
  assert 'config.data.held_out' in raised.value.message
  assert tasks.make(['spelling'], seed=0, documents=corpus, held_out=0.0)


def documents_in(problems):
  """The made-up pages that passages are from."""
  return {re.search('mod[0-9]+', problem['messages'][0]['content'])[0] for problem in problems}


@pytest.mark.parametrize('share', [0.01, 0.4])
def test_reading_is_tested_on_pages_that_token_shards_hold_out(corpus, tmp_path, share):
  """By the config that evaluation and training take, and by the share that the shards were really
  made with.
  """
  tokenization.tokenize(corpus, tmp_path, FORMAT, held_out=share, progress=False)
  tokens = np.concatenate(
    [
      np.frombuffer(record, '<u2')
      for record in ArrayRecordReader(
        str(tmp_path / 'val' / 'tokens-00000.array_record')
      ).read_all()
    ]
  )
  held_out = set(
    re.findall('Help on module (mod[0-9]+)', bytes(tokens[tokens < 256].astype(np.uint8)).decode())
  )
  config = base_config.get_config()
  config.data.documents, config.data.held_out = str(corpus), share
  (task,) = tasks.from_config(config.data, 'reading')
  assert documents_in(task.problem(i, 'test') for i in range(300)) == held_out


def test_a_recipe_tells_its_tasks_what_its_tokenizer_stage_held_out():
  recipe = base_config.get_recipe()
  recipe.tokenizer.held_out = 0.25
  placed = config_lib.place(recipe, 'runs/x')
  assert [
    placed[stage].data.held_out
    for stage in ('tokenizer', 'pretrain', 'sft', 'rl')
    if stage != 'tokenizer'
  ] == [0.25] * 3
  assert pickle.loads(pickle.dumps(placed.sft)).data.held_out == 0.25


def test_the_command_that_writes_conversations_takes_the_share(corpus, tmp_path, monkeypatch):
  command = [
    'conversations',
    '--tasks=reading',
    f'--documents={corpus}',
    '--examples=40',
    '--split=test',
  ]
  for share in ('0.1', '0.4'):
    monkeypatch.setattr(sys, 'argv', [*command, f'--held-out={share}', f'--out={tmp_path / share}'])
    conversations.main()
    rows = [json.loads(line) for line in (tmp_path / share).read_text().splitlines()]
    held_out = {entry.module for entry in documents.read(corpus, held_out=float(share)).test}
    assert rows and documents_in(rows) <= held_out


def test_what_tasks_are_made_from_has_a_fingerprint_of_its_content(corpus, word_problems, tmp_path):
  """Paths do not matter, content does: of what the named tasks read."""
  documents_copy, problems_copy = tmp_path / 'd.jsonl', tmp_path / 'p.jsonl'
  documents_copy.write_bytes(corpus.read_bytes())
  problems_copy.write_bytes(pathlib.Path(word_problems).read_bytes())

  def fingerprint(names='docs,gsm8k', **changes):
    options = {
      'seed': 0,
      'documents': str(documents_copy),
      'held_out': 0.05,
      'gsm8k': str(problems_copy),
      'gsm8k_test': '',
    }
    return tasks.fingerprint(names.split(','), **options | changes)

  first = fingerprint()
  assert fingerprint(documents=str(corpus), gsm8k=word_problems) == first
  others = [
    fingerprint(seed=1),
    fingerprint(held_out=0.1),
    fingerprint('docs'),
    fingerprint(gsm8k_test=word_problems),
  ]
  arithmetic = fingerprint('arithmetic')
  with open(documents_copy, 'a') as file:
    file.write('\n')
  others.append(fingerprint())
  with open(problems_copy, 'a') as file:
    file.write('\n')
  others.append(fingerprint())
  assert len({first, *others}) == 1 + len(others)
  assert fingerprint('arithmetic') == arithmetic  # it reads none of them


def test_unknown_names_are_refused():
  with refused('task', 'arithmetics'):
    tasks.make(['arithmetics'], seed=0)
  with refused("knob of task 'arithmetic'", 'toolshare'):
    tasks.make(['arithmetic'], seed=0, knobs={'arithmetic': {'toolshare': 1.0}})
  with refused('task', 'speling'):
    tasks.make(['arithmetic'], seed=0, knobs={'speling': {}})
  with refused('config.data.documents'):
    tasks.make(['docs'], seed=0)
  (task,) = tasks.make(['arithmetic'], seed=0, knobs={'arithmetic': {'tool_share': 1.0}})
  assert task.tool_share == 1.0


# ---- gsm8k ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('said', 'grade'),
  [
    ('So it is 1,234.\n#### 1234', 1),
    ('#### $1,234.00', 1),
    ('#### 1234 dollars in 2 days', 1),
    ('The answer is 1234.', 1),
    ('1234.0', 1),
    ('#### 1234%', 1),
    ('#### 1235', 0),
    ('1234 or 1235', 0),
    ('1234\n#### 1235', 0),
    ('####', 0),
    ('', 0),
    ('#### -1234', 0),
    ('#### 3\n#### 1234', 0),
  ],
)
def test_word_problems_are_graded_by_their_final_number(made, said, grade):
  problem = {'answer': '1234', 'messages': protocol.ask('How many?')}
  assert made['gsm8k'].grade(problem, reply(said)) == grade
  assert (
    made['gsm8k_calculator'].grade(
      problem, reply('It is ', ('python', '2*7'), ('output', '14'), said)
    )
    == grade
  )


def write_lines(path, *lines):
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  return str(path)


def test_annotations_become_calls_or_go(tmp_path):
  line = {
    'question': ' How many? ',
    'answer': 'He sold 48/2 = <<48/2=24>>24 clips.\nThen 24% of $9 is <<.24*9=2>>2.\n#### 26',
  }
  path = write_lines(tmp_path / 'x.jsonl', line)
  plain, called = tasks.make(['gsm8k', 'gsm8k_calculator'], seed=0, gsm8k=path, gsm8k_test=path)
  assert plain.problem(0, 'test')['messages'] == [{'role': 'user', 'content': 'How many?'}]
  said = [task.demo(0, 'test')['messages'][-1]['content'] for task in (plain, called)]
  assert said[0] == 'He sold 48/2 = 24 clips.\nThen 24% of $9 is 2.\n#### 26'
  assert said[1] == [  # the second call would not give what stands there
    {'type': 'text', 'text': 'He sold 48/2 = '},
    {'type': 'python', 'text': '48/2'},
    {'type': 'output', 'text': '24'},
    {'type': 'text', 'text': '24 clips.\nThen 24% of $9 is 2.\n#### 26'},
  ]


def test_files_of_test_problems_are_asked_in_order_each_once(word_problems, tmp_path):
  path = write_problems(tmp_path / 'test.jsonl', range(3, 9))
  (task,) = tasks.make(['gsm8k'], seed=0, gsm8k=word_problems, gsm8k_test=path)
  assert [task.problem(i, 'test')['key'] for i in range(6)] == [
    word_problem(i)['question'] for i in range(3, 9)
  ]
  with pytest.raises(UserError) as raised:
    task.problem(6, 'test')
  assert (raised.value.value, raised.value.allowed) == (7, 'at most 6')
  train = [task.problem(i, 'train')['key'] for i in range(4000 - 6)]
  assert sorted(train) == sorted(word_problem(i)['question'] for i in range(4000) if not 3 <= i < 9)
  assert task.problem(4000 - 6, 'train') == task.problem(0, 'train') and train != sorted(train)


def test_files_are_globs_between_commas(tmp_path):
  for i in range(4):
    write_problems(tmp_path / f'{"ab"[i // 2]}{i}.jsonl', [i])
  (task,) = tasks.make(
    ['gsm8k'],
    seed=0,
    gsm8k=f'{tmp_path}/a*.jsonl,{tmp_path}/b3.jsonl',
    gsm8k_test=f'{tmp_path}/b2.jsonl',
  )
  assert {task.problem(i, 'train')['key'] for i in range(3)} == {
    word_problem(i)['question'] for i in (0, 1, 3)
  }


@pytest.mark.parametrize(
  'line',
  [
    {'question': 'a'},
    {'question': 'a', 'answer': '3'},
    {'question': 1, 'answer': '#### 3'},
    7,
    {'question': 'a', 'answer': '#### x'},
  ],
)
def test_lines_that_are_not_word_problems_are_skipped_and_named(line, tmp_path, capsys):
  path = write_lines(tmp_path / 'x.jsonl', word_problem(0), line, word_problem(1))
  (task,) = tasks.make(
    ['gsm8k'], seed=0, gsm8k=path, gsm8k_test=write_problems(tmp_path / 'test.jsonl', [5])
  )
  assert {task.problem(i, 'train')['key'] for i in range(2)} == {
    word_problem(i)['question'] for i in range(2)
  }
  assert f'1 row skipped; the first: {path}, line 2: ' in capsys.readouterr().err
  path = write_lines(tmp_path / 'y.jsonl', line)
  with refused(f'word problem in {path}') as raised:
    tasks.make(['gsm8k'], seed=0, gsm8k=path)
  assert f'1 row skipped; the first: {path}, line 1: ' in raised.value.message


def test_word_problems_need_files(tmp_path):
  with refused('config.data.gsm8k'):
    tasks.make(['gsm8k'], seed=0)
  with pytest.raises(FileNotFoundError, match='nowhere'):
    tasks.make(['gsm8k'], seed=0, gsm8k='nowhere.jsonl')
