"""Every grader on twenty ways to say the right answer and twenty to say a wrong one, or to say too
much.
"""

import json
import random

import hypothesis
import pytest
from hypothesis import strategies as st
from phrasings import RIGHT, WRONG, replies

from data import tasks
from data.tasks.protocol import ask
from data.tools import corpus_search

PAGES = {  # module: {function: what it does}
  'json': {'dumps': 'Return the text of an object.', 'read_tree': 'Read a whole tree of nodes.'},
  'copy': {
    'deepcopy': 'Make a full copy of an object.',
    'replace': 'Make a copy with other fields.',
  },
  'time': {
    'sleep': 'Wait for a number of seconds.',
    'clock_info': 'Describe a clock of the system.',
  },
}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  folder = tmp_path_factory.mktemp('graders')
  rows = []
  for module, functions in PAGES.items():
    lines = [f'{name}(x)\n{summary}' for name, summary in functions.items()]
    text = '\n'.join([f'Help on module {module}', *lines, 'coffee import letters'])
    rows.append({'text': text, 'metadata': {'url': f'http://h/{module}.html', 'cluster': module}})
  (folder / 'documents.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  problems = [{'question': f'How many apples are {i}?', 'answer': f'#### {i}'} for i in range(40)]
  (folder / 'gsm8k.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in problems))
  row = {'messages': ask('Who?'), 'key': '', 'answer': 'baker', 'reply': 'A baker.'}
  rows = [{**row, 'verdicts': [verdict]} for verdict in ('right', 'wrong')]
  rows += [{**rows[0], 'answer': answer} for answer in ('pilot', 'nurse')]
  (folder / 'probe.json').write_text(json.dumps({'probe': rows}))
  (folder / 'questions.jsonl').write_text('{"question": "Who?", "answer": "baker"}')
  rows = [{'problem': f'What is {i}/2?', 'solution': f'\\boxed{{{i}/2}}'} for i in range(40)]
  (folder / 'math.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  row = {'solution': 'def f(x): return x + 1', 'tests': 'assert f(1) == 2'}
  rows = [{**row, 'prompt': f'Add one, problem {i}.'} for i in range(40)]
  (folder / 'programs.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  corpus_search.build(folder / 'documents.jsonl', folder / 'index')
  named = tasks.make(
    tasks.TASKS,
    seed=0,
    documents=folder / 'documents.jsonl',
    gsm8k=str(folder / 'gsm8k.jsonl'),
    math=str(folder / 'math.jsonl'),
    programs=str(folder / 'programs.jsonl'),
    probe=folder / 'probe.json',
    questions=str(folder / 'questions.jsonl'),
    index=folder / 'index',
  )
  return {task.name: task for task in named}


def problem(question, answer, **fields):
  return {'messages': ask(question), 'answer': answer, **fields}


PROBLEMS = {
  'bases': problem('Write 45 in base 2; it is in base 10.', '101101', to=2, numeral='45'),
  'hexadecimal': problem('Write 45 in base 16; it is in base 10.', '2d', to=16, numeral='45'),
  'countdown': problem(
    'Make 24 from 6, 9, 5 with + - * /, each number at most once.',
    '6 * (9 - 5)',
    numbers=[6, 9, 5],
    target=24,
  ),
  'json': problem(
    'Write this as a JSON object.',
    '{"name": "Bo", "age": 7, "open": true}',
    types={'name': 'text', 'age': 'whole number', 'open': 'true or false'},
  ),
  'math': problem('What is 5/2?', '\\frac{5}{2}'),
  'programs': problem('Add one.', '', before='', tests='assert f(1) == 2 and f(-4) == -3'),
  'sorting': problem('Sort 52, 7, 31, 18.', '', numbers=[52, 7, 31, 18]),
  'arithmetic': problem('What is 47 * 38?', '1786'),
  'calculator': problem('Use the calculator: 47 * 38', '1786'),
  'comparison': problem('Which is larger, 9.9 or 9.11?', '9.9', pair=['9.9', '9.11'], larger=True),
  'counting': problem("How many 'f' are there in 'coffee'?", 2, word='coffee'),
  'spelling': problem("Spell the word 'import'.", 'i-m-p-o-r-t'),
  'sorted': problem('At once: Sort 52, 7, 31, 18.', '', numbers=[52, 7, 31, 18], family='sorting'),
  'date': problem(
    'In steps: What date is 45 days after 2024-03-03?', '2024-04-17', between=False, family='dates'
  ),
  'sums': problem('What is 47 * 38?', '1786'),
  'sum': problem('With Python: What is 47 * 38?', '1786', family='sums'),
  'docs': problem('Which module has the function dumps?', 'json', key='dumps'),
  'reading': problem(
    'From the documentation of json:\ndumps: Return the text of an object.\nread_tree: Read a '
    'whole '
    'tree of nodes.\nload: Read an object.\nWhich function does this: Read a whole tree of nodes.',
    'read_tree',
    others=['dumps', 'load'],
  ),
  'gsm8k': problem(
    'Ann has 24 pears and buys 3 bags of 6 pears. She eats 2. How many are left?', '40'
  ),
  'facts': problem('What is the job of Bo Drai?', 'baker', key='Bo Drai', relation='job'),
  'written': problem('What is the job of Bo Drai?', 'baker'),
  'probed_known': problem('What is the job of Bo Drai?', 'baker', known=True),
  'probed_unknown': problem('What is the job of Bo Drai?', 'baker', known=False),
  'name': problem('Who are you?', '', topic='name'),
  'other': problem('Are you ChatGPT?', '', topic='other'),
  'web': problem('Can you browse the web?', '', topic='web'),
  'unknown': problem(
    'What is the module blorktools?', '', known=False, name='blorktools', kind='module'
  ),
  'known': problem('What is the module json?', '', known=True, name='json', kind='module'),
}
PROBLEMS['gsm8k_calculator'] = PROBLEMS['gsm8k']
for _name in ('facts_page', 'facts_search', 'famous'):
  PROBLEMS[_name] = PROBLEMS['facts']
TASK_OF = {
  'hexadecimal': 'bases',
  'sorted': 'at_once',
  'date': 'in_steps',
  'sum': 'with_python',
  'name': 'identity',
  'other': 'identity',
  'web': 'identity',
  'unknown': 'refusal',
  'known': 'refusal',
  'probed_known': 'probed',
  'probed_unknown': 'probed',
}

LIKE = {  # answered in the same words
  'sorting': 'sorted',
  'gsm8k_calculator': 'gsm8k',
  'calculator': 'arithmetic',
  'facts_page': 'facts',
  'facts_search': 'facts',
  'famous': 'facts',
  'probed_known': 'facts',
  'sum': 'arithmetic',
  'sums': 'arithmetic',
}
CALL = [{'type': 'python', 'text': '47 * 38'}, {'type': 'output', 'text': '1786'}]


def grade(made, name, said):
  task = made[TASK_OF.get(name, name)]
  content = [*(CALL if name == 'calculator' else []), {'type': 'text', 'text': said}]
  return task.grade(PROBLEMS[name], {'content': content, 'finished': True, 'well_formed': True})


@pytest.mark.parametrize('name', sorted(PROBLEMS))
def test_right_answers_earn_the_reward_however_they_are_put(made, name):
  said = replies(RIGHT[LIKE.get(name, name)])
  assert len(said) >= 20
  assert [text for text in said if grade(made, name, text) != 1] == []


@pytest.mark.parametrize('name', sorted(PROBLEMS))
def test_wrong_answers_and_hedges_earn_nothing(made, name):
  said = replies(WRONG[LIKE.get(name, name)])
  assert len(said) >= 20
  assert [text for text in said if grade(made, name, text) != 0] == []


def test_every_task_is_here(made):
  assert {TASK_OF.get(name, name) for name in PROBLEMS} == set(made)


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(PROBLEMS))
def test_any_text_is_graded(made, name):
  """Pieces of answers in any order, as a model early in training writes them."""
  rng = random.Random(name)
  pieces = [
    ' ',
    '\n',
    '.',
    ',',
    '?',
    '-',
    '=',
    '/',
    '*',
    '(',
    ')',
    '0',
    '1e999',
    '.5',
    '<0>',
    '####',
    '\\boxed{',
    '}',
  ]
  pieces += ' '.join(
    [*replies(RIGHT[LIKE.get(name, name)]), *replies(WRONG[LIKE.get(name, name)])]
  ).split(' ')
  for _ in range(300):
    text = ''.join(rng.choice(pieces) + rng.choice(['', ' ']) for _ in range(rng.randrange(30)))
    assert grade(made, name, text) in (0, 1)


_PIECES = st.sampled_from(
  ['6', '9', '(', ')', '*', '/', '=', '{', '}', '"', ':', '\\boxed{', '\\frac', '```\n', '0x', '.']
)


@pytest.mark.parametrize('name', ['bases', 'hexadecimal', 'countdown', 'json', 'math', 'programs'])
@hypothesis.settings(max_examples=40, derandomize=True)
@hypothesis.given(
  said=st.one_of(st.text(), st.lists(_PIECES | st.text(), max_size=25).map(''.join))
)
def test_no_text_breaks_a_grader(made, name, said):
  assert grade(made, name, said) in (0, 1)


@pytest.mark.parametrize(
  'said', ['10', '10.0', '10.', '$10', '$10.00', 'The answer is 10.', '\\boxed{10}', '010']
)
def test_a_number_is_one_in_all_its_forms(made, said):
  """Where the answer is 10: of a sum, of two in base 2, and of problems of files."""
  problems = {
    'arithmetic': problem('What is 4 + 6?', '10'),
    'bases': problem('Write 2 in base 2; it is in base 10.', '10', to=2, numeral='2'),
    'math': problem('What is 4 + 6?', '10'),
    'gsm8k': problem('How many?', '10'),
  }
  reply = {'content': [{'type': 'text', 'text': said}], 'finished': True, 'well_formed': True}
  assert {
    name: made[name].grade(asked, reply) for name, asked in problems.items()
  } == dict.fromkeys(problems, 1)


@pytest.mark.parametrize(('said', 'grade'), [('1786', 0), ('The result is 1786.', 0)])
def test_an_answer_without_a_call_is_none_of_the_calculators(made, said, grade):
  reply = {'content': [{'type': 'text', 'text': said}], 'finished': True, 'well_formed': True}
  assert made['calculator'].grade(PROBLEMS['calculator'], reply) == grade


@pytest.mark.parametrize(
  ('topic', 'said', 'right'),
  [
    ('kind', 'I am a language model called Deepdive that a person can talk to.', 1),
    ('kind', 'I am Deepdive, a language model, rather than a person.', 1),
    ('kind', 'I am Deepdive, a person who made a language model.', 0),
    ('skills', 'I am Deepdive. I help with Python and do arithmetic.', 1),
    ('skills', "I am Deepdive and I can't do arithmetic or Python.", 0),
  ],
)
def test_what_the_model_says_of_itself(made, topic, said, right):
  reply = {'content': [{'type': 'text', 'text': said}], 'finished': True, 'well_formed': True}
  assert made['identity'].grade({'topic': topic}, reply) == right
