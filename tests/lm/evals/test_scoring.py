"""Evaluation: what is counted, and what is not."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.evals import held_out, scoring
from lm.infer.requests import Completion


def test_score_fills_the_last_batch_up_without_counting_it():
  prompts, sizes, graded = [[1], [2], [3], [4], [5]], [], []

  def generate(rows, batch):
    assert batch == len(sizes)
    sizes.append(len(rows))
    return [Completion([10 * row[0]], [0.0], [True], True) for row in rows]

  def grade(problem, completion):
    graded.append((problem, completion.tokens[0]))
    return float(completion.tokens[0] > 20)

  grades = scoring.score('abcde', prompts, generate, grade, batch_size=3, max_len=2)
  assert sizes == [3, 3]  # one shape, one compilation
  assert graded == [('a', 10), ('b', 20), ('c', 30), ('d', 40), ('e', 50)]
  assert grades == [0, 0, 1, 1, 1]


def test_summary_is_accuracy_with_wilsons_interval():
  got = scoring.summary([1.0, 0.5, 0.49, 0.0], 'abcd')
  # 2 of 4, by hand: centre 0.5, half 1.96 sqrt(0.25 * 4 + 0.9604) / (4 + 3.8416)
  half = 1.96 * math.sqrt(1.9604) / 7.8416
  assert got == pytest.approx({'accuracy': 0.5, 'low': 0.5 - half, 'high': 0.5 + half, 'n': 4})
  all_right = scoring.summary([1.0] * 10, range(10))
  assert all_right['low'] == pytest.approx(10 / 13.8416) and all_right['high'] == 1


def test_a_problem_asked_again_and_again_counts_once():
  once = scoring.summary([1.0, 0.0, 1.0, 1.0], 'abcd')
  again = scoring.summary([1.0, 0.0, 1.0, 1.0] * 50, 'abcd' * 50)
  assert again['n'] == 200 and again['accuracy'] == once['accuracy']
  assert again['high'] - again['low'] > 0.9 * (once['high'] - once['low'])


def test_perplexity_sums_over_batches_before_anything_is_divided():
  def loss_fn(params, batch, key):
    weight = batch['w'].sum()
    loss = params * (batch['x'] * batch['w']).sum()
    return {
      'train/total': (jnp.nan, weight),
      'train/loss': (loss, weight),
      'train/z_loss': (jnp.nan, weight),
      'preference/accuracy': (batch['x'].sum(), jnp.float32(batch['x'].size)),
    }

  batches = [
    {'x': np.full((2, 2), v, np.float32), 'w': np.full((2, 2), w, np.float32)}
    for v, w in ((1, 1), (5, 0.25))
  ]
  assert held_out.make_evaluate(loss_fn)(jnp.float32(2), batches) == {
    'train/loss': (2 * (4 + 5), 5),
    'preference/accuracy': (4 * (1 + 5), 8),
  }


def test_few_batches_wait_on_the_devices(monkeypatch):
  fetched, fetch = [], jax.device_get
  monkeypatch.setattr(
    jax, 'device_get', lambda tree: fetched.extend(jax.tree.leaves(tree)) or fetch(tree)
  )

  def batches():
    for i in range(10):
      assert i - len(fetched) // 2 <= 3  # two numbers of each batch
      yield {'x': jnp.float32(i)}

  evaluate = held_out.make_evaluate(
    lambda params, batch, key: {'train/loss': (params * batch['x'], jnp.float32(1))}
  )
  assert evaluate(jnp.float32(2), batches()) == {'train/loss': (90, 10)}


def test_bits_per_byte():
  assert held_out.bits(80 * math.log(2)) / 10 == pytest.approx(8)
