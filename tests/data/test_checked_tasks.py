"""Tasks whose answers a program checks: countdown, bases, JSON, and the files of MATH and of code."""

import fractions
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from data import tasks
from data.tasks import bases, coding, countdown, json_objects, math_problems, protocol


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


# ---- Bases, sorting and JSON ---------------------------------------------------------------------


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


# ---- Programs ------------------------------------------------------------------------------------


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
    ({**HUMAN_EVAL, 'entry_point': None}, 'entry_point'),
    ({'prompt': 'x'}, 'row'),
    ({**MBPP, **HUMAN_EVAL}, 'row'),
  ],
)
def test_rows_without_tests_are_no_programs(row, field):
  with refused(field):
    coding.parse(row)
