"""Problems that are answered at once, in steps and by Python: what each way says is true."""

import datetime
import re

import pytest

from data import tasks
from data.tasks import dates, sorting, sums, ways
from data.tools import toolbox

MADE = {task.name: task for task in tasks.make(['at_once', 'in_steps', 'with_python'], seed=5)}
COUNT = 150


def demonstrations(way):
  """(problem, content of a good reply) of training problems of a way."""
  task = MADE[way]
  return [(task.problem(i, 'train'), task.demo(i)['messages'][-1]['content']) for i in range(COUNT)]


def test_every_way_has_the_same_problems_of_every_family_and_says_so_first():
  differing = ('task', 'messages')
  for i in range(COUNT):
    for split in ('train', 'test'):
      problems = [task.problem(i, split) for task in MADE.values()]
      first, *others = [
        {name: value for name, value in problem.items() if name not in differing}
        for problem in problems
      ]
      assert others == [first, first]
      asked = [problem['messages'][-1]['content'].split(': ', 1) for problem in problems]
      assert [words for words, _ in asked] == ['At once', 'In steps', 'With Python']
      assert len({question for _, question in asked}) == 1
  groups = {MADE['at_once'].problem(i, 'test')['group'] for i in range(COUNT)}
  assert groups == {
    *(f'sums of {n} digits' for n in (2, 3, 4)),
    *('letters', 'comparison', 'sorting', 'dates'),
  }


def test_what_python_prints_is_what_demonstrations_say_that_it_prints():
  python = toolbox.open_tools(['python'])
  for problem, (call, output, text) in demonstrations('with_python'):
    assert python(call['text']) == output['text'], problem
    assert text['text'] == str(problem['answer'])


def test_steps_are_true_and_end_with_the_answer():
  equations = 0
  for problem, said in demonstrations('in_steps'):
    assert said.endswith(f'. Answer: {problem["answer"]}')
    for left, right in re.findall(r'([0-9.+-]+) ?= ?([0-9.]+)', said):
      assert eval(re.sub(r'\b0+(?=[0-9])', '', left)) == float(right), said
      equations += 1
  assert equations > COUNT


@pytest.mark.parametrize(
  ('a', 'b', 'said'),
  [
    (347, 5892, '7+2=9: 9; 4+9=13: 39; 3+8+1=12: 239; 0+5+1=6: 6239. Answer: 6239'),
    (99, 1, '9+1=10: 0; 9+0+1=10: 100. Answer: 100'),
    (20, 10, '0+0=0: 0; 2+1=3: 30. Answer: 30'),
  ],
)
def test_sums_go_from_the_right_with_a_carry(a, b, said):
  assert sums.Sums(0).steps({'numbers': [a, b], 'answer': str(a + b)}) == said


@pytest.mark.parametrize(
  ('start', 'end', 'between', 'said'),
  [
    ('2024-03-03', '2024-04-17', False, '03: 3+45=48; 04: 48-31=17. Answer: 2024-04-17'),
    ('2023-12-31', '2024-01-02', False, '12: 31+2=33; 01: 33-31=2. Answer: 2024-01-02'),
    ('2024-02-28', '2024-02-29', False, '02: 28+1=29. Answer: 2024-02-29'),
    ('2024-02-03', '2024-04-22', True, '02: 29-3=26; 03: 26+31=57; 04: 57+22=79. Answer: 79'),
    ('2024-03-03', '2024-03-22', True, '03: 22-3=19. Answer: 19'),
  ],
)
def test_sums_of_dates_go_from_month_to_month(start, end, between, said):
  days = (datetime.date.fromisoformat(end) - datetime.date.fromisoformat(start)).days
  problem = {'start': start, 'end': end, 'days': days, 'between': between}
  problem['answer'] = str(days) if between else end
  assert dates.Dates(0).steps(problem) == said


def test_lists_are_sorted_by_insertion():
  problem = {'numbers': [52, 7, 31], 'answer': '7, 31, 52'}
  assert sorting.Sorting(0).steps(problem) == '52; 7, 52; 7, 31, 52. Answer: 7, 31, 52'


def test_every_family_can_be_asked_in_every_way():
  families = {MADE['at_once'].problem(i, 'train')['family'] for i in range(COUNT)}
  assert families == {family.name for family in ways.FAMILIES}
