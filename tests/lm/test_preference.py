"""Learning from pairs of answers, against the papers' formulas and against trl."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from refusals import refused

from configs import base
from data import tasks
from data.batches import pairs
from data.chat import chat_formats
from data.preferences import gold
from data.records import jsonl
from lm import stages
from lm.base.errors import UserError
from lm.parallel import sharding
from lm.stages import preference
from lm.stages.preference import LOSSES, OTHER, SIDES
from lm.train import batches, diagnose, program, train_step

LOSS = ConfigDict({'chunk': 8, 'z_loss': 0.0, 'balance': 0.0, 'vocab_blocks': 0})
ROWS, LENGTH, BETA = 4, 8, 0.3
KEY = jax.random.key(0)


def make_batch():
  rng = np.random.default_rng(0)
  batch = {
    f'{side}_reference': rng.normal(size=ROWS).astype(np.float32) for side in (*SIDES, OTHER)
  }
  for side in (*SIDES, OTHER):
    tokens = rng.integers(1, 23, size=(ROWS, LENGTH + 1), dtype=np.int32)
    batch[f'{side}_inputs'], batch[f'{side}_targets'] = tokens[:, :-1], tokens[:, 1:]
    weights = (np.arange(LENGTH) >= 3) & (
      np.arange(LENGTH) < rng.integers(5, LENGTH, size=(ROWS, 1))
    )
    batch[f'{side}_weights'] = weights.astype(np.float32)
    # The policy gains a few nats over the reference, or loses them.
    batch[f'{side}_reference'] -= 2.5 * weights.sum(axis=1).astype(np.float32)
  batch[f'{OTHER}_reference'] -= 8
  return batch


def plain_log_probs(config, params, batch):
  """{side: log-probability of the answer of each row}, from all logits at once."""
  from lm.model import heads, transformer

  found = {}
  for side in (*SIDES, OTHER):
    hidden, _ = transformer.Transformer(config).apply({'params': params}, batch[f'{side}_inputs'])
    log_p = jax.nn.log_softmax(heads.unembed(params, config, hidden))
    targets = batch[f'{side}_targets'][..., None]
    log_p = np.asarray(jnp.take_along_axis(log_p, targets, axis=-1)[..., 0], np.float64)
    found[side] = (log_p * batch[f'{side}_weights']).sum(axis=1)
  return found


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def formula(name, log_p, reference, lengths, beta):
  """(loss, what is minimized) of each pair, in NumPy, as the papers have them."""
  chosen, rejected = SIDES
  ratio = {side: log_p[side] - reference[side] for side in log_p}
  if name == 'dpo':
    loss = -np.log(sigmoid(beta * ratio[chosen] - beta * ratio[rejected]))
  elif name == 'ipo':
    h = np.log(np.exp(log_p[chosen]) * np.exp(reference[rejected]))
    h -= np.log(np.exp(log_p[rejected]) * np.exp(reference[chosen]))
    loss = (h - 1 / beta / 2) ** 2
  elif name == 'kto':
    z = max(0, ratio[OTHER].mean())
    values = sigmoid(beta * (ratio[chosen] - z)), sigmoid(beta * (z - ratio[rejected]))
    loss = np.mean([1 - values[0], 1 - values[1]], axis=0)
  else:
    p = {side: np.exp(log_p[side] / lengths[side]) for side in SIDES}
    odds = {side: p[side] / (1 - p[side]) for side in SIDES}
    loss = -np.log(sigmoid(np.log(odds[chosen] / odds[rejected])))
    return loss, -np.log(p[chosen]) + beta * loss
  return loss, loss


def parts(batch):
  reference = {side: batch[f'{side}_reference'].astype(np.float64) for side in (*SIDES, OTHER)}
  lengths = {side: batch[f'{side}_weights'].sum(axis=1) for side in SIDES}
  return reference, lengths


@pytest.mark.slow
@pytest.mark.parametrize('name', LOSSES)
def test_a_loss_is_the_formula_of_its_paper(tiny, name):
  config, params = tiny()
  batch = make_batch()
  log_p, (reference, lengths) = plain_log_probs(config, params, batch), parts(batch)
  loss, minimized = formula(name, log_p, reference, lengths, BETA)
  sums = jax.jit(preference.make_loss(config, LOSS, BETA, LOSSES[name]))(params, batch, KEY)
  total, count = train_step.objective(sums)
  assert count == ROWS and total == pytest.approx(minimized.sum(), rel=1e-4)
  assert sums['train/loss'][0] == pytest.approx(loss.sum(), rel=1e-4)
  chosen, rejected = (
    log_p[side] - reference[side] if name != 'orpo' else log_p[side] / lengths[side]
    for side in SIDES
  )
  assert float(sums['preference/accuracy'][0]) == (chosen > rejected).sum()
  assert sums['preference/margin'][0] == pytest.approx((chosen - rejected).sum(), rel=1e-3)
  if name == 'kto':
    z = (log_p[OTHER] - reference[OTHER]).mean()
    assert z > 0.1  # It is not cut off at 0.
    assert sums['preference/divergence'][0] / count == pytest.approx(z, rel=1e-3)


@pytest.mark.parametrize('name', LOSSES)
def test_a_loss_equals_trls(name):
  torch, trl = pytest.importorskip('torch'), pytest.importorskip('trl')
  rng = np.random.default_rng(1)
  log_p = {side: -3 * rng.random(6).astype(np.float32) for side in (*SIDES, OTHER)}
  reference = {side: -3 * rng.random(6).astype(np.float32) for side in (*SIDES, OTHER)}
  reference[OTHER] -= 1
  policy, start = (
    {side: torch.from_numpy(x) for side, x in values.items()} for values in (log_p, reference)
  )
  cls = {'kto': trl.KTOTrainer, 'orpo': trl.ORPOTrainer}.get(name, trl.DPOTrainer)
  trainer = cls.__new__(cls)
  trainer.beta, trainer.label_smoothing, trainer.loss_type = BETA, 0.0, name
  accelerator = types.SimpleNamespace(device='cpu', gather_for_metrics=lambda x: x)
  trainer.accelerator, trainer.reference_free, trainer.f_divergence_type = accelerator, False, None
  trainer.calculate_KL, trainer.desirable_weight, trainer.undesirable_weight = True, 1.0, 1.0
  if name == 'kto':
    sides = ('chosen', 'rejected', OTHER)
    theirs = trainer.kto_loss(*(x[side] for x in (policy, start) for side in sides))[0]
    theirs = theirs.reshape(2, 6).mean(dim=0)
  elif name == 'orpo':
    theirs = -trainer.odds_ratio_loss(*(policy[side] for side in SIDES))[0] / BETA
  elif hasattr(trl.DPOTrainer, 'dpo_loss'):
    kind = 'sigmoid' if name == 'dpo' else name
    both = (x[side] for x in (policy, start) for side in SIDES)
    theirs = trainer.dpo_loss(*both, loss_type=kind)[0]
  else:
    pytest.skip('this version of trl has no method for the loss alone; 0.24 has')
  gains = [
    log_p[side] - (reference[side] if LOSSES[name].has_reference else np.float32(0))
    for side in SIDES
  ]
  divergence = np.full(6, max(0, (log_p[OTHER] - reference[OTHER]).mean()), np.float32)
  ours = LOSSES[name].of_pairs(*map(jnp.asarray, gains), BETA, jnp.asarray(divergence))
  np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5)


def test_the_odds_of_a_certain_answer_are_finite():
  certain, doubtful = jnp.zeros(1), jnp.full(1, -2.0)
  grads = jax.grad(lambda a, b: preference.orpo(a, b, BETA, a).sum(), argnums=(0, 1))
  for sides in ((certain, doubtful), (doubtful, certain), (certain, certain)):
    assert np.isfinite([preference.orpo(*sides, BETA, certain), *grads(*sides)]).all()


@pytest.mark.slow
def test_only_the_tokens_of_answers_matter(tiny):
  config, params = tiny()
  loss_fn = jax.jit(preference.make_loss(config, LOSS, BETA, LOSSES['orpo']))
  batch = make_batch()
  before = loss_fn(params, batch, KEY)['train/total'][0]
  # The target of a token of the prompt is not scored, and a row without an answer does not count.
  batch['chosen_targets'] = batch['chosen_targets'].copy()
  batch['chosen_targets'][:, 0] += 1
  assert loss_fn(params, batch, KEY)['train/total'][0] == before
  batch['chosen_weights'][0] = batch['rejected_weights'][0] = 0
  sums = loss_fn(params, batch, KEY)
  assert sums['train/total'][1] == ROWS - 1 and np.isfinite(sums['train/total'][0])


def open_run(name, batch, config, microbatches, rows=ROWS):
  """A run that reads one batch again and again, and its stage."""
  settings = base.get_config()
  settings.update(stage='preference', steps=4, batch_size=rows, microbatches=microbatches)
  settings.seq_len = LENGTH
  settings.preference.update(loss=name, beta=BETA)
  stage = stages.make(settings)
  mesh = sharding.make_mesh(settings.mesh, jax.devices()[:1])
  own = {field: x for field, x in batch.items() if field in stage.batch_fields and x.ndim == 2}
  loader = types.SimpleNamespace(
    iterate=lambda *_: iter([own] * 4), epoch=lambda steps: 0.0, fingerprint=''
  )
  run = batches.Run(
    defaults=None,
    config=settings,
    model_config=config,
    mesh=mesh,
    program=program.make(settings, stage, config, mesh),
    source=types.SimpleNamespace(train=loader, val=None),
    chat_format=None,
    jumps=types.SimpleNamespace(ranges=lambda *_: [(0, 4)], batch=lambda update: update),
    clock=None,
    call_tool=None,
    workdir=None,
  )
  return stage, run


@pytest.mark.slow
@pytest.mark.parametrize('name', LOSSES)
def test_microbatches_change_neither_loss_nor_gradient(tiny, name):
  """KTO's divergence too is that of the whole batch."""
  config, start = tiny()
  params = jax.tree.map(lambda x: x * 0.98, start)
  results = []
  for microbatches in (1, 2):
    stage, run = open_run(name, make_batch(), config, microbatches)
    source = stage.make_batches(run, lambda: start)
    source.seek(0, {})
    batch = source.next(0, params)
    assert batch.arrays.keys() == stage.batch_fields.keys()
    loss_fn = stage.make_loss(config)
    results.append(
      jax.jit(train_step.accumulate, static_argnums=0)(
        loss_fn, params, batch.arrays, microbatches, KEY
      )
    )
  assert (results[0][1].get('preference/divergence', (1, 1))[0]) > 0
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4), *results)


@pytest.mark.slow
def test_a_loss_without_a_reference_keeps_no_copy_of_the_start(tiny):
  config, params = tiny()

  def copy_start():
    copies.append(1)
    return params

  for name, expected in (('orpo', []), ('dpo', [1])):
    copies = []
    stage, run = open_run(name, make_batch(), config, 1)
    stage.make_batches(run, copy_start)
    assert copies == expected
    assert any('reference' in field for field in stage.batch_fields) == bool(expected)


@pytest.mark.slow
def test_the_first_loss_is_that_of_a_model_that_has_gained_nothing(tiny):
  """The reference scores as the loss does: at the start, DPO's loss is log 2, and KTO's 1/2."""
  config, params = tiny()
  for name, expected in (('dpo', np.log(2)), ('ipo', (1 / (2 * BETA)) ** 2), ('kto', 0.5)):
    stage, run = open_run(name, make_batch(), config, 2)
    source = stage.make_batches(run, lambda: params)
    source.seek(0, {})
    arrays = {field: x[0] for field, x in source.next(0, params).arrays.items()}
    loss, count = jax.jit(stage.make_loss(config))(params, arrays, KEY)['train/loss']
    assert loss / count == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_bad_step_on_pairs_is_diagnosed(tiny):
  config, params = tiny()
  loss_fn = preference.make_loss(config, LOSS, BETA, LOSSES['dpo'])
  batch = {name: x[None] for name, x in make_batch().items()}
  batch['chosen_reference'] = batch['chosen_reference'] * np.float32(np.nan)
  place = diagnose.first_non_finite(config, loss_fn, params, batch, 1)
  assert place == 'the loss, after finite layers, in microbatch 0'


def test_a_loss_that_is_not_known_is_refused():
  settings = base.get_config()
  settings.stage, settings.preference.loss = 'preference', 'dpoo'
  with pytest.raises(UserError) as raised:
    _ = stages.make(settings).batch_fields
  assert (raised.value.field, raised.value.value) == ('config.preference.loss', 'dpoo')
  settings.preference.update(loss='ipo', beta=0.0)
  with pytest.raises(UserError) as raised:
    preference.make_loss(None, settings.loss, 0.0, LOSSES['ipo'])
  assert raised.value.field == 'config.preference.beta'


def write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


def config_of(train, **data):
  config = base.get_config()
  config.stage, config.seq_len, config.batch_size = 'preference', 64, 4
  config.data.update({'train': train, 'held_out': 0.25} | data)
  config.eval.batch_size = 4
  return config


def test_pairs_are_read_masked_and_held_out_by_prompt(tmp_path):
  rows = [{'prompt': f'q{i % 6}', 'chosen': f'yes {i}', 'rejected': f'no {i}'} for i in range(12)]
  rows += [
    {'prompt': 'a', 'chosen': 1, 'rejected': 'x'},
    {'prompt': 'long', 'chosen': 'x' * 99, 'rejected': ''},
  ]
  chat_format = chat_formats.load('bytes')
  source = pairs.open_pairs(config_of(write(tmp_path / 'p.jsonl', rows)), chat_format, tmp_path)
  assert source.train.rows + source.val.rows == 12 and source.val.rows % 2 == 0
  seen = set()
  for step in range(source.train.rows):
    batch = source.train.batch(step)
    for side in pairs.SIDES:
      learned = batch[f'{side}_weights'] > 0
      texts = [
        chat_format.tokenizer.decode(t[m])
        for t, m in zip(batch[f'{side}_targets'], learned, strict=True)
      ]
      assert all(text.startswith('yes' if side == 'chosen' else 'no') for text in texts)
      seen |= set(texts)
  assert len(seen) == 2 * source.train.rows
  # The order is a pure function of the step, and the parts of two processes make the whole.
  halves = [source.train.batch(3, i, 2)['chosen_inputs'] for i in range(2)]
  np.testing.assert_array_equal(np.concatenate(halves), source.train.batch(3)['chosen_inputs'])
  held_out = [source.val.batch(i) for i in range(source.val.steps_per_epoch)]
  rows_of_val = sum((b['chosen_weights'].sum(axis=1) > 0).sum() for b in held_out)
  assert rows_of_val == source.val.rows


def read(chat_format, rows, tmp_path, seq_len=200):
  """The pairs of rows, all of them for training."""
  config = config_of(write(tmp_path / 'p.jsonl', rows), held_out=0.0)
  return pairs.read(config, chat_format, max_tokens=seq_len)[0]


def answer(chat_format, tokens):
  """The text that is learned of a conversation."""
  return chat_format.tokenizer.decode([i for i, m in zip(*tokens, strict=True) if m])


def test_earlier_answers_of_a_prompt_are_not_compared(tmp_path):
  prompt = [
    {'role': 'user', 'content': 'Hi'},
    {'role': 'assistant', 'content': 'Hello'},
    {'role': 'user', 'content': 'Who?'},
  ]
  chat_format = chat_formats.load('bytes')
  rows = [{'prompt': prompt, 'chosen': 'me', 'rejected': 'you'}]
  (pair,) = read(chat_format, rows, tmp_path)
  learned = answer(chat_format, pair.chosen)
  assert learned.startswith('me') and 'Hello' not in learned


def test_a_row_with_ranks_makes_all_its_pairs_and_ties_make_none(tmp_path, capsys):
  chat_format = chat_formats.load('bytes')
  rows = [
    {'prompt': 'q', 'answers': ['x', 'y', 'z'], 'ranks': [1, 2, 2]},
    {'prompt': 'q', 'a': 'x', 'b': 'y', 'winner': 'tie'},
    {'prompt': 'q', 'chosen': 'x', 'rejected': 'x'},
  ]
  found = [
    tuple(answer(chat_format, side)[0] for side in (pair.chosen, pair.rejected))
    for pair in read(chat_format, rows, tmp_path)
  ]
  assert found == [('x', 'y'), ('x', 'z')]
  assert '2 rows skipped; the first: ' in (err := capsys.readouterr().err)
  assert "p.jsonl, line 2: winner is 'tie'" in err


def test_tasks_make_pairs_whose_chosen_answer_is_right():
  chat_format = chat_formats.load('bytes')
  (task,) = tasks.make(['arithmetic'], seed=0)
  config = config_of('', tasks='arithmetic', examples=20, held_out=0.0)
  made, held_out = pairs.read(config, chat_format, max_tokens=200)
  assert len(made) == 20 and held_out == []
  for number, pair in enumerate(made):
    answers = []
    for ids, mask in (pair.chosen, pair.rejected):
      learned = [i for i, m in zip(ids, mask, strict=True) if m]
      answers.append(task.grade(task.problem(number, 'train'), chat_format.parse(learned)))
    assert answers == [1, 0]


def test_problems_whose_answers_are_all_the_same_are_skipped():
  class Same(tasks.TASKS['arithmetic']):
    def reply(self, problem, rng):
      return '7'

  skipped = jsonl.Skipped()
  ranker = gold.Ranker('grade')
  assert list(gold.compare_all(ranker, [Same(0)], 3, list, skipped)) == []
  assert skipped.rows[0] == [
    'task arithmetic, training problem 0',
    "answers to compare is 'the same 100 times'; allowed: two that differ",
  ]


def test_the_third_answer_of_kto_is_one_to_another_prompt(tmp_path):
  chat_format = chat_formats.load('bytes')
  # Three pairs of each prompt follow each other.
  rows = [
    {'prompt': f'q{i // 3}', 'chosen': f'yes {i // 3}', 'rejected': f'no {i // 3}'}
    for i in range(12)
  ]
  config = config_of(write(tmp_path / 'p.jsonl', rows))
  config.preference.loss, config.seq_len = 'kto', 26
  source = pairs.open_pairs(config, chat_format, tmp_path)
  assert source.val.rows % 3 == 0
  kinds = set()
  for loader, steps in ((source.train, 6), (source.val, source.val.steps_per_epoch)):
    for step in range(steps):
      batch = loader.batch(step)
      for i in range(4):
        tokens = {
          side: (batch[f'{side}_targets'][i], batch[f'{side}_weights'][i] > 0)
          for side in (*SIDES, OTHER)
        }
        if not tokens['chosen'][1].any():
          assert not tokens[OTHER][1].any()
          continue
        own, other = (answer(chat_format, tokens[side]) for side in ('chosen', OTHER))
        assert own.split()[1][0] != other.split()[1][0]
        kinds.add(other.split()[0])
        start = tokens['chosen'][1].argmax()
        assert start == tokens[OTHER][1].argmax()
        np.testing.assert_array_equal(tokens['chosen'][0][:start], tokens[OTHER][0][:start])
  assert kinds == {'yes', 'no'}
  config.data.train = write(tmp_path / 'p.jsonl', rows[:3])
  with pytest.raises(UserError) as raised:
    pairs.open_pairs(config, chat_format, tmp_path)
  assert raised.value.field == 'config.preference.loss'


def test_files_without_a_pair_are_an_error(tmp_path):
  path = write(tmp_path / 'p.jsonl', [{'prompt': 'a', 'chosen': 5, 'rejected': 'x'}])
  with refused(f'pair in {path}') as raised:
    pairs.open_pairs(config_of(path), chat_formats.load('bytes'), tmp_path)
  assert 'chosen is 5' in raised.value.message
  with refused('config.data.train', ''):
    pairs.open_pairs(config_of(''), chat_formats.load('bytes'), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name', LOSSES)
def test_a_step_prefers_the_chosen_answers(tiny, name):
  import optax

  config, params = tiny()
  stage, run = open_run(name, make_batch(), config, 1)
  source = stage.make_batches(run, lambda: params)
  source.seek(0, {})
  tx = optax.sgd(0.005)
  step = jax.jit(train_step.make_train_step(stage.make_loss(config), tx, lambda _: 0.005))
  state, margins = train_step.init_state(params, tx), []
  for update in range(2):
    state, metrics = step(state, source.next(update, state['params']).arrays, 1)
    margins.append(float(metrics['preference/margin']))
  assert margins[1] > margins[0] + 1e-3
