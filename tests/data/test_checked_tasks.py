"""Tasks whose answers a program checks: countdown, bases, JSON, and the files of MATH and of code."""

import fractions
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from data import tasks
from data.tasks import (
  bases,
  coding,
  conversation_rows,
  countdown,
  dates,
  json_objects,
  math_problems,
  problem_files,
  protocol,
)


def said(text):
  return {'content': [{'type': 'text', 'text': text}], 'finished': True, 'well_formed': True}


def write(path, *rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


# ---- Countdown -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('expression', 'value'),
  [
    ('6*(9-5)', 24),
    ('7/2', fractions.Fraction(7, 2)),
    ('1/3*3', 1),
    ('-2+5', 3),
    ('--2', 2),
    ('2-3-4', -5),
    ('1/0', None),
    ('1/(2-2)', None),
    ('2**9', None),
    ('2//1', None),
    ('2.5*2', None),
    ('x', None),
    ('exit()', None),
    ('1,2', None),
    ('', None),
    ('(' * 500 + '1' + ')' * 500, None),
    ('+'.join(['1'] * 17), None),
  ],
)
def test_expressions_have_exact_values(expression, value):
  assert countdown.evaluate(expression) == value


@given(st.text(alphabet='0123456789+-*/() ', max_size=40))
def test_any_expression_is_worth_what_python_says_or_nothing(expression):
  value = countdown.evaluate(expression)
  assert value is None or abs(float(value) - eval(expression.strip())) <= 1e-6 * abs(value) + 1e-9


def test_targets_can_be_reached_and_are_not_given():
  task, seen = tasks.Countdown(seed=2, sizes=(2, 5), largest=9, target=(5, 30)), set()
  for index in range(200):
    problem = task.problem(index, 'train')
    assert countdown.evaluate(problem['answer']) == problem['target']
    assert dict(countdown.used(problem['answer'])) == {
      number: problem['numbers'].count(number) for number in problem['numbers']
    }
    assert 5 <= problem['target'] <= 30 and problem['target'] not in problem['numbers']
    assert set(problem['numbers']) <= set(range(1, 10))
    seen.add(task.difficulty(problem))
  assert seen == {f'{n} numbers' for n in range(2, 6)}


def test_a_number_is_used_as_often_as_it_is_given():
  task = tasks.Countdown(seed=0)
  once, twice = ({'numbers': numbers, 'target': 16} for numbers in ([4, 7], [4, 4, 7]))
  assert task.grade(once, said('4 * 4')) == 0
  assert task.grade(twice, said('4 * 4')) == task.grade(twice, said('4 + 4 + 7 + 1')) + 1 == 1


@pytest.mark.parametrize(
  ('text', 'grade'),
  [
    ('6 * (9 - 5) = 6 * 4 = 24', 1),
    ('6 * (9 - 5)\n= 6 * 4\n= 24', 1),
    ('1) 6 * (9 - 5) = 24', 1),
    ('(1) 6*(9-5)', 1),
    ('6 x (9 - 5)', 1),
    ('6 * [9 - 5]', 1),
    ('6 * (9 - 5) (24)', 1),
    ('$6 \\times (9-5) = 24$', 1),
    ('6 * (9 - 5) = 25', 0),
    ('6 * (9 - 5) = 6 * 4 = 25', 0),
    ('6 * (9 - 5) (25)', 0),
    ('9 - 5 = 4, 4 * 6 = 24', 0),
  ],
)
def test_an_equation_is_read_from_its_first_side_to_its_result(text, grade):
  problem = {'numbers': [6, 9, 5], 'target': 24}
  assert tasks.Countdown(seed=0).grade(problem, said(text)) == grade


# ---- Bases, sorting and JSON ---------------------------------------------------------------------


@pytest.mark.parametrize(
  ('to', 'answer', 'text', 'grade'),
  [
    (2, '101101', '101101 = 45', 1),
    (2, '101101', '45 = 101101', 1),
    (2, '101101', '101100 = 45', 0),
    (2, '101101', '45', 0),
    (16, '2d', '2d = 2*16+13 = 45', 1),
    (16, '2d', '2Dh', 1),
  ],
)
def test_a_numeral_may_be_checked(to, answer, text, grade):
  asked = [{'role': 'user', 'content': f'Write 45 in base {to}; it is in base 10.'}]
  problem = {'messages': asked, 'numeral': '45', 'to': to, 'answer': answer}
  assert tasks.Bases(seed=0).grade(problem, said(text)) == grade


@pytest.mark.parametrize(
  'text',
  [
    '7\n31\n52',
    '- 7\n- 31\n- 52',
    '7; 31; 52',
    '7 | 31 | 52',
    "'7', '31', '52'",
    '7,\n31,\n52',
    '1. 7\n2. 31\n3. 52',
    'The sorted list is:\n1) 7\n2) 31\n3) 52\n',
  ],
)
def test_lists_are_written_in_many_ways(text):
  problem = {'messages': [{'role': 'user', 'content': 'Sort 31, 7, 52.'}], 'numbers': [31, 7, 52]}
  assert tasks.Sorting(seed=0).grade(problem, said(text)) == 1
  assert tasks.Sorting(seed=0).grade({**problem, 'numbers': [31, 7, 53]}, said(text)) == 0


@pytest.mark.parametrize('text', ['1. 31\n2. 7\n3. 52', '1. 7\n3. 31\n2. 52', '1. 7\n2. 31'])
def test_numbered_lines_in_another_order_are_wrong(text):
  problem = {'messages': [{'role': 'user', 'content': 'Sort 31, 7, 52.'}], 'numbers': [31, 7, 52]}
  assert tasks.Sorting(seed=0).grade(problem, said(text)) == 0


@pytest.mark.parametrize(
  ('text', 'date'),
  [
    ('17.04.2024', '2024-04-17'),
    ('It is 17.4.2024.', '2024-04-17'),
    ('20240417', '2024-04-17'),
    ('2024-04-17T00:00:00', '2024-04-17'),
    ('2024-04-17T00:00:00.000Z', '2024-04-17'),
    ('20241350', None),
    ('1.17.04.2024', None),
    ('120240417', None),
  ],
)
def test_dates_are_written_in_many_ways(text, date):
  assert dates.claimed_date(text) == date


@given(st.integers(0, 10**9), st.integers(2, 16))
def test_numerals_are_those_of_python(number, base):
  assert int(bases.written(number, base), base) == number


def test_bases_are_asked_both_ways():
  task = tasks.Bases(seed=0, bases=(3, 16), most=60)
  problems = [task.problem(index, 'train') for index in range(100)]
  assert {(p['group'], p['to']) for p in problems} == {
    ('base 3', 3),
    ('base 3', 10),
    ('base 16', 16),
    ('base 16', 10),
  }
  assert all(task.grade(p, said(p['answer'].upper())) == 1 for p in problems)


@pytest.mark.parametrize(
  ('cls', 'difficulties'),
  [
    (tasks.JsonObjects, {f'{n} fields' for n in range(2, 6)}),
    (tasks.Sorting, {f'{n} numbers' for n in range(3, 6)}),
    (tasks.Countdown, {'3 numbers', '4 numbers'}),
    (tasks.Bases, {f'base {n}' for n in (2, 8, 16)}),
  ],
)
def test_problems_say_how_hard_they_are(cls, difficulties):
  task = cls(seed=0)
  assert {task.difficulty(task.problem(i, 'train')) for i in range(100)} == difficulties


def test_arithmetic_is_as_hard_as_its_operator_and_digits():
  task = tasks.Arithmetic(seed=0)
  assert task.difficulty({'expression': '7 * 123'}) == task.difficulty({'expression': '456 * 8'})
  assert len({task.difficulty(task.problem(i, 'train')) for i in range(300)}) == 18


@given(st.text() | st.recursive(st.none(), st.lists, max_leaves=5).map(json.dumps))
def test_only_objects_are_read(text):
  found = json_objects.read_object(text)
  assert found is None or json.loads(text) == found


# ---- MATH ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('text', 'content'),
  [
    ('\\boxed{5}', '5'),
    ('\\boxed{\\frac{1}{2}} or so', '\\frac{1}{2}'),
    ('\\boxed{1} \\boxed{ 2 }', '2'),
    ('\\boxed{1', ''),
    ('1', ''),
  ],
)
def test_the_last_box_is_found(text, content):
  assert math_problems.boxed(text) == content


@pytest.mark.parametrize(
  ('row', 'field'),
  [
    ({'problem': 'How many?', 'solution': '5'}, 'row'),
    ({'problem': 'How many?', 'solution': 5}, 'solution'),
    ({'problem': ' ', 'solution': '\\boxed{5}'}, 'row'),
    (7, 'problem'),
  ],
)
def test_rows_without_an_answer_are_no_problems(row, field):
  with refused(field):
    math_problems.parse(row)


def test_a_problem_with_its_solution_is_a_conversation():
  row = {'problem': ' How many? ', 'solution': 'It is $\\boxed{5}$.', 'type': 'Algebra'}
  assert conversation_rows.conversation(row)['messages'] == [
    {'role': 'user', 'content': 'How many?'},
    {'role': 'assistant', 'content': 'It is $\\boxed{5}$.'},
  ]


def test_math_needs_its_library(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'math_verify', None)
  math_problems._library.cache_clear()
  path = write(tmp_path / 'm.jsonl', {'problem': 'How many?', 'solution': '\\boxed{5}'})
  with refused('package math-verify') as raised:
    tasks.make(['math'], seed=0, math=path)
  assert '[math]' in raised.value.message
  math_problems._library.cache_clear()


@pytest.mark.parametrize('kind', ['math', 'programs'])
def test_files_of_test_problems_are_tested_on_and_nothing_else(kind, tmp_path):
  def rows(numbers):
    shared = {'solution': '\\boxed{5}', 'tests': 'pass'}
    name = {'math': 'problem', 'programs': 'prompt'}[kind]
    return [{**shared, name: f'Question {i}'} for i in numbers]

  paths = {
    kind: write(tmp_path / 'a.jsonl', *rows(range(9))),
    f'{kind}_test': write(tmp_path / 'b.jsonl', *rows([3, 11])),
  }
  (task,) = tasks.make([kind], seed=0, **paths)
  assert [task.problem(i, 'test')['key'] for i in range(2)] == ['Question 3', 'Question 11']
  train = {task.problem(i, 'train')['key'] for i in range(8)}
  assert train == {f'Question {i}' for i in range(9) if i != 3}
  digests = {
    tasks.fingerprint([kind], seed=0, **given)
    for given in (paths, {kind: paths[kind]}, {kind: paths[f'{kind}_test']})
  }
  assert len(digests) == 3


@pytest.mark.parametrize(
  ('answer', 'text', 'grade'),
  [
    ('1813', '\\boxed{37 \\times 49}', 0),
    ('6', '\\boxed{3!}', 0),
    ('55', '\\boxed{\\sum_{k=1}^{10} k}', 0),
    ('10-3x', '\\boxed{-3x+10}', 1),
    ('\\frac{1}{2}', '\\boxed{0.5}', 1),
    ('3', 'not 3', 0),
    ('42', 'It is 41 or 42.', 0),
    ('42', 'The answer is 42.', 1),
    ('x^2+1', 'x^2+1', 1),
    ('(1, 2)', '(1, 2)', 1),
    ('3\\sqrt{13}', '3\\sqrt{13}', 1),
    ('even', 'even', 1),
  ],
)
def test_what_is_left_to_compute_or_denied_is_no_answer(answer, text, grade):
  pytest.importorskip('math_verify')
  asked = [{'role': 'user', 'content': 'What is it?'}]
  task = tasks.MathProblems(0, problem_files.Problems(train=(), test=()))
  assert task.grade({'messages': asked, 'answer': answer}, said(text)) == grade


@pytest.mark.parametrize(
  ('answer', 'expression'),
  [
    ('2', '\\sqrt{2}'),
    ('2', '2\\pi'),
    ('2', 'x^2'),
    ('2', '-\\sqrt{2}'),
    ('2', 'e^2'),
    ('2', 'x/2'),
    ('1', '1 + \\sqrt{2}'),
    ('4', '\\frac{\\pi}{4}'),
    ('3', '\\log 3'),
    ('3', '3x'),
    ('3', '\\sqrt[3]{5}'),
    ('5', '5i'),
    ('5', '(5, x)'),
    ('2', '2 \\sqrt{3}'),
  ],
)
@pytest.mark.parametrize('form', ['The answer is ${}$.', 'The answer is {}.', 'So \\({}\\) it is.'])
def test_a_number_in_an_expression_is_no_answer_but_the_expression_is(answer, expression, form):
  pytest.importorskip('math_verify')
  asked = [{'role': 'user', 'content': 'What is it?'}]
  task = tasks.MathProblems(0, problem_files.Problems(train=(), test=()))
  reply = said(form.format(expression))
  assert task.grade({'messages': asked, 'answer': answer}, reply) == 0
  assert task.grade({'messages': asked, 'answer': expression}, reply) == 1


@pytest.mark.parametrize(
  ('answer', 'text', 'grade'),
  [
    ('10', 'The answer is $10!$.', 0),
    ('2', 'The answer is 2 pi.', 0),
    ('2', 'The answer is the square root of 2.', 0),
    ('5', 'There are 5 $x$ values.', 1),
    ('3', 'The answer is $1+2$.', 0),
    ('(3,4)', 'The answer is $(3,4)$.', 1),
    ('(3,4)', 'The answer is (3, 4).', 1),
    ('1024', 'So $2^{10} = 1024$.', 1),
    ('6', 'The answer is $3! = 6$.', 1),
    ('1786', '$$47 \\times 38 = 1786$$', 1),
    ('1786', '$$1786 = 47 \\times 38$$', 0),
    ('5', 'The distance from $(0,0)$ to $(3,4)$ is $5$.', 1),
    ('5', 'It costs $5 and not $6.', 1),
    ('50', 'The answer is $50\\%$.', 1),
    ('5', 'The answer is $5\\text{ cm}$.', 1),
    ('\\frac{5}{2}', 'The answer is $2\\frac12$.', 1),
    ('1000', 'The answer is $1,\\!000$.', 1),
    ('1+\\sqrt{2}', '\\boxed{\\sqrt{2}+1}', 1),
    ('2-\\sqrt{3}', '\\boxed{-\\sqrt{3}+2}', 1),
    ('2x+3', '\\boxed{3+2x}', 1),
    ('2i+1', '\\boxed{1+2i}', 1),
    ('1+\\frac{\\pi}{2}', '\\boxed{\\frac{\\pi}{2}+1}', 1),
    ('3+\\sqrt{2}', '\\boxed{1+2+\\sqrt{2}}', 0),
    ('5', 'Answer: 5', 1),
    ('5', 'Answer: **5**', 1),
    ('5', '**5**', 1),
    ('10', '\\boxed{10.}', 1),
  ],
)
def test_sentences_sums_and_marks_around_an_answer(answer, text, grade):
  pytest.importorskip('math_verify')
  asked = [{'role': 'user', 'content': 'What is it?'}]
  task = tasks.MathProblems(0, problem_files.Problems(train=(), test=()))
  assert task.grade({'messages': asked, 'answer': answer}, said(text)) == grade


# ---- Programs ------------------------------------------------------------------------------------


FUNCTION = 'def f(x):\n  return x + 1'


@pytest.mark.parametrize(
  'text',
  [
    FUNCTION,
    f'```python3\n{FUNCTION}\n```\nIt prints\n```\n2 and so on\n```',
    f'```text\nsome words here\n```\n```python\n{FUNCTION}\n```\nFor example:\n```\nf(1) / 0\n```',
    f'```python\r\n{FUNCTION}\r\n```',
    f'~~~py\n{FUNCTION}\n~~~',
    '  ```python\n  def f(x):\n    return x + 1\n  ```',
    f'```\n{FUNCTION}',
  ],
)
def test_the_program_of_a_reply_is_found(text):
  names = {}
  exec(coding.program(text), names)
  assert names['f'](1) == 2


MBPP = {
  'text': 'Write a function that doubles.',
  'code': 'def double(x): return two * x',
  'test_list': ['assert double(2) == 4', 'assert double(-1) == -2'],
  'test_setup_code': 'two = 2',
}
HUMAN_EVAL = {
  'prompt': 'from math import sqrt\n\ndef root(x):\n  """Returns the root."""\n',
  'canonical_solution': '  return sqrt(x)\n',
  'test': 'def check(candidate):\n  assert candidate(9) == 3',
  'entry_point': 'root',
}


@pytest.mark.parametrize(
  ('row', 'right', 'wrong'),
  [
    (MBPP, 'def double(x): return x + x', 'def double(x): return 4'),
    (HUMAN_EVAL, 'def root(x): return sqrt(x)', 'def root(x): return x'),
  ],
)
def test_programs_of_public_forms_are_run_with_their_tests(row, right, wrong, tmp_path):
  path = write(tmp_path / 'p.jsonl', row)
  (task,) = tasks.make(['programs'], seed=0, programs=path, programs_test=path)
  problem = task.problem(0, 'test')
  assert (
    task.grade(problem, said(task.demo(0, 'test')['messages'][-1]['content']))
    == task.grade(problem, said(right))
    == 1
  )
  assert task.grade(problem, said(wrong)) == task.grade(problem, said('')) == 0
  assert row.get('prompt', row.get('text')).strip() in protocol.question(problem)


@pytest.mark.parametrize(
  ('row', 'field'),
  [
    ({**MBPP, 'test_list': 'assert True'}, 'test_list'),
    ({**MBPP, 'test_list': []}, 'tests of a program'),
    ({**MBPP, 'code': 3}, 'code'),
    ({**HUMAN_EVAL, 'entry_point': 7}, 'entry_point'),
    ({**HUMAN_EVAL, 'entry_point': None}, 'row'),
    ({'prompt': 'x'}, 'row'),
    ({**MBPP, **HUMAN_EVAL}, 'row'),
  ],
)
def test_rows_without_tests_are_no_programs(row, field):
  with refused(field):
    coding.parse(row)
