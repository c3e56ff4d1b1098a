"""Rollouts laid out as batches, against arrays written by hand."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from lm import rollout
from lm.sample import Completion
from lm.steps.rl import advantages

ANSWERS = [
  Completion([7, 8, 2], [-0.5, -1.0, -0.25], [True, True, True], True),  # 2 is its stop token
  Completion([9, 5, 6, 4], [-2.0, 0.0, 0.0, -3.0], [True, False, False, True], False),  # 5 and 6 forced in by a tool
]


def test_layout_is_what_one_would_write_by_hand():
  batch = rollout.layout([[3, 1], [4]], ANSWERS, np.array([0.5, -2.0]), multiple=3)
  expected = {
    'inputs': [[3, 1, 7, 8, 2, 0], [4, 9, 5, 6, 4, 0]],
    'targets': [[1, 7, 8, 2, 0, 0], [9, 5, 6, 4, 0, 0]],
    'weights': [[0, 1, 1, 1, 0, 0], [1, 0, 0, 1, 0, 0]],
    'old_log_probs': [[0, -0.5, -1.0, -0.25, 0, 0], [-2.0, 0, 0, -3.0, 0, 0]],
    'advantages': [[0, 0.5, 0.5, 0.5, 0, 0], [-2.0, 0, 0, -2.0, 0, 0]],
  }
  assert batch.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(batch[name], np.array(array, np.float32))
  kinds = {name: x.dtype.name for name, x in batch.items()}
  assert kinds == {'inputs': 'int32', 'targets': 'int32'} | dict.fromkeys(
    ('weights', 'old_log_probs', 'advantages'), 'float32')


@pytest.mark.parametrize('normalize', [True, False])
def test_advantages(normalize):
  got = advantages(np.array([[0, 1, 0, 1], [3, 1, 1, 1], [0.1, 0.1, 0.1, 0.1]], np.float32), normalize)
  expected = np.array([[-0.5, 0.5, -0.5, 0.5], [1.5, -0.5, -0.5, -0.5], [0, 0, 0, 0]])
  if normalize:
    expected /= np.array([[0.5], [np.sqrt(0.75)], [1]])
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  assert not got[2].any()  # exactly: split() asks


def test_advantages_of_equal_rewards_are_exactly_zero_whatever_the_mean_rounds_to():
  rewards = np.full((1, 7), 0.1, np.float32)
  assert (rewards != rewards.mean(axis=1, keepdims=True)).any()  # the trap is there
  assert not advantages(rewards, True).any() and not advantages(rewards, False).any()


def batch_with(advantage_B):
  rows = len(advantage_B)
  ids = np.arange(rows * 2, dtype=np.int32).reshape(rows, 2)
  return {'inputs': ids, 'weights': np.ones((rows, 2), np.float32),
          'advantages': np.array([[0, a] for a in advantage_B], np.float32)}


def test_split_puts_rows_that_teach_nothing_last_and_out_of_the_count():
  parts, count = rollout.split(batch_with([0, 1, 0, -1, 0, 2, 0, 0]), rows=2)
  assert count == 2  # three useful rows need two microbatches of two
  np.testing.assert_array_equal(parts['inputs'].reshape(-1, 2)[:, 0], [2, 6, 10, 0, 4, 8, 12, 14])
  np.testing.assert_array_equal(parts['weights'][:, :, 0], [[1, 1], [1, 0], [0, 0], [0, 0]])
  np.testing.assert_array_equal(parts['advantages'][:, :, 1], [[1, -1], [2, 0], [0, 0], [0, 0]])


def test_split_cuts_what_no_useful_row_reaches():
  answers = [Completion([5] * n, [-1.0] * n, [True] * n, True) for n in (2, 40, 7, 7)]
  batch = rollout.layout([[3, 1]] * 4, answers, np.array([0.0, 0.0, 1.0, -1.0]), multiple=4)
  assert batch['inputs'].shape == (4, 44)
  parts, count = rollout.split(batch, rows=2, multiple=4)
  assert count == 1 and {x.shape for x in parts.values()} == {(2, 2, 8)}
  np.testing.assert_array_equal(parts['weights'][0].sum(axis=1), [7, 7])
  assert rollout.split(batch | {'advantages': batch['weights']}, rows=2, multiple=4)[0]['inputs'].shape == (2, 2, 44)


@pytest.mark.parametrize('useful, count', [([0, 0, 0, 0], 0), ([1, 0, 0, 0], 1), ([1, 1, 1, 1], 2)])
def test_split_counts(useful, count):
  assert rollout.split(batch_with(useful), rows=2)[1] == count


def test_collect_grades_each_group_with_its_question():
  rl = ConfigDict({'group_size': 2, 'normalize_std': False})
  seen = []

  def generate(prompts):
    assert prompts == [[1], [1], [2, 3], [2, 3]]
    return [*ANSWERS, *ANSWERS]

  def grade(question, answer):
    seen.append((question, answer.tokens[0]))
    right = question == 0 and answer.finished
    return rollout.Grade(1.5 if right else 0.0, right)

  batch, metrics = rollout.collect(generate, [[1], [2, 3]], grade, rl)
  assert seen == [(0, 7), (0, 9), (1, 7), (1, 9)]
  np.testing.assert_array_equal(batch['advantages'].sum(axis=1), [0.75 * 3, -0.75 * 2, 0, 0])
  assert metrics == {
    'rl/reward': 0.375, 'rl/reward_std': pytest.approx(1.5 * np.sqrt(3 / 16)), 'rl/accuracy': 0.25, 'rl/pass_at_group': 0.5,
    'rl/length': 3.5, 'rl/truncated': 0.5, 'rl/forced_share': 0.5, 'rl/equal_groups': 0.5, 'rl/length_right': 3.0,
    'rl/length_wrong': pytest.approx(11 / 3)}


def test_first_and_last_tenth():
  lines = [{'step': i, 'rl/reward': float(i), 'rl/length': 10.0 * i} for i in range(20)]
  lines.insert(3, {'step': 3, 'eval/val/loss': 1.0})  # lines of other things do not count
  assert rollout.first_and_last(lines) == {
    'reward_first': 0.5, 'answer_length_first': 5.0, 'reward_last': 18.5, 'answer_length_last': 185.0}
  assert rollout.first_and_last(lines[:2])['reward_last'] == 1.0  # fewer than ten: one line at each end
