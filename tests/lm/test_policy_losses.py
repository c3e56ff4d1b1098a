"""Advantages and policy losses against the papers' formulas in NumPy, and against trl."""

import collections
import functools
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from configs import base
from lm.base.errors import UserError
from lm.parallel import sharding
from lm.stages.rl import advantages, policy_losses, rl_checks
from lm.stages.rl.policy_losses import Scores

LONGEST = 9  # config.rl.max_new_tokens of these cases
LENGTHS = (6, 1, 0, 4, 3, 8, 2, 5)  # of the answers in the rows; one row has no weight


def settings(**fields):
  rl = base.get_config().rl
  rl.update({'max_new_tokens': LONGEST, 'group_size': 4} | fields)
  return rl


@functools.cache
def arrays():
  """(scores, batch) of random numbers, with ratios on both sides of every bound."""
  rng = np.random.default_rng(0)
  shape = (len(LENGTHS), 10)
  normal = lambda scale: rng.normal(scale=scale, size=shape).astype(np.float32)  # noqa: E731
  mask = (np.arange(10) < np.array(LENGTHS)[:, None]).astype(np.float32)
  mask[5, 2:4] = 0  # what a tool said
  log_probs = -np.abs(normal(1.0)) - 0.1
  old = log_probs - normal(0.5)
  batch = {
    'weights': mask,
    'old_log_probs': old,
    'sampler_log_probs': old - normal(0.4),
    'reference_log_probs': log_probs - normal(0.7),
    'advantages': mask * rng.normal(size=(len(LENGTHS), 1)).astype(np.float32),
    'values': normal(1.0),
    'returns': normal(1.0),
  }
  for name in batch.keys() - {'weights', 'advantages'}:  # where none was sampled: anything
    batch[name] = np.where(mask > 0, batch[name], 1e3).astype(np.float32)
  return Scores(log_probs, np.abs(normal(1.0)), batch['values'] + normal(0.3)), batch


def objective(rl, scores=None, batch=None):
  return policy_losses.make_objective(rl)(scores or arrays()[0], batch or arrays()[1])


def answers():
  """(place, advantage, log-probabilities) of each answer, as the papers index them."""
  scores, batch = arrays()
  for i, row in enumerate(batch['weights']):
    if places := list(np.flatnonzero(row)):
      yield (
        batch['advantages'][i, places[0]].astype(np.float64),
        *(
          x[i, places].astype(np.float64)
          for x in (scores.log_probs, batch['old_log_probs'], batch['reference_log_probs'])
        ),
      )


def surrogate(ratio, advantage, low, high):
  return min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def grpo():
  """Equation 3 of arXiv 2402.03300, with its estimate of the divergence (equation 4)."""
  each = []
  for advantage, new, old, reference in answers():
    terms = [
      surrogate(np.exp(p - q), advantage, 0.2, 0.2) - 0.04 * (np.exp(r - p) - (r - p) - 1)
      for p, q, r in zip(new, old, reference, strict=True)
    ]
    each.append(np.mean(terms))
  return -np.mean(each)


def dr_grpo():
  """arXiv 2503.20783: a sum over the tokens, and a constant in the place of their number."""
  each = [
    sum(surrogate(np.exp(p - q), advantage, 0.2, 0.2) for p, q in zip(new, old, strict=True))
    for advantage, new, old, _ in answers()
  ]
  return -np.mean(each) / LONGEST


def dapo():
  """Equation 8 of arXiv 2503.14476."""
  terms = [
    surrogate(np.exp(p - q), advantage, 0.2, 0.28)
    for advantage, new, old, _ in answers()
    for p, q in zip(new, old, strict=True)
  ]
  return -np.mean(terms)


def gspo():
  """Equations 5 and 7 of arXiv 2507.18071."""
  each = [
    surrogate(np.exp((new.sum() - old.sum()) / len(new)), advantage, 0.1, 0.15)
    for advantage, new, old, _ in answers()
  ]
  return -np.mean(each)


PUBLISHED = {  # the fields of config.rl that make an algorithm, apart from its advantage
  'grpo': (grpo, dict(aggregation='sequence', clip_high=0.2, kl=0.04, kl_estimator='k3')),
  'dr_grpo': (dr_grpo, dict(aggregation='constant', clip_high=0.2)),
  'dapo': (dapo, dict(aggregation='token')),
  'gspo': (gspo, dict(ratio='sequence', aggregation='sequence', clip_low=0.1, clip_high=0.15)),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_published_loss_is_its_papers_formula(name):
  formula, fields = PUBLISHED[name]
  total, weight = objective(settings(**fields))['train/total']
  assert total / weight == pytest.approx(formula(), rel=1e-5)


def test_the_default_is_the_mean_over_tokens_and_not_that_over_answers():
  total, weight = objective(settings())['train/loss']
  assert total / weight == pytest.approx(dapo(), rel=1e-5)
  assert weight == arrays()[1]['weights'].sum()


@pytest.mark.parametrize('estimator', policy_losses.DIVERGENCES)
def test_divergences_in_the_loss(estimator):
  """Schulman, Approximating KL divergence: r is the reference's probability over the policy's."""
  away = np.concatenate([new - reference for _, new, _, reference in answers()])
  r = np.exp(-away)
  expected = {'k1': -np.log(r), 'k2': np.log(r) ** 2 / 2, 'k3': r - 1 - np.log(r)}[estimator]
  sums = objective(settings(kl=0.3, kl_estimator=estimator))
  added = sums['train/total'][0] - sums['train/loss'][0]
  assert added == pytest.approx(0.3 * expected.sum(), rel=1e-4)
  assert sums['rl/kl'][0] == pytest.approx((r - 1 - np.log(r)).sum(), rel=1e-4)
  in_reward = objective(settings(kl=0.3, kl_estimator=estimator, kl_in='reward'))
  assert in_reward['train/total'] == in_reward['train/loss']


def test_estimates_of_the_divergence_agree_with_it():
  """Their means under the policy: k1 and k3 are unbiased, and k2 is close for a small step."""
  rng = np.random.default_rng(0)
  policy, reference = (np.exp(x) / np.exp(x).sum() for x in rng.normal(scale=0.1, size=(2, 7)))
  away = np.log(policy / reference)
  exact = (policy * away).sum()
  for name, tolerance in (('k1', 1e-5), ('k2', 0.1), ('k3', 1e-5)):
    assert (policy * policy_losses.DIVERGENCES[name](away)).sum() == pytest.approx(
      exact, rel=tolerance
    )


def test_dual_clip_bounds_what_a_token_costs():
  """Equation 5 of arXiv 1912.09729."""
  ratio = np.float32([0.5, 1.1, 2.0, 4.0, 0.5, 1.1, 4.0])
  advantage = np.float32([-1, -1, -1, -1, 2, 2, 2])
  plain = [surrogate(r, a, 0.2, 0.28) for r, a in zip(ratio, advantage, strict=True)]
  expected = [max(p, 3 * a) if a < 0 else p for p, a in zip(plain, advantage, strict=True)]
  got = policy_losses.clipped_gain(ratio, advantage, settings(dual_clip=3.0))
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  np.testing.assert_allclose(policy_losses.clipped_gain(ratio, advantage, settings()), plain)
  assert expected != plain


def test_importance_corrects_for_the_sampler_up_to_a_cap():
  _, batch = arrays()
  mask = batch['weights'] > 0
  weight = np.minimum(np.exp(batch['old_log_probs'] - batch['sampler_log_probs'])[mask], 1.5)
  advantage, new, old = (
    np.concatenate([np.broadcast_to(x[i], x[1].shape) for x in answers()]) for i in (0, 1, 2)
  )
  gains = [
    w * surrogate(np.exp(p - q), a, 0.2, 0.28)
    for w, a, p, q in zip(weight, advantage, new, old, strict=True)
  ]
  sums = objective(settings(importance_cap=1.5))
  assert sums['train/loss'][0] == pytest.approx(-np.sum(gains), rel=1e-4)
  assert sums['rl/importance'][0] == pytest.approx(weight.sum(), rel=1e-5) and weight.max() == 1.5
  gap = np.abs(arrays()[0].log_probs - batch['sampler_log_probs'])[mask].sum()
  assert sums['rl/sampler_gap'][0] == pytest.approx(gap, rel=1e-5)


def test_values_learn_from_the_larger_of_two_errors():
  scores, batch = arrays()
  mask = batch['weights'] > 0
  new, old, target = (x[mask] for x in (scores.values, batch['values'], batch['returns']))
  plain = 0.5 * (new - target) ** 2
  clipped = 0.5 * (np.clip(new, old - 0.2, old + 0.2) - target) ** 2
  for clip, errors in ((0.0, plain), (0.2, np.maximum(plain, clipped))):
    rl = settings(advantage='gae', value_clip=clip, value_weight=0.3)
    sums = objective(rl)
    assert sums['rl/value_loss'][0] == pytest.approx(errors.sum(), rel=1e-5)
    added = sums['train/total'][0] - sums['train/loss'][0]
    assert added == pytest.approx(0.3 * errors.sum(), rel=1e-4)
  assert not np.allclose(plain, np.maximum(plain, clipped))


EVERYTHING = {'kl': 0.1, 'dual_clip': 2.0, 'importance_cap': 1.5, 'advantage': 'gae'}


@pytest.mark.parametrize('ratio', policy_losses.RATIOS)
@pytest.mark.parametrize('aggregation', policy_losses.AGGREGATIONS)
def test_microbatches_and_meshes_add_up_to_the_same_sums(aggregation, ratio):
  rl = settings(aggregation=aggregation, ratio=ratio, **EVERYTHING)
  compute = policy_losses.make_objective(rl)
  scores, batch = arrays()

  def slope(log_probs, batch):
    return compute(scores._replace(log_probs=log_probs), batch)['train/total'][0]

  whole = compute(scores, batch)
  parts = [
    compute(*jax.tree.map(lambda x, rows=rows: x[rows], (scores, batch)))
    for rows in (slice(0, 1), slice(1, 4), slice(4, 8))
  ]
  added = jax.tree.map(lambda *x: sum(x), *parts)
  mesh = sharding.make_mesh(ConfigDict(dict.fromkeys(sharding.AXES, 1) | {'data': 4, 'context': 2}))
  layout = NamedSharding(mesh, sharding.spec(('batch', 'length')))
  split = jax.tree.map(lambda x: jax.device_put(x, layout), (scores, batch))
  meshed = jax.jit(compute)(*split)
  assert len(split[1]['weights'].sharding.device_set) == 8
  for other in (added, meshed):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), other, whole)
  gradient = jax.jit(jax.grad(slope))
  np.testing.assert_allclose(
    gradient(split[0].log_probs, split[1]), gradient(scores.log_probs, batch), atol=1e-6
  )


@pytest.mark.parametrize('aggregation', policy_losses.AGGREGATIONS)
def test_rows_without_a_token_count_nothing(aggregation):
  rl = settings(aggregation=aggregation)
  scores, batch = arrays()
  kept = np.array(LENGTHS) > 0
  some = objective(rl, *jax.tree.map(lambda x: x[kept], (scores, batch)))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), some, objective(rl, scores, batch)
  )


# ---- Advantages ----------------------------------------------------------------------------------


REWARDS = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)


def papers(name, rewards):
  """The advantages of answers as the papers define them, one after the other."""
  found = np.zeros_like(rewards)
  for q, group in enumerate(rewards):
    for i, reward in enumerate(group):
      others = [r for j, r in enumerate(group) if j != i]
      found[q, i] = {
        'reinforce': reward,
        'reinforce_baseline': reward - np.mean(rewards),
        'rloo': reward - np.mean(others),
        'dr_grpo': reward - np.mean(group),
        'grpo': (reward - np.mean(group)) / np.std(group),
      }[name]
  return found


@pytest.mark.parametrize('name', advantages.OF_ANSWERS)
def test_advantages_of_answers_are_the_papers(name):
  got = advantages.OF_ANSWERS[name](REWARDS)
  np.testing.assert_allclose(got, papers(name, REWARDS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('name', advantages.RELATIVE)
def test_advantages_of_equal_rewards_are_exactly_zero_whatever_the_mean_rounds_to(name):
  rewards = np.full((1, 7), 0.1, np.float32)
  assert (rewards != rewards.mean(axis=1, keepdims=True)).any()  # the trap is there
  assert not advantages.OF_ANSWERS[name](rewards).any()
  assert not advantages.teaching(settings(advantage=name), rewards).any()


def test_every_answer_teaches_where_its_reward_counts_alone():
  equal = np.float32([[1, 1], [0, 0]])
  assert list(advantages.teaching(settings(advantage='reinforce'), equal)) == [True, False]
  assert advantages.teaching(settings(advantage='reinforce_baseline'), equal).all()
  assert advantages.teaching(settings(advantage='gae'), equal).all()
  assert advantages.teaching(settings(kl=0.1, kl_in='reward'), equal).all()


def test_gae_is_the_discounted_sum_of_errors_over_sampled_tokens():
  """Equation 16 of arXiv 1506.02438, a sum over the later tokens of each answer."""
  rng = np.random.default_rng(0)
  mask = arrays()[1]['weights']
  rewards, values = rng.normal(size=(2, *mask.shape)).astype(np.float32)
  got = advantages.gae(rewards, values, mask, gamma=0.9, gae_lambda=0.8)
  expected = np.zeros_like(mask)
  for i, row in enumerate(mask):
    places = np.flatnonzero(row)
    v = np.append(values[i, places], 0)
    errors = rewards[i, places] + 0.9 * v[1:] - v[:-1]
    for k, place in enumerate(places):
      expected[i, place] = sum((0.9 * 0.8) ** n * e for n, e in enumerate(errors[k:]))
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
  assert got[5, 2] == got[5, 3] == 0 and got[5, 1] != 0  # a tool spoke there


def test_the_reward_of_an_answer_is_on_its_stop_token():
  mask = np.float32([[0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
  np.testing.assert_array_equal(
    advantages.on_last(np.float32([3, 4, 5]), mask),
    [[0, 0, 0, 0, 3, 0], [0] * 6, [5, 0, 0, 0, 0, 0]],
  )


# ---- Values that fit together --------------------------------------------------------------------


@pytest.mark.parametrize('fields, field', [
  ({'advantage': 'grop'}, 'config.rl.advantage'),
  ({'aggregation': 'mean'}, 'config.rl.aggregation'),
  ({'kl_in': 'both'}, 'config.rl.kl_in'),
  ({'dual_clip': 0.5}, 'config.rl.dual_clip'),
  ({'group_size': 0}, 'config.rl.group_size'),
  ({'inner_updates': 0}, 'config.rl.inner_updates'),
  ({'max_new_tokens': 0}, 'config.rl.max_new_tokens'),
  ({'temperature': 0.0}, 'config.rl.temperature'),
  ({'kl': -0.1}, 'config.rl.kl'),
  ({'advantage': 'gae', 'gae_lambda': 1.5}, 'config.rl.gae_lambda'),
  ({'overlong_buffer': 100}, 'config.rl.overlong_buffer'),
  ({'group_size': 1}, 'config.rl.group_size'),
  ({'gae_lambda': 0.5}, 'config.rl.gae_lambda'),
  ({'kl_estimator': 'k3'}, 'config.rl.kl_estimator'),
  ({'kl': 0.1, 'kl_estimator': 'k1'}, 'config.rl.kl_estimator'),
  ({'advantage': 'gae', 'resamples': 1}, 'config.rl.resamples'),
  ({'kl': 0.1, 'kl_in': 'reward', 'resamples': 1}, 'config.rl.resamples'),
])  # fmt: skip
def test_values_that_do_not_fit_are_refused(fields, field):
  with pytest.raises(UserError) as raised:
    rl_checks.check(settings(**fields), base.get_config().rl)
  assert raised.value.field == field


def test_the_fields_of_each_published_algorithm_fit_together():
  """The table of configs/README.md, whose last column has values in backquotes."""
  text = (pathlib.Path(base.__file__).parent / 'README.md').read_text()
  rows = [line.split('`')[1::2] for line in text.splitlines() if '`advantage=' in line]
  assert len(rows) == 8
  for row in rows:
    fields = {}
    for item in (item for item in ' '.join(row).split() if '=' in item):
      name, _, value = item.partition('=')
      kind = type(base.get_config().rl[name])
      fields[name] = value == 'True' if kind is bool else kind(value)
    rl_checks.check(settings(**fields), base.get_config().rl)


# ---- trl -----------------------------------------------------------------------------------------


TRL = {  # loss_type, importance_sampling_level, beta, delta
  'grpo': ('grpo', 'token', 0.04),
  'dr_grpo': ('dr_grpo', 'token', 0.0),
  'dapo': ('dapo', 'token', 0.0),
  'gspo': ('grpo', 'sequence', 0.0),
}


@pytest.mark.parametrize('name', TRL)
def test_losses_and_gradients_equal_trls(name):
  torch, trl = pytest.importorskip('torch'), pytest.importorskip('trl')
  loss_type, level, beta = TRL[name]
  fields = PUBLISHED[name][1]
  rows = [i for i, length in enumerate(LENGTHS) if length]  # trl counts rows without a token
  scores, batch = jax.tree.map(lambda x: x[rows], arrays())
  log_probs = torch.tensor(scores.log_probs, requires_grad=True)
  tensor = {key: torch.from_numpy(np.where(batch['weights'] > 0, x, 0)) for key, x in batch.items()}
  rl = settings(**fields)
  stub = types.SimpleNamespace(
    _get_per_token_logps_and_entropies=lambda *_, **__: (log_probs, torch.zeros_like(log_probs)),
    model=types.SimpleNamespace(training=True),
    accelerator=types.SimpleNamespace(gather=lambda x: x, num_processes=1),
    args=types.SimpleNamespace(delta=None),
    top_entropy_quantile=1.0,
    beta=beta,
    importance_sampling_level=level,
    epsilon_low=rl.clip_low,
    epsilon_high=rl.clip_high,
    use_vllm=False,
    vllm_importance_sampling_correction=False,
    loss_type=loss_type,
    current_gradient_accumulation_steps=1,
    max_completion_length=LONGEST,
    _metrics={'train': collections.defaultdict(list)},
  )
  mask = tensor['weights']
  theirs = trl.GRPOTrainer._compute_loss(
    stub,
    None,
    {
      'prompt_ids': mask[:, :0],
      'prompt_mask': mask[:, :0],
      'completion_ids': mask,
      'completion_mask': mask,
      'ref_per_token_logps': tensor['reference_log_probs'],
      'old_per_token_logps': tensor['old_log_probs'],
      'advantages': torch.from_numpy(batch['advantages'][:, 0].copy()),
      'num_items_in_batch': mask.sum(),
    },
  )
  theirs.backward()

  def mean(log_probs):
    total, weight = objective(rl, scores._replace(log_probs=log_probs), batch)['train/total']
    return total / weight

  ours, gradient = jax.value_and_grad(mean)(jnp.asarray(scores.log_probs))
  assert ours == pytest.approx(theirs.item(), rel=1e-5)
  np.testing.assert_allclose(gradient, log_probs.grad.numpy(), atol=1e-6)
