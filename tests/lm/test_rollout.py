"""Rollouts laid out as batches, against arrays written by hand."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from lm.base.errors import UserError
from lm.infer.requests import Completion
from lm.model.attention import kernels
from lm.parallel import sharding
from lm.stages.rl import rollout
from lm.stages.rl.advantages import group_relative

ANSWERS = [
  Completion([7, 8, 2], [-0.5, -1.0, -0.25], [True, True, True], True),  # 2 is its stop token
  # 5 and 6 forced in by a tool
  Completion([9, 5, 6, 4], [-2.0, 0.0, 0.0, -3.0], [True, False, False, True], False),
]


def test_layout_is_what_one_would_write_by_hand():
  batch = rollout.layout([[3, 1], [4]], ANSWERS, np.array([0.5, -2.0]))
  expected = {
    'inputs': [[3, 1, 7, 8, 2], [4, 9, 5, 6, 4]],
    'targets': [[1, 7, 8, 2, 0], [9, 5, 6, 4, 0]],
    'weights': [[0, 1, 1, 1, 0], [1, 0, 0, 1, 0]],
    'old_log_probs': [[0, -0.5, -1.0, -0.25, 0], [-2.0, 0, 0, -3.0, 0]],
    'advantages': [[0, 0.5, 0.5, 0.5, 0], [-2.0, 0, 0, -2.0, 0]],
  }
  assert batch.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(batch[name], np.array(array, np.float32))
  kinds = {name: x.dtype.name for name, x in batch.items()}
  assert kinds == {'inputs': 'int32', 'targets': 'int32'} | dict.fromkeys(
    ('weights', 'old_log_probs', 'advantages'), 'float32'
  )


@pytest.mark.parametrize('normalize', [True, False])
def test_advantages(normalize):
  got = group_relative(
    np.array([[0, 1, 0, 1], [3, 1, 1, 1], [0.1, 0.1, 0.1, 0.1]], np.float32), normalize
  )
  expected = np.array([[-0.5, 0.5, -0.5, 0.5], [1.5, -0.5, -0.5, -0.5], [0, 0, 0, 0]])
  if normalize:
    expected /= np.array([[0.5], [np.sqrt(0.75)], [1]])
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  assert not got[2].any()  # exactly


def test_advantages_of_equal_rewards_are_exactly_zero_whatever_the_mean_rounds_to():
  rewards = np.full((1, 7), 0.1, np.float32)
  assert (rewards != rewards.mean(axis=1, keepdims=True)).any()  # the trap is there
  assert not group_relative(rewards, True).any() and not group_relative(rewards, False).any()


def batch_with(rows):
  ids = np.arange(rows * 2, dtype=np.int32).reshape(rows, 2)
  return {
    'inputs': ids,
    'weights': np.ones((rows, 2), np.float32),
    'advantages': np.ones((rows, 2), np.float32),
  }


def test_split_puts_rows_that_teach_nothing_last_and_out_of_the_count():
  learned = np.array([0, 1, 0, 1, 0, 1, 0, 0], bool)
  parts, count = rollout.split(batch_with(8), learned, rows=2, multiple=1, limit=2)
  assert count == 2  # three such rows need two microbatches of two
  np.testing.assert_array_equal(parts['inputs'].reshape(-1, 2)[:, 0], [2, 6, 10, 0, 4, 8, 12, 14])
  np.testing.assert_array_equal(parts['weights'][:, :, 0], [[1, 1], [1, 0], [0, 0], [0, 0]])


def test_split_cuts_what_no_row_that_is_learned_reaches():
  answers = [Completion([5] * n, [-1.0] * n, [True] * n, True) for n in (2, 40, 7, 7)]
  batch = rollout.layout([[3, 1]] * 4, answers, np.array([0.0, 0.0, 1.0, -1.0]))
  assert batch['inputs'].shape == (4, 42)
  parts, count = rollout.split(batch, np.array([0, 0, 1, 1], bool), rows=2, multiple=4, limit=64)
  assert count == 1 and {x.shape for x in parts.values()} == {(2, 2, 8)}
  np.testing.assert_array_equal(parts['weights'][0].sum(axis=1), [7, 7])
  for limit, length in ((64, 44), (42, 42)):
    parts, _ = rollout.split(batch, np.ones(4, bool), rows=2, multiple=4, limit=limit)
    assert parts['inputs'].shape == (2, 2, length)


@pytest.mark.parametrize(
  'learned, count', [([0, 0, 0, 0], 0), ([1, 0, 0, 0], 1), ([1, 1, 1, 1], 2)]
)
def test_split_counts(learned, count):
  assert (
    rollout.split(batch_with(4), np.array(learned, bool), rows=2, multiple=2, limit=4)[1] == count
  )


@pytest.mark.parametrize('context', [1, 2])
def test_rows_are_as_long_as_the_attention_needs(context):
  """Splash asks for 128 queries on each device: what is laid out can be computed by it."""
  multiple = kernels.length_multiple('splash', context)
  answer = Completion([5] * 9, [-1.0] * 9, [True] * 9, True)
  drawn = rollout.collect(
    lambda rows, repeats: [answer] * len(rows) * repeats,
    [[3] * 150],
    grader([0, 1]),
    settings(2),
    2,
    multiple,
    512,
  )
  length = drawn.batch['inputs'].shape[-1]
  assert length == 256
  mesh = sharding.make_mesh(
    ConfigDict(dict.fromkeys(sharding.AXES, 1) | {'data': -1, 'context': context})
  )
  q = jax.ShapeDtypeStruct((8, length, 2, 128), np.float32)
  with jax.set_mesh(mesh):
    out = jax.eval_shape(
      lambda *x: kernels.attend('splash', *x, 1.0, 0.0, 0, interpret=True),
      q,
      q,
      q,
      jax.ShapeDtypeStruct((8, length), np.int32),
    )
  assert out.shape == q.shape


def settings(group, kl=0.0):
  return ConfigDict({'group_size': group, 'normalize_std': False, 'kl': kl})


def grader(rewards):
  """A `grade` that gives these rewards in turn."""
  left = list(rewards)
  return lambda question, answer: rollout.Grade(left.pop(0), False)


LENGTHS = (1, 2, 3, 4, 5, 6)  # of the answers of two groups, whose prompts have one token


def two_groups(rewards, kl):
  answers = [Completion([7] * n, [-1.0] * n, [True] * n, True) for n in LENGTHS]
  return rollout.collect(
    lambda prompts, repeats: answers, [[1], [2]], grader(rewards), settings(3, kl), 6, 8, 8
  )


def test_a_row_of_zero_advantage_in_a_group_whose_rewards_differ_counts():
  drawn = two_groups([0, 0.5, 1, 1, 1, 1], kl=0.0)
  np.testing.assert_array_equal(drawn.batch['weights'][0].sum(axis=1), [1, 2, 3, 0, 0, 0])
  np.testing.assert_array_equal(
    drawn.batch['advantages'][0].sum(axis=1)[:3], [-0.5 * 1, 0, 0.5 * 3]
  )
  assert (drawn.count, drawn.lengths) == (1, [2, 3, 4])


def test_a_group_of_equal_rewards_has_a_divergence_and_no_policy_gradient():
  drawn = two_groups([0, 0.5, 1, 1, 1, 1], kl=0.1)
  np.testing.assert_array_equal(drawn.batch['weights'][0].sum(axis=1), LENGTHS)
  # The step divides by all 21 tokens; the policy loss is the mean over the 6 of the first group.
  np.testing.assert_allclose(
    drawn.batch['advantages'][0].sum(axis=1) / 21, np.array([-0.5, 0, 1.5, 0, 0, 0]) / 6, rtol=1e-6
  )
  assert (drawn.count, drawn.lengths) == (1, [2, 3, 4, 5, 6, 7])


@pytest.mark.parametrize('kl, count', [(0.0, 0), (0.1, 1)])
def test_where_no_rewards_differ_only_a_divergence_is_learned(kl, count):
  drawn = two_groups([1] * 6, kl)
  assert drawn.count == count and len(drawn.lengths) == 6 * count
  assert not drawn.batch['advantages'].any() and drawn.metrics['rl/equal_groups'] == 1


def test_a_problem_whose_prompt_leaves_no_room_is_passed_over():
  prompts = {0: [1] * 9, 10: [1] * 8, 20: [1] * 7}
  assert rollout.ask(lambda i: (f'problem {i}', prompts[i]), 0, 10, 8) == (
    'problem 20',
    [1] * 7,
    [(0, 9), (10, 8)],
  )
  with pytest.raises(UserError) as raised:
    rollout.ask(lambda i: (None, [1] * (9 + i)), 0, 1, 8)
  assert (raised.value.field, raised.value.value) == ('config.seq_len', 8)
  assert 'above 9,' in raised.value.allowed


def test_collect_grades_each_group_with_its_question():
  seen = []

  def generate(prompts, repeats):
    assert prompts == [[1], [2, 3]] and repeats == 2
    return [*ANSWERS, *ANSWERS]

  def grade(question, answer):
    seen.append((question, answer.tokens[0]))
    right = question == 0 and answer.finished
    return rollout.Grade(1.5 if right else 0.0, right)

  drawn = rollout.collect(generate, [[1], [2, 3]], grade, settings(2), 4, 8, 8)
  assert seen == [(0, 7), (0, 9), (1, 7), (1, 9)]
  np.testing.assert_array_equal(
    drawn.batch['advantages'][0].sum(axis=1), [0.75 * 3, -0.75 * 2, 0, 0]
  )
  assert drawn.metrics == {
    'rl/reward': 0.375,
    'rl/reward_std': pytest.approx(1.5 * np.sqrt(3 / 16)),
    'rl/accuracy': 0.25,
    'rl/pass_at_group': 0.5,
    'rl/length': 3.5,
    'rl/truncated': 0.5,
    'rl/forced_share': 0.5,
    'rl/equal_groups': 0.5,
    'rl/length_right': 3.0,
    'rl/length_wrong': pytest.approx(11 / 3),
  }


def test_first_and_last_tenth():
  lines = [{'step': i, 'rl/reward': float(i), 'rl/length': 10.0 * i} for i in range(20)]
  lines.insert(3, {'step': 3, 'eval/val/loss': 1.0})  # lines of other things do not count
  assert rollout.first_and_last(lines) == {
    'reward_first': 0.5,
    'answer_length_first': 5.0,
    'reward_last': 18.5,
    'answer_length_last': 185.0,
  }
  # fewer than ten: one line at each end
  assert rollout.first_and_last(lines[:2])['reward_last'] == 1.0
