"""The curriculum of RL: which problems are asked, and that a run that resumes goes on with it."""

import json
import shutil

import commands
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict
from refusals import refused

from configs import base
from lm.base import metrics
from lm.stages.rl import curriculum, rl_checks, rollout


def make(bounds=(0.1, 0.9), rest=0.25):
  return curriculum.Curriculum(ConfigDict({'curriculum': bounds, 'curriculum_rest': rest}), seed=3)


def test_what_is_always_right_or_never_is_asked_less():
  made = make()
  for name, right in (('easy', [1] * 8), ('half', [0, 1] * 4), ('hard', [0] * 8)):
    made.learn(name, np.array(right, bool))
  assert [made.teaches(name) for name in ('easy', 'half', 'hard', 'new')] == [
    False,
    True,
    False,
    True,
  ]
  asked = {
    name: sum(made.wants(name, question, 0) for question in range(2000)) / 2000
    for name in ('easy', 'half', 'hard', 'new')
  }
  assert asked['half'] == asked['new'] == 1
  assert asked['easy'] == pytest.approx(0.25, abs=0.03) == asked['hard']
  assert made.wants('easy', 7, 2) == make_again(made).wants('easy', 7, 2)


def make_again(made):
  """A curriculum that goes on with the state of another, as JSON keeps it."""
  again = make()
  again.restore(json.loads(json.dumps(made.state())))
  return again


def test_later_answers_weigh_more_and_bounds_are_not_included():
  made = make(bounds=(0.0, 1.0))
  made.learn('x', np.zeros(4, bool))
  assert not made.teaches('x')
  made.learn('x', np.ones(4, bool))
  assert made.teaches('x')
  assert made.state() == {'success': {'x': [4.0, curriculum.MEMORY * 4 + 4]}}
  made.restore({})
  assert made.state() == {'success': {}} and made.teaches('x')


def test_without_bounds_all_problems_are_alike_and_nothing_is_kept():
  made = make(bounds=())
  made.learn('x', np.zeros(4, bool))
  assert made.wants('x', 0, 0) and made.state() == {'success': {}} and not made.is_on


def test_a_problem_that_is_not_wanted_is_followed_by_another_and_the_last_one_is_taken():
  def draw(number):
    return f'problem {number}', [1] * (9 if number == 5 else 1)

  assert rollout.ask(draw, 0, 5, 8, lambda problem, n: n == 3) == ('problem 15', [1], [(5, 9)])
  problem, _, skipped = rollout.ask(draw, 0, 5, 8, lambda problem, n: False)
  assert problem == f'problem {5 * (rollout.TRIES - 1)}' and skipped == [(5, 9)]


@pytest.mark.parametrize(('least', 'prime'), [(0, 2), (2, 2), (4, 5), (90, 97), (97, 97)])
def test_steps_over_problems_are_prime(least, prime):
  assert rollout.prime(least) == prime


@pytest.mark.parametrize(
  ('fields', 'field'),
  [
    ({'curriculum': (0.5,)}, 'curriculum'),
    ({'curriculum': (0.9, 0.1)}, 'curriculum'),
    ({'curriculum': (-1, 1)}, 'curriculum'),
    ({'curriculum': (0, 1), 'curriculum_rest': 0.0}, 'curriculum_rest'),
    ({'curriculum_rest': 0.5}, 'curriculum_rest'),
  ],
)
def test_bounds_that_make_no_sense_are_refused(fields, field):
  rl, defaults = base.get_config().rl, base.get_config().rl
  rl.update(fields)
  with refused(f'config.rl.{field}', fields[field]):
    rl_checks.check(rl, defaults)


@pytest.mark.slow
def test_a_run_that_resumes_asks_the_same_questions_to_the_bit(tmp_path):
  """A policy that never answers rightly: what was asked is passed over, so that what is asked next
  depends on all before.
  """
  fields = {
    'steps': 4,
    'batch_size': 8,
    'microbatches': 1,
    'rl.group_size': 2,
    'rl.max_new_tokens': 2,
    'rl.curriculum': '0.1,0.9',
    'rl.curriculum_rest': 0.01,
    'rl.kl': 0.0,
    'rl.inner_updates': 1,
    'eval.tasks': '',
  }
  options = [f'--config.{name}={value}' for name, value in fields.items()]
  whole, halfway = tmp_path / 'whole', tmp_path / 'halfway'
  runs = []
  for run in (whole, halfway):
    if run == halfway:
      shutil.copytree(whole, halfway)
      shutil.rmtree(halfway / 'checkpoints' / '4')
    status, _, err = commands.call(
      'train.py', '--config=configs/rl.py:smoke', *options, f'--workdir={run}'
    )
    assert status == 0, err
    runs.append([(row['step'], row['prompt'], row['answer']) for row in metrics.rollouts(run)])
  assert runs[0] == runs[1] and len(runs[0]) == 4 * 8
  assert tiny.parameters(whole) == tiny.parameters(halfway)
  shares = [line['rl/between_bounds'] for line in tiny.lines(whole)]
  assert shares[0] == 1
  saved = json.loads((halfway / 'checkpoints' / '4' / 'provenance.json').read_text())['batches']
  assert len(saved['success']) > 4
