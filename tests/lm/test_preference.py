"""Direct preference optimization, against the paper's formula and against trl."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from refusals import refused

from data import tasks
from data.batches import pairs
from data.chat import chat_formats
from lm.stages import preference
from lm.train import train_step

LOSS = ConfigDict({'chunk': 8, 'z_loss': 0.0, 'balance': 0.0, 'vocab_blocks': 0})
ROWS, LENGTH = 4, 8
KEY = jax.random.key(0)


def make_batch():
  rng = np.random.default_rng(0)
  batch = {'reference_margin': rng.normal(size=ROWS).astype(np.float32)}
  for side in preference.SIDES:
    tokens = rng.integers(1, 23, size=(ROWS, LENGTH + 1), dtype=np.int32)
    batch[f'{side}_inputs'], batch[f'{side}_targets'] = tokens[:, :-1], tokens[:, 1:]
    weights = (np.arange(LENGTH) >= 3) & (
      np.arange(LENGTH) < rng.integers(5, LENGTH, size=(ROWS, 1))
    )
    batch[f'{side}_weights'] = weights.astype(np.float32)
  return batch


def margins(config, params, batch, plain_log_probs):
  sums = []
  for side in preference.SIDES:
    one = {name: batch[f'{side}_{name}'] for name in ('inputs', 'targets', 'weights')}
    log_p = np.asarray(plain_log_probs(config, params, one))
    sums.append((log_p * one['weights']).sum(axis=1))
  return sums[0] - sums[1]


def plain_log_probs(config, params, batch):
  from lm.model import heads, transformer

  hidden, _ = transformer.Transformer(config).apply({'params': params}, batch['inputs'])
  log_p = jax.nn.log_softmax(heads.unembed(params, config, hidden))
  return jnp.take_along_axis(log_p, batch['targets'][..., None], axis=-1)[..., 0]


@pytest.mark.slow
def test_the_loss_is_equation_7_of_the_paper(tiny):
  config, params = tiny()
  batch, beta = make_batch(), 0.3
  gain = margins(config, params, batch, plain_log_probs) - batch['reference_margin']
  expected = -np.log(1 / (1 + np.exp(-beta * gain))).sum()
  sums = preference.make_loss(config, LOSS, beta)(params, batch, KEY)
  loss, count = sums['train/loss']
  assert loss == pytest.approx(expected, rel=1e-4) and count == ROWS
  assert float(sums['preference/accuracy'][0]) == (gain > 0).sum()
  assert sums['preference/margin'][0] == pytest.approx(gain.sum(), rel=1e-3)


@pytest.mark.slow
def test_only_the_tokens_of_answers_matter(tiny):
  config, params = tiny()
  loss_fn = jax.jit(preference.make_loss(config, LOSS, 0.3))
  batch = make_batch()
  before = loss_fn(params, batch, KEY)['train/loss'][0]
  # The target of a token of the prompt is not scored, and a row without an answer does not count.
  batch['chosen_targets'] = batch['chosen_targets'].copy()
  batch['chosen_targets'][:, 0] += 1
  assert loss_fn(params, batch, KEY)['train/loss'][0] == before
  batch['chosen_weights'][0] = batch['rejected_weights'][0] = 0
  assert loss_fn(params, batch, KEY)['train/loss'][1] == ROWS - 1


@pytest.mark.slow
def test_the_reference_margins_are_those_of_the_loss(tiny):
  """A model is at a margin of 0 from itself, so that the first loss is log 2."""
  config, params = tiny()
  batch = make_batch()
  batch['reference_margin'] = preference.make_margin(config, LOSS)(params, batch)
  loss, count = preference.make_loss(config, LOSS, 0.3)(params, batch, KEY)['train/loss']
  assert loss / count == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.slow
def test_the_loss_equals_trls(tiny):
  torch, trl = pytest.importorskip('torch'), pytest.importorskip('trl')
  DPOTrainer = trl.DPOTrainer
  config, params = tiny()
  batch, beta = make_batch(), 0.3
  margin = margins(config, params, batch, plain_log_probs)
  trainer = DPOTrainer.__new__(DPOTrainer)
  trainer.beta, trainer.label_smoothing, trainer.loss_type = beta, 0.0, ['sigmoid']
  zero = torch.zeros(ROWS)
  if not hasattr(DPOTrainer, 'dpo_loss'):
    pytest.skip('this version of trl has no method for the loss alone; 0.24 has')
  trainer.reference_free, trainer.f_divergence_type = False, None
  trainer.accelerator = types.SimpleNamespace(device='cpu')
  theirs = trainer.dpo_loss(
    torch.from_numpy(margin),
    zero,
    torch.from_numpy(batch['reference_margin']),
    zero,
    loss_type='sigmoid',
  )[0]
  ours = preference.make_loss(config, LOSS, beta)(params, batch, KEY)['train/loss'][0]
  assert ours == pytest.approx(float(theirs.sum()), rel=1e-4)


def write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


def config_of(train, **data):
  from configs import base

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


def test_earlier_answers_of_a_prompt_are_not_compared(tmp_path):
  prompt = [
    {'role': 'user', 'content': 'Hi'},
    {'role': 'assistant', 'content': 'Hello'},
    {'role': 'user', 'content': 'Who?'},
  ]
  chat_format = chat_formats.load('bytes')
  path = write(tmp_path / 'p.jsonl', [{'prompt': prompt, 'chosen': 'me', 'rejected': 'you'}])
  ((_, pair),) = pairs.read(path, chat_format, 200)
  ids, mask = pair.chosen
  learned = chat_format.tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
  assert learned.startswith('me') and 'Hello' not in learned


def test_tasks_make_pairs_whose_chosen_answer_is_right():
  chat_format = chat_formats.load('bytes')
  (task,) = tasks.make(['arithmetic'], seed=0)
  made = pairs.demonstrate([task], 20, chat_format, 200)
  for number, (_, pair) in enumerate(made):
    answers = []
    for ids, mask in (pair.chosen, pair.rejected):
      learned = [i for i, m in zip(ids, mask, strict=True) if m]
      answers.append(task.grade(task.problem(number, 'train'), chat_format.parse(learned)))
    assert answers == [1, 0]


def test_files_without_a_pair_are_an_error(tmp_path):
  path = write(tmp_path / 'p.jsonl', [{'prompt': 'a'}])
  with refused(f'pair in {path}') as raised:
    pairs.open_pairs(config_of(path), chat_formats.load('bytes'), tmp_path)
  assert 'chosen is None' in raised.value.message
  with refused('config.data.train', ''):
    pairs.open_pairs(config_of(''), chat_formats.load('bytes'), tmp_path)


@pytest.mark.slow
def test_a_step_prefers_the_chosen_answers(tiny):
  import optax

  config, params = tiny()
  batch = make_batch()
  batch['reference_margin'] = np.asarray(preference.make_margin(config, LOSS)(params, batch))
  tx = optax.sgd(0.05)
  step = jax.jit(
    train_step.make_train_step(preference.make_loss(config, LOSS, 0.3), tx, lambda _: 0.05)
  )
  stacked = {name: x[None] for name, x in batch.items()}
  state, first = step(train_step.init_state(params, tx), stacked, 1)
  _, second = step(state, stacked, 1)
  assert first['preference/margin'] == pytest.approx(0, abs=1e-4)
  assert second['preference/margin'] > 0 and second['train/loss'] < first['train/loss']
