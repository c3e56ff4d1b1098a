"""The train step and its losses against plain formulas over full logits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import base
from lm import stages
from lm.base.errors import UserError
from lm.evals import held_out
from lm.infer import generation
from lm.infer.requests import Completion
from lm.infer.sampling import Sampling
from lm.model import layers, transformer
from lm.stages import pretrain, sft
from lm.stages.rl import policy_gradient, rollout, rollout_batches
from lm.train import diagnose, train_step

VOCAB, STOP = 23, 2
CHUNK = ConfigDict({'chunk': 8, 'z_loss': 0.0, 'vocab_blocks': 0, 'balance': 0.5})
SCHEDULE = optax.constant_schedule(0.5)
RNG = np.random.default_rng(0)


def make_batch(rows=4, length=8):
  tokens = RNG.integers(VOCAB, size=(rows, length + 1), dtype=np.int32)
  weights = RNG.choice([0.0, 1.0], size=(rows, length)).astype(np.float32)
  weights[0] = 0.0
  weights[0, 3] = 1.0  # one target in one row, many in the others
  positions = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
  return {
    'inputs': tokens[:, :-1],
    'targets': tokens[:, 1:],
    'weights': weights,
    'positions': positions,
    'segment_ids': np.ones((rows, length), np.int32),
  }


def parts(batch, count):
  return {name: x.reshape(count, -1, *x.shape[1:]) for name, x in batch.items()}


def plain_log_probs(config, params, batch, temperature=1.0):
  hidden, _ = transformer.Transformer(config).apply({'params': params}, batch['inputs'])
  logits = jnp.einsum('btd,vd->btv', hidden, params.get('head', params['embedding'])) / temperature
  log_p = logits - jnp.log(jnp.exp(logits).sum(-1, keepdims=True))
  return (log_p * jax.nn.one_hot(batch['targets'], VOCAB)).sum(-1)


KEY = jax.random.key(0)  # of losses, none of which draws


def score_inputs(batch):
  return tuple(batch[name] for name in ('inputs', 'targets', 'weights'))


def close(got, expected, tolerance=1e-5):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=tolerance), got, expected
  )


def jitted(loss_fn, tx=None):
  return jax.jit(train_step.make_train_step(loss_fn, tx or optax.sgd(0.5), SCHEDULE))


@pytest.mark.slow
def test_microbatches_add_up_to_the_mean_over_all_weights_of_the_batch(tiny):
  config, params = tiny(tie_embeddings=False)
  batch, tx = make_batch(), optax.sgd(0.5)

  def mean(params):
    return (
      -(batch['weights'] * plain_log_probs(config, params, batch)).sum() / batch['weights'].sum()
    )

  value, grads = jax.jit(jax.value_and_grad(mean))(params)
  expected = jax.tree.map(lambda p, g: p - 0.5 * g, params, grads)
  step = jitted(sft.make_loss(config, CHUNK), tx)
  poison = jax.tree.map(lambda x: np.full_like(x, 1), parts(batch, 2))
  poison['weights'] = np.full_like(poison['weights'], np.nan)  # beyond `count`: never computed
  four = jax.tree.map(lambda a, b: np.concatenate([a, b]), parts(batch, 2), poison)
  for stacked, count in ((parts(batch, 1), 1), (four, 2)):
    state, metrics = step(train_step.init_state(params, tx), stacked, count)
    close(state['params'], expected)
    assert metrics['train/loss'] == pytest.approx(float(value), rel=1e-5)
    assert metrics['train/weight'] == batch['weights'].sum() and metrics['train/finite'] == 1
    assert metrics['opt/grad_norm'] == pytest.approx(float(optax.tree.norm(grads)), rel=1e-4)
    assert metrics['sft/context_per_token'] == pytest.approx(32 / batch['weights'].sum())
    assert metrics['opt/lr'] == 0.5 and state['step'] == 1


def test_balance_is_the_product_of_load_and_probability():
  rng = np.random.default_rng(0)
  p = rng.dirichlet(np.ones(4), size=(2, 6)).astype(np.float32)
  chosen = np.argsort(-p, -1)[..., :2]
  real = np.ones((2, 6), np.float32)
  real[1, 4:] = 0
  for row, length in enumerate((6, 4)):
    load = np.bincount(chosen[row, :length].ravel(), minlength=4) / (2 * length)
    expected = 4 * (load * p[row, :length].mean(0)).sum()
    assert layers.balance(p, chosen, real)[row] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_the_balance_of_experts_adds_up_over_microbatches_and_leaves_padding_out(tiny):
  config, params = tiny(num_experts=4, experts_per_token=2)
  batch = make_batch()
  batch['segment_ids'][1, 5:] = 0  # padding

  def balance_of(balance_weight, parts):
    loss_fn = pretrain.make_loss(config, ConfigDict(CHUNK.to_dict() | {'balance': balance_weight}))
    return jax.jit(
      lambda params, parts: train_step.accumulate(loss_fn, params, parts, len(parts['inputs']), KEY)
    )(params, parts)

  grads, sums = balance_of(0.5, parts(batch, 1))
  total, weight = train_step.objective(sums)
  plain_total, _ = train_step.objective(balance_of(0.0, parts(batch, 1))[1])
  assert total == pytest.approx(
    float(plain_total + 0.5 * sums['train/expert_balance'][0]), rel=1e-5
  )
  assert 1 < sums['train/expert_balance'][0] / weight < 2  # 1: evenly; E / A = 2: always the same
  close(balance_of(0.5, parts(batch, 4)), (grads, sums))
  batch['inputs'][1, 5:] += 1  # what stands in the padding
  other = balance_of(0.5, parts(batch, 1))
  assert other[1]['train/expert_balance'][0] == pytest.approx(
    float(sums['train/expert_balance'][0]), rel=1e-6
  )
  plain = balance_of(0.0, parts(batch, 1))[0]['layers']['mlp']['router']['kernel']
  # its gradient comes through the scan
  assert np.abs(other[0]['layers']['mlp']['router']['kernel'] - plain).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('vocab_blocks', [0, 3])
@pytest.mark.parametrize('stage', [pretrain, sft])
def test_reported_losses_are_plain_cross_entropies(tiny, stage, vocab_blocks):
  config, params = tiny(num_experts=4, experts_per_token=2, tie_embeddings=False)
  settings = ConfigDict(
    CHUNK.to_dict() | {'z_loss': 0.1, 'balance': 0.5, 'vocab_blocks': vocab_blocks}
  )
  loss_fn, batch, tx = stage.make_loss(config, settings), make_batch(), optax.sgd(0.5)
  weight = batch['weights'].sum()
  nats = -(batch['weights'] * plain_log_probs(config, params, batch)).sum()
  hidden, _ = transformer.Transformer(config).apply({'params': params}, batch['inputs'])
  log_z = np.log(np.exp(np.asarray(hidden, np.float64) @ params['head'].T).sum(-1))
  _, seen = jitted(loss_fn, tx)(train_step.init_state(params, tx), parts(batch, 2), 2)
  assert seen['train/loss'] == pytest.approx(float(nats / weight), rel=1e-5)
  assert seen['train/z_loss'] == pytest.approx(
    (batch['weights'] * log_z**2).sum() / weight, rel=1e-5
  )
  assert seen['train/expert_balance'] > 1
  expected = seen['train/loss'] + 0.1 * seen['train/z_loss'] + 0.5 * seen['train/expert_balance']
  assert seen['train/total'] == pytest.approx(float(expected), rel=1e-5)
  measured = held_out.make_evaluate(loss_fn)(params, [batch])
  assert measured['train/loss'] == pytest.approx((float(nats), weight), rel=1e-5)
  assert 'train/z_loss' not in measured and 'train/total' not in measured


def test_a_step_of_several_microbatches_is_traced_once():
  traces = []

  def loss_fn(params, microbatch, key):
    traces.append(microbatch['x'].shape)
    return {
      'train/loss': ((params[None] * microbatch['x']).sum(), jnp.float32(microbatch['x'].size))
    }

  state = train_step.init_state(jnp.ones(3), optax.sgd(0.5))
  step = jitted(loss_fn)
  for count in (2, 4):
    step(state, {'x': np.ones((4, 2, 3), np.float32)}, count)
  assert traces == [(2, 3)]


def test_each_metric_has_a_weight_of_its_own():
  def loss_fn(params, batch, key):
    count = batch['x'].size
    return {
      'train/total': (params.sum() * 0, jnp.float32(8)),
      'train/loss': (batch['x'].sum(), jnp.float32(count)),
      'other': (batch['x'].sum(), batch['x'][0, 0]),
      'none': (jnp.float32(0),) * 2,
    }

  tx = optax.sgd(0.5)
  batch = {'x': jnp.arange(1.0, 13.0).reshape(2, 2, 3)}
  _, seen = jitted(loss_fn, tx)(train_step.init_state(jnp.zeros(1), tx), batch, 2)
  assert seen['train/loss'] == pytest.approx(78 / 12) and seen['other'] == pytest.approx(
    78 / (1 + 7)
  )
  assert seen['none'] == 0 and seen['train/weight'] == 16


@pytest.mark.slow
@pytest.mark.parametrize('what', ['not finite', 'no weight'])
def test_such_a_step_moves_nothing(tiny, what):
  config, params = tiny()
  batch, tx = parts(make_batch(), 1), optax.adamw(0.1)
  step = jitted(pretrain.make_loss(config, CHUNK), tx)
  with jax.numpy_dtype_promotion('standard'):  # optax raises b1 to the power of an integer
    state, _ = step(train_step.init_state(params, tx), batch, 1)  # moments that are not 0
    weights = batch['weights'] * np.float32(np.nan if what == 'not finite' else 0)
    after, metrics = step(state, batch | {'weights': weights}, 1)
  assert bool(metrics['train/finite']) == (what == 'no weight') and after['step'] == 2
  for name in ('params', 'opt_state'):
    jax.tree.map(np.testing.assert_array_equal, after[name], state[name])
  assert any(
    (a != b).any() for a, b in zip(*map(jax.tree.leaves, (state['params'], params)), strict=True)
  )


def changed(params, path, change):
  """Params with change(array) at a path."""
  name, *rest = path.split('/')
  return params | {
    name: changed(params[name], '/'.join(rest), change) if rest else change(np.array(params[name]))
  }


def at(layer, value):
  def change(x):
    x[layer].flat[0] = value
    return x

  return change


@pytest.mark.slow
def test_diagnosis_names_the_place(tiny):
  config, params = tiny()
  batch, loss_fn = make_batch(), pretrain.make_loss(config, CHUNK)

  def where(params, batch=batch):
    return diagnose.first_non_finite(config, loss_fn, params, parts(batch, 1), 1)

  assert where(params).startswith('nothing')
  assert (
    where(changed(params, 'layers/mlp/down/kernel', at(1, np.inf)))
    == 'parameter layers/mlp/down/kernel, layer 1'
  )
  assert where(changed(params, 'final_norm/scale', at(..., np.nan))) == 'parameter final_norm/scale'
  for layer in (0, 1):  # finite parameters whose products are not
    huge = changed(
      params,
      'layers/mlp/down/kernel',
      lambda x, i=layer: x * np.where(np.arange(2) == i, 1e38, 1).astype(np.float32)[:, None, None],
    )
    huge = changed(huge, 'layers/mlp/up/kernel', lambda x: x * 100)
    assert where(huge) == f'output of layer {layer}, in microbatch 0'
  assert (
    where(params, batch=batch | {'weights': batch['weights'] * np.nan})
    == 'the loss, after finite layers, in microbatch 0'
  )


@pytest.mark.slow
def test_diagnosis_looks_at_each_microbatch_that_was_used(tiny):
  config, params = tiny()
  batch, loss_fn = parts(make_batch(), 4), pretrain.make_loss(config, CHUNK)
  batch['weights'] = batch['weights'] * np.float32([1, 1, np.nan, 1])[:, None, None]
  assert (
    diagnose.first_non_finite(config, loss_fn, params, batch, 4)
    == 'the loss, after finite layers, in microbatch 2'
  )
  assert diagnose.first_non_finite(config, loss_fn, params, batch, 2).startswith('nothing')


@pytest.mark.slow
def test_diagnosis_reads_the_positions_of_the_batch(tiny):
  config, params = tiny(position='learned', norm='layernorm', max_len=8)
  batch, loss_fn = make_batch(), pretrain.make_loss(config, CHUNK)
  # only their sum is not finite
  huge = changed(changed(params, 'position_table', at(7, 3e38)), 'embedding', at(0, 3e38))
  batch['inputs'] = np.maximum(batch['inputs'], 1)
  batch['inputs'][:, 3], batch['positions'][:, 3:] = 0, 7
  place = diagnose.first_non_finite(config, loss_fn, huge, parts(batch, 1), 1)
  assert place == 'output of layer 0, in microbatch 0'


@pytest.mark.slow
def test_diagnosis_reads_the_documents_of_the_batch(tiny):
  """Where each token is a document of its own no two values are added, whose sum would not be
  finite.
  """
  config, params = tiny(attention_bias='all')
  batch, loss_fn = make_batch(), pretrain.make_loss(config, CHUNK)
  for name, change in (('q/kernel', 0), ('q/bias', 0), ('o/kernel', 1e-30)):
    params = changed(
      params, f'layers/attention/{name}', lambda x, change=change: x * np.float32(change)
    )
  params = changed(params, 'layers/attention/v/bias', lambda x: np.full_like(x, 2e38))
  assert diagnose.first_non_finite(config, loss_fn, params, parts(batch, 1), 1).startswith(
    'output of layer 0'
  )
  batch['segment_ids'] += np.arange(8, dtype=np.int32)
  assert 'output' not in diagnose.first_non_finite(config, loss_fn, params, parts(batch, 1), 1)


@pytest.mark.slow
def test_diagnosis_of_sampled_answers(tiny):
  config, params, settings, batch, _, _ = rl_case(tiny)
  batch, loss_fn = parts(batch, 2), policy_gradient.make_loss(config, CHUNK, settings)
  batch['advantages'] = batch['advantages'] * np.float32([1, np.inf])[:, None, None]
  assert (
    diagnose.first_non_finite(config, loss_fn, params, batch, 2)
    == 'the loss, after finite layers, in microbatch 1'
  )


def test_diagnosis_follows_the_backward_pass_from_its_end(tiny):
  config, params = tiny()

  # d sqrt(0 x) / dx is inf * 0: of both layers, and of the embedding that they got it from
  def loss_fn(params, *_):
    read = params['layers']['mlp']['down']['kernel'], params['embedding']
    return {'train/loss': (sum(jnp.sqrt(0 * x).sum() for x in read), 1.0)}

  place = diagnose.first_non_finite(config, loss_fn, params, parts(make_batch(), 2), 2)
  assert place == 'gradient of layers/mlp/down/kernel, layer 1, in microbatch 0'


def rl_case(tiny):
  config, params = tiny(tie_embeddings=False)
  settings = base.get_config().rl
  settings.update(temperature=0.7, kl=0.3, clip_low=0.1, clip_high=0.3)
  batch = make_batch()
  log_p = np.asarray(plain_log_probs(config, params, batch, 0.7))
  # ratios on both sides of both bounds
  off = np.resize(np.float32([-0.6, -0.05, 0.15, 0.5, 0.0]), log_p.shape)
  sign = np.float32([[1], [-1], [2], [-0.5]])
  batch |= {
    'old_log_probs': log_p - off,
    'reference_log_probs': log_p - off[::-1] / 2,
    'advantages': np.broadcast_to(sign, log_p.shape),
  }
  for name in ('old_log_probs', 'reference_log_probs'):
    # where none sampled: anything
    batch[name] = np.where(batch['weights'] > 0, batch[name], 1e30).astype(np.float32)
  return config, params, settings, batch, log_p, off


@pytest.mark.slow
def test_policy_loss_and_its_gradient(tiny):
  config, params, settings, batch, log_p, off = rl_case(tiny)
  mask, advantage = batch['weights'], batch['advantages']
  ratio = np.exp(off)
  # PPO stops a ratio that has gone far enough its way
  inside = np.where(advantage > 0, ratio < 1.3, ratio > 0.9)
  gain = np.where(inside, ratio * advantage, np.where(advantage > 0, 1.3, 0.9) * advantage)
  away = off[::-1] / 2
  value = -(mask * gain).sum() + 0.3 * 0.5 * (mask * away**2).sum()
  # of the loss on each log-probability
  slope = mask * (-1.0 * inside * ratio * advantage + 0.3 * away)
  _, pull = jax.vjp(lambda params: plain_log_probs(config, params, batch, 0.7), params)
  loss_fn = policy_gradient.make_loss(config, CHUNK, settings)

  def minimized(params):
    sums = loss_fn(params, batch, KEY)
    return train_step.objective(sums)[0], sums

  (got, metrics), grads = jax.jit(jax.value_and_grad(minimized, has_aux=True))(params)
  weight = metrics['train/loss'][1]
  assert got == pytest.approx(value, rel=1e-4) and weight == mask.sum()
  close(grads, pull(slope.astype(np.float32))[0], tolerance=1e-4)
  assert all(own == weight for _, own in metrics.values())
  # the pull to the reference apart
  assert metrics['train/loss'][0] == pytest.approx(-(mask * gain).sum(), rel=1e-4)
  assert metrics['rl/clip_share'][0] == (mask * ~inside).sum() > 0
  assert metrics['rl/sampler_gap'][0] == pytest.approx((mask * np.abs(off)).sum(), rel=1e-4)
  # KL(policy || reference) is the mean under the policy of r - 1 - log r, r = reference / policy.
  r = np.exp(log_p - away - log_p)
  assert metrics['rl/kl'][0] == pytest.approx((mask * (r - 1 - np.log(r))).sum(), rel=1e-3)
  # nor the other way round
  assert metrics['rl/kl'][0] != pytest.approx((mask * (1 / r - 1 + np.log(r))).sum(), rel=1e-2)


@pytest.mark.slow
def test_without_a_kl_weight_no_reference_is_asked_for(tiny):
  config, params, settings, batch, _, _ = rl_case(tiny)
  settings.kl = 0.0
  del batch['reference_log_probs']
  loss_fn = policy_gradient.make_loss(config, CHUNK, settings)
  assert 'rl/kl' not in jax.eval_shape(loss_fn, params, batch, KEY)


def laid_out(prompts, answers, advantages):
  """A batch of answers, each of whose tokens has the answer's advantage."""
  batch = rollout.layout(prompts, answers)
  return batch | {'advantages': (batch['weights'] * advantages[:, None]).astype(np.float32)}


def on_policy(tiny, **fields):
  """Answers drawn by the sampler, and the config of the trainer that scores them."""
  config, params = tiny(**fields)
  settings = base.get_config().rl
  settings.temperature = 0.7
  prompts = [[1], [3, 4, 5], [6, 7, 8, 9, 10], [11, 12]]
  answers = generation.generate(
    config,
    params,
    prompts,
    key=jax.random.key(0),
    sampling=Sampling(0.7, banned_ids=(4, 5)),
    max_new_tokens=8,
    stop_ids=[STOP],
    capacity=32,
  )
  return config, params, settings, prompts, answers


@pytest.mark.slow
@pytest.mark.parametrize(
  'fields', [{}, {'position': 'learned', 'norm': 'layernorm', 'attention_bias': 'all'}]
)
def test_trainer_and_sampler_agree_on_policy(tiny, fields):
  config, params, settings, prompts, answers = on_policy(tiny, **fields)
  batch = laid_out(prompts, answers, np.ones(4))
  assert batch['weights'].sum() == sum(len(a.tokens) for a in answers) > 4
  log_p, entropy, _ = policy_gradient.make_score(config, CHUNK, 0.7, (4, 5))(
    params, *score_inputs(batch)
  )
  drawn = batch['weights'] > 0
  np.testing.assert_allclose(log_p[drawn], batch['old_log_probs'][drawn], rtol=1e-4, atol=1e-4)
  metrics = policy_gradient.make_loss(config, CHUNK, settings, (4, 5))(params, batch, KEY)
  weight = metrics['train/loss'][1]
  assert metrics['rl/sampler_gap'][0] / weight < 1e-5 and metrics['rl/clip_share'][0] == 0
  assert metrics['rl/entropy'][0] == pytest.approx(float(entropy[drawn].sum()), rel=1e-5)
  cold, *_ = policy_gradient.make_score(config, CHUNK, 0.6, (4, 5))(params, *score_inputs(batch))
  # the temperature is part of the policy
  assert np.abs(cold[drawn] - batch['old_log_probs'][drawn]).mean() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize('advantage', [1.0, -1.0])
def test_the_stop_token_of_an_answer_is_learned(tiny, advantage):
  config, params = tiny()
  score = jax.jit(policy_gradient.make_score(config, CHUNK, 1.0))
  answer = Completion([STOP], [0.0], [True], True)  # all that was drawn is the stop token
  batch = laid_out([[3, 1, 4]], [answer], np.array([advantage]))
  before = score(params, *score_inputs(batch))[0][0, 2]
  batch['old_log_probs'] = batch['weights'] * before
  tx = optax.sgd(0.01)
  step = jitted(policy_gradient.make_loss(config, CHUNK, base.get_config().rl), tx)
  state, metrics = step(train_step.init_state(params, tx), parts(batch, 1), 1)
  after = score(state['params'], *score_inputs(batch))[0][0, 2]
  assert metrics['train/weight'] == 1 and (after - before) * advantage > 1e-4


@pytest.mark.slow
def test_rows_that_are_not_learned_from_change_nothing_and_nothing_recompiles(tiny):
  config, params, settings, prompts, answers = on_policy(tiny)
  step = jitted(policy_gradient.make_loss(config, CHUNK, settings, (4, 5)))
  state = jax.jit(lambda params: train_step.init_state(params, optax.sgd(0.5)))(params)
  full = laid_out(prompts, answers, np.array([0.0, 1.0, 0.0, -1.0]))
  batch, count, _ = rollout.split(full, np.array([0, 1, 0, 1], bool), 2, 32, 32)
  got, metrics = step(state, batch, count)
  alone = {name: np.stack([x[[1, 3]], x[[1, 3]]]) for name, x in full.items()}
  expected, _ = step(state, alone, 1)
  close(got['params'], expected['params'], tolerance=1e-6)
  assert count == 1 and metrics['train/weight'] == full['weights'][[1, 3]].sum()
  batch, count, _ = rollout.split(full, np.ones(4, bool), 2, 32, 32)
  _, metrics = step(got, batch, count)
  assert count == 2 and metrics['train/weight'] == full['weights'].sum()
  assert step._cache_size() == 2  # of these shapes and of `alone`


@pytest.mark.slow
def test_a_divergence_pulls_a_group_of_equal_rewards_back(tiny):
  """With the KL term, rows of such a group get the gradient of half the squared log-ratio, and the
  others also PPO's.
  """
  config, params, settings, prompts, answers = on_policy(tiny)
  settings.update(group_size=2, kl=0.5)
  rewards = iter([1.0, 0.0, 1.0, 1.0])
  grade = lambda *_: rollout.Grade(next(rewards), True)  # noqa: E731
  groups = rollout.sample(lambda *_: answers, prompts[:2], grade, 2)
  drawn = rollout.arrange(groups, settings, 4, 8, 32)
  batch = {name: x[0] for name, x in drawn.batch.items()}
  score = policy_gradient.make_score(config, CHUNK, 0.7, (4, 5))
  batch['old_log_probs'] = batch['weights'] * score(params, *score_inputs(batch))[0]
  batch['reference_log_probs'] = batch['weights'] * (batch['old_log_probs'] - 0.3)
  loss_fn = policy_gradient.make_loss(config, CHUNK, settings, (4, 5))

  def mean(params):
    total, weight = train_step.objective(loss_fn(params, batch, KEY))
    return total / weight

  got = jax.jit(jax.grad(mean))(params)
  mask, sizes = batch['weights'], batch['weights'].sum(axis=1)
  slope = 0.5 * 0.3 * mask / sizes.sum()  # at ratio 1 nothing is clipped
  slope[:2] -= np.float32([[1], [-1]]) * mask[:2] / sizes[:2].sum()
  _, pull = jax.vjp(lambda params: score(params, *score_inputs(batch))[0], params)
  close(got, pull(slope.astype(np.float32))[0], tolerance=1e-5)


def test_the_reference_is_scored_one_microbatch_at_a_time(tiny):
  config, params = tiny()
  batch = make_batch(rows=64, length=16)
  score = policy_gradient.make_score(config, CHUNK, 0.7, (4, 5))
  scores = jax.jit(rollout_batches.make_scores(score), static_argnames='names')
  stacked = [x.reshape(8, 8, 16) for x in score_inputs(batch)]
  whole = jax.jit(score)
  np.testing.assert_allclose(
    scores(params, *stacked, names=('log_probs',))['log_probs'].reshape(64, 16),
    whole(params, *score_inputs(batch)).log_probs,
    rtol=1e-5,
    atol=1e-5,
  )
  held = [
    lowered.compile().memory_analysis().temp_size_in_bytes
    for lowered in (
      scores.lower(params, *stacked, names=('log_probs',)),
      whole.lower(params, *score_inputs(batch)),
    )
  ]
  assert held[0] < held[1] / 3


def test_the_sampler_gap_is_the_one_before_the_first_update():
  each = [
    {
      'rl/sampler_gap': 0.001,
      'rl/entropy': 2.0,
      'opt/lr': 0.1,
      'train/bad': 1.0,
      'train/finite': 0.0,
      'train/bad_steps': 1.0,
    },
    {
      'rl/sampler_gap': 0.5,
      'rl/entropy': 1.0,
      'opt/lr': 0.2,
      'train/bad': 0.0,
      'train/finite': 1.0,
      'train/bad_steps': 1.0,
    },
  ]
  assert train_step.of_updates(each) == {
    'rl/sampler_gap': 0.001,
    'rl/entropy': 1.5,
    'opt/lr': 0.2,
    'train/bad': 1.0,
    'train/finite': 0.0,
    'train/bad_steps': 1.0,
  }
  assert train_step.of_updates(each[1:]) == each[1] and train_step.of_updates([]) == {}


@pytest.mark.parametrize(
  ('field', 'value'), [('vocab_blocks', 4), ('balance', 0.5), ('z_loss', 1e-4)]
)
def test_a_field_of_the_loss_that_rl_does_not_read_is_refused(field, value):
  config, defaults = base.get_config(), base.get_config()
  config.stage, config.loss.chunk = 'rl', 8
  stages.make(config).check(defaults)
  config.loss[field] = value
  allowed = defaults.loss[field]
  with pytest.raises(UserError) as raised:
    stages.make(config).check(defaults)
  assert (raised.value.field, raised.value.value) == (f'config.loss.{field}', value)
  assert raised.value.allowed.startswith(f'{allowed}, since stage rl')
