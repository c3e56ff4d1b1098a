"""Rollouts laid out as batches, against arrays written by hand."""

import itertools
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from lm.base.errors import UserError
from lm.infer.requests import Completion
from lm.model.attention import kernels
from lm.parallel import sharding
from lm.stages.rl import policy_losses, rollout, rollout_batches

ANSWERS = [
  Completion([7, 8, 2], [-0.5, -1.0, -0.25], [True, True, True], True),  # 2 is its stop token
  # 5 and 6 forced in by a tool
  Completion([9, 5, 6, 4], [-2.0, 0.0, 0.0, -3.0], [True, False, False, True], False),
]


def test_layout_is_what_one_would_write_by_hand():
  batch = rollout.layout([[3, 1], [4]], ANSWERS)
  expected = {
    'inputs': [[3, 1, 7, 8, 2], [4, 9, 5, 6, 4]],
    'targets': [[1, 7, 8, 2, 0], [9, 5, 6, 4, 0]],
    'weights': [[0, 1, 1, 1, 0], [1, 0, 0, 1, 0]],
    'old_log_probs': [[0, -0.5, -1.0, -0.25, 0], [-2.0, 0, 0, -3.0, 0]],
  }
  assert batch.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(batch[name], np.array(array, np.float32))
  kinds = {name: x.dtype.name for name, x in batch.items()}
  assert kinds == {'inputs': 'int32', 'targets': 'int32'} | dict.fromkeys(
    ('weights', 'old_log_probs'), 'float32'
  )


def batch_with(rows):
  ids = np.arange(rows * 2, dtype=np.int32).reshape(rows, 2)
  return {
    'inputs': ids,
    'weights': np.ones((rows, 2), np.float32),
  }


def test_split_puts_rows_that_teach_nothing_last_and_out_of_the_count():
  learned = np.array([0, 1, 0, 1, 0, 1, 0, 0], bool)
  parts, count, order = rollout.split(batch_with(8), learned, rows=2, multiple=1, limit=2)
  assert count == 2  # three such rows need two microbatches of two
  np.testing.assert_array_equal(order, [1, 3, 5, 0, 2, 4, 6, 7])
  np.testing.assert_array_equal(parts['inputs'].reshape(-1, 2)[:, 0], [2, 6, 10, 0, 4, 8, 12, 14])
  np.testing.assert_array_equal(parts['weights'][:, :, 0], [[1, 1], [1, 0], [0, 0], [0, 0]])


def test_split_cuts_what_no_row_that_is_learned_reaches():
  answers = [Completion([5] * n, [-1.0] * n, [True] * n, True) for n in (2, 40, 7, 7)]
  batch = rollout.layout([[3, 1]] * 4, answers)
  assert batch['inputs'].shape == (4, 42)
  parts, count, _ = rollout.split(batch, np.array([0, 0, 1, 1], bool), 2, multiple=4, limit=64)
  assert count == 1 and {x.shape for x in parts.values()} == {(2, 2, 8)}
  np.testing.assert_array_equal(parts['weights'][0].sum(axis=1), [7, 7])
  for limit, length in ((64, 44), (42, 42)):
    parts, *_ = rollout.split(batch, np.ones(4, bool), rows=2, multiple=4, limit=limit)
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
  groups = rollout.sample(lambda *_: [answer] * 2, [[3] * 150], grader([0, 1]), 2)
  drawn = rollout.arrange(groups, settings(group_size=2), 2, multiple, 512)
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


def settings(**fields):
  rl = base.get_config().rl
  rl.update({'advantage': 'dr_grpo'} | fields)
  return rl


def grader(rewards):
  """A `grade` that gives these rewards in turn."""
  left = list(rewards)
  return lambda question, answer: rollout.Grade(left.pop(0), False)


LENGTHS = (1, 2, 3, 4, 5, 6)  # of the answers of two groups, whose prompts have one token


def two_groups(rewards, score=lambda batch: {}, cut_off=(), **fields):
  answers = [Completion([7] * n, [-1.0] * n, [True] * n, n not in cut_off) for n in LENGTHS]
  groups = rollout.sample(lambda *_: answers, [[1], [2]], grader(rewards), 3)
  return rollout.arrange(groups, settings(group_size=3, **fields), 6, 8, 8, score)


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
  drawn = two_groups([1] * 6, kl=kl)
  assert drawn.count == count and len(drawn.lengths) == 6 * count
  assert not drawn.batch['advantages'].any()


def policy_loss(drawn, rl):
  """What the step makes of a batch before the first update, where every ratio is 1."""
  batch = {name: x[0] for name, x in drawn.batch.items()}
  batch['reference_log_probs'] = batch['old_log_probs']
  zeros = np.zeros_like(batch['weights'])
  scores = policy_losses.Scores(batch['old_log_probs'], zeros, None)
  total, weight = policy_losses.make_objective(rl)(scores, batch)['train/loss']
  return float(total / weight)


MEANS = {  # of the losses of tokens, whose advantages are of the first group alone
  ('token', True): lambda of_answer, sizes: (of_answer * sizes).sum() / sizes[:3].sum(),
  ('token', False): lambda of_answer, sizes: (of_answer * sizes).sum() / sizes.sum(),
  ('sequence', True): lambda of_answer, sizes: of_answer[:3].mean(),
  ('sequence', False): lambda of_answer, sizes: of_answer.mean(),
  ('constant', True): lambda of_answer, sizes: (of_answer * sizes)[:3].mean() / 64,
  ('constant', False): lambda of_answer, sizes: (of_answer * sizes).mean() / 64,
}


@pytest.mark.parametrize('aggregation, filter_groups', MEANS)
def test_the_policy_loss_is_the_same_whether_groups_that_teach_nothing_are_computed(
  aggregation, filter_groups
):
  advantages = np.array([0, 0.5, 1, 0, 0, 0])  # A group's advantages of GRPO would sum to 0.
  expected = -MEANS[aggregation, filter_groups](advantages, np.array(LENGTHS))
  for kl, rows in ((0.0, 3), (0.1, 6)):
    fields = {'advantage': 'reinforce', 'aggregation': aggregation, 'kl': kl}
    fields['filter_groups'] = filter_groups
    drawn = two_groups([0, 0.5, 1, 0, 0, 0], **fields)
    assert len(drawn.lengths) == rows
    assert policy_loss(drawn, settings(**fields)) == pytest.approx(expected, rel=1e-5)


def test_answers_that_were_cut_off_have_no_weight_but_their_rewards_count():
  drawn = two_groups([0, 0.5, 1, 1, 1, 1], cut_off=(3,), mask_truncated=True)
  np.testing.assert_array_equal(drawn.batch['weights'][0].sum(axis=1), [1, 2, 0, 0, 0, 0])
  np.testing.assert_array_equal(drawn.batch['advantages'][0].sum(axis=1)[:3], [-0.5, 0, 0])
  assert drawn.lengths == [2, 3]


@pytest.mark.parametrize('fields', [{'advantage': 'gae'}, {'kl': 0.1, 'kl_in': 'reward'}])
def test_where_every_answer_was_cut_off_nothing_is_learned_or_scored(fields):
  drawn = two_groups([0, 0.5, 1, 1, 1, 1], cut_off=LENGTHS, mask_truncated=True, **fields)
  assert drawn.count == 0 and not drawn.batch['advantages'].any() and drawn.metrics == {}


def test_a_divergence_in_the_reward_is_summed_over_an_answer():
  def score(batch):
    return {'reference_log_probs': np.where(batch['weights'] > 0, -1.5, 9e9).astype(np.float32)}

  drawn = two_groups([1] * 6, score, kl=0.1, kl_in='reward', kl_estimator='k1')
  rewards = 1 - 0.1 * 0.5 * np.array(LENGTHS).reshape(2, 3)  # log-probabilities are -1 and -1.5
  advantages = (rewards - rewards.mean(axis=1, keepdims=True)).reshape(-1)
  np.testing.assert_allclose(
    drawn.batch['advantages'][0].sum(axis=1), advantages * LENGTHS, atol=1e-6
  )


def test_values_give_advantages_and_returns_and_say_how_much_they_explain():
  def score(batch):
    return {'values': np.full(batch['weights'].shape, 0.25, np.float32)}

  fields = {'advantage': 'gae', 'gae_lambda': 1.0}
  drawn = two_groups([0, 0.5, 1, 1, 1, 1], score, **fields)
  mask = drawn.batch['weights'][0]
  rewards = np.array([[0], [0.5], [1], [1], [1], [1]])
  # Nothing is discounted: a return is the reward of the answer.
  np.testing.assert_allclose(drawn.batch['returns'][0], mask * rewards, atol=1e-6)
  np.testing.assert_allclose(drawn.batch['advantages'][0], mask * (rewards - 0.25), atol=1e-6)
  assert drawn.metrics == {'rl/explained_variance': pytest.approx(0, abs=1e-6)}


@pytest.mark.parametrize('length, penalty', [(1, 0), (60, 0), (61, -0.25), (63, -0.75), (64, -1.0)])
def test_soft_punishment_of_long_answers(length, penalty):
  """Equation 13 of arXiv 2503.14476 with a longest answer of 64 tokens and a buffer of 4."""
  assert rollout.overlong_penalty(length, 64, 4) == penalty
  assert rollout.overlong_penalty(length, 64, 0) == 0


def resampled(rewards, resamples):
  """The questions that a step of two asks, and its draws, where question i gets rewards[i]."""
  keys = []

  def generate(params, prompts, key, repeats):
    keys.append(key)
    return [Completion([prompt[0]], [-1.0], [True], True) for prompt in prompts for _ in range(2)]

  turn = itertools.cycle([0, 1])
  stub = types.SimpleNamespace(
    _reward_model=None,
    _run=types.SimpleNamespace(
      config=ConfigDict({'seed': 0, 'steps': 10, 'rl': settings(group_size=2, resamples=resamples)})
    ),
    _per_step=2,
    _ask=lambda index: rollout.Question(index, {}, [index], []),
    _generate=generate,
    _grade=lambda question, answer: rollout.Grade(rewards[question.index][next(turn)], True),
  )
  asked, groups = rollout_batches.RolloutBatches._sample(stub, 3, None)
  assert [group.prompt for group in groups] == [question.prompt for question in asked]
  return [question.index for question in asked], keys


def test_questions_that_teach_nothing_are_replaced_as_often_as_allowed():
  rewards = {0: [0, 1], 1: [1, 1], 2: [0, 0], 4: [1, 0]}  # by the place of a question in the step
  for resamples, expected in ((0, [0, 1]), (1, [0, 1, 2]), (2, [0, 1, 2, 4]), (9, [0, 1, 2, 4])):
    first = 2 * 3 * (1 + resamples)  # of step 3, with two questions each time
    numbered = {first + place: of_group for place, of_group in rewards.items()}
    asked, keys = resampled(numbered, resamples)
    assert [number - first for number in asked] == expected
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys)
    assert len(resampled(numbered | {first + 1: [0, 1]}, resamples)[0]) == 2


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


def test_each_group_is_graded_with_its_question_and_measured():
  seen = []

  def generate(prompts, repeats):
    assert prompts == [[1], [2, 3]] and repeats == 2
    return [*ANSWERS, *ANSWERS]

  def grade(question, answer):
    seen.append((question, answer.tokens[0]))
    right = question == 0 and answer.finished
    return rollout.Grade(1.5 if right else 0.0, right)

  groups = rollout.sample(generate, [[1], [2, 3]], grade, 2)
  assert seen == [(0, 7), (0, 9), (1, 7), (1, 9)]
  drawn = rollout.arrange(groups, settings(group_size=2), 4, 8, 8)
  np.testing.assert_array_equal(
    drawn.batch['advantages'][0].sum(axis=1), [0.75 * 3, -0.75 * 2, 0, 0]
  )
  assert rollout.measure(groups) == {
    'rl/reward': 0.375,
    'rl/reward_std': pytest.approx(1.5 * np.sqrt(3 / 16)),
    'rl/accuracy': 0.25,
    'rl/pass_at_group': 0.5,
    'rl/length': 3.5,
    'rl/truncated': 0.5,
    'rl/repeats': 0.0,
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
