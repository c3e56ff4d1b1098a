"""What the compiled training step of one device holds and computes: facts that a slower step would
lose, and that need no clock.
"""

import argparse
import math
import re

import jax
import pytest

from lm.cost import hlo, step_time

LAYERS, WIDTH, HEADS, VOCAB, LENGTH, BATCH, CHUNK = 3, 48, 2, 1024, 256, 32, 256
TOKENS = BATCH * LENGTH


@jax.numpy_dtype_promotion('standard')  # Optax multiplies integers and floats.
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


@pytest.fixture(scope='module')
def scanned():
  return compiled('--scan-layers')


@pytest.fixture(params=['scanned', pytest.param('unrolled', marks=pytest.mark.slow)])
def built(request, scanned):
  return scanned if request.param == 'scanned' else compiled('--no-scan-layers')


def arrays(text):
  """The numbers of elements of all arrays of floats in the text of a program, by shape."""
  found = set(re.findall(r'\bf32\[([\d,]+)\]', text))
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
  assert max(sizes[shape] for shape in sizes if shape.endswith(f',{LENGTH}')) < scores / 4


def test_what_the_backward_pass_needs_is_kept_once(scanned):
  """For each token of a layer: its input, q, k, v, the output of attention, the residual stream,
  two norms and the input of the activation. XLA keeps more where layers are not scanned.
  """
  _, program, state, _ = scanned
  loops = [line.split(' while(')[0] for line in program.as_text().splitlines() if ' while(' in line]
  token = LAYERS * TOKENS * WIDTH
  kept = [
    sum(size for shape, size in sizes.items() for _ in re.findall(re.escape(f'f32[{shape}]'), loop))
    for loop in loops
    for sizes in [{x: size for x, size in arrays(loop).items() if size >= token}]
  ]
  assert max(kept) == (8 + 4) * token
  parameters = sum(x.nbytes for x in jax.tree.leaves(state['params']))
  working = 4 * TOKENS * WIDTH * (6 * 4 + 10)  # hidden values, and arrays of the residual stream
  temporary = program.memory_analysis().temp_size_in_bytes
  assert temporary < 4 * max(kept) + parameters + working


def test_the_state_is_updated_in_place(built):
  _, program, state, _ = built
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  assert program.memory_analysis().alias_size_in_bytes >= size


@jax.numpy_dtype_promotion('standard')
def test_a_second_step_compiles_nothing(scanned):
  step, _, state, batch = scanned
  for _ in range(2):
    state, _ = step(state, batch, 1)
  assert step._cache_size() == 1
