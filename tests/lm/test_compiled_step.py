"""What the compiled training step of one device holds and computes: facts that a slower step would
lose, and that need no clock.
"""

import argparse
import math
import re

import jax
import pytest

from lm.cost import hlo, step_time

LAYERS, WIDTH, HEADS, VOCAB, LENGTH, BATCH, CHUNK = 2, 64, 2, 1024, 256, 8, 256
TOKENS = BATCH * LENGTH


def compiled(*flags):
  """The step of the benchmark, its compiled form, its state and its batch."""
  parser = argparse.ArgumentParser()
  step_time.add_flags(parser)
  shape = dict(
    layers=LAYERS, width=WIDTH, heads=HEADS, vocab=VOCAB, batch=BATCH, chunk=CHUNK, family='gpt'
  ) | {'seq-len': LENGTH}
  args = parser.parse_args([*(f'--{name}={value}' for name, value in shape.items()), *flags])
  step, state, batch = step_time.make_step(args)
  return step, step.lower(state, batch, 1).compile(), state, batch


@pytest.fixture(scope='module', params=['--scan-layers', '--remat=none'])
def built(request):
  return compiled(request.param)


def arrays(text):
  """The numbers of elements of all arrays in the text of a program."""
  found = set(re.findall(r'\b[a-z]+\d*\[([\d,]+)\]', text))
  return {sizes: math.prod(map(int, sizes.split(','))) for sizes in found}


def test_a_product_is_computed_once(built):
  # The forward pass, and two gradients of every factor; attention computes 3/4 of all scores, and
  # those once more in the backward pass.
  matrices = LAYERS * 12 * WIDTH**2 + VOCAB * WIDTH
  attention = LAYERS * 7 * LENGTH * WIDTH * 3 / 4
  flops = hlo.cost(built[1].as_text(), {'data': 1}).flops
  assert flops == pytest.approx(2 * TOKENS * (3 * matrices + attention), rel=0.01)


def test_no_product_has_both_factors_transposed(built):
  """XLA for CPUs computes these at half the speed (lm/model/products.py)."""
  text = built[1].as_text()
  assert ' dot(' in text
  assert 'lhs_contracting_dims={0}, rhs_contracting_dims={1}' not in text


def test_neither_all_logits_nor_all_attention_weights_exist_at_once(built):
  sizes = arrays(built[1].as_text())
  large = [shape for shape, size in sizes.items() if size >= TOKENS * VOCAB]
  assert not large
  scores = BATCH * HEADS * LENGTH * LENGTH
  assert not [shape for shape in sizes if sizes[shape] >= scores / 4 and f',{LENGTH}' in shape]


def test_the_state_is_updated_in_place(built):
  _, program, state, _ = built
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  assert program.memory_analysis().alias_size_in_bytes >= size


def test_a_second_step_compiles_nothing():
  step, _, state, batch = compiled('--scan-layers')
  for _ in range(2):
    state, _ = step(state, batch, 1)
  assert step._cache_size() == 1
