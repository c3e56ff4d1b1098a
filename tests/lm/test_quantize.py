"""Int8 weights against NumPy's rounding, and what they cost in accuracy and save in memory."""

import jax
import numpy as np
import pytest

from lm.model import apart, quantize, tiles, transformer
from lm.parallel import sharding

VARIANTS = {
  'dense': {'attention_bias': 'all', 'mlp_bias': True, 'embed_dim': 64, 'mlp_dim': 96},
  'routed': {'num_experts': 4, 'embed_dim': 64},
}


def rounded(x, axis):
  """Each output channel on its own grid of 255 values, in float64."""
  step = np.abs(x).max(axis, keepdims=True) / 127
  return np.round(x / step) * step


@pytest.mark.slow
@pytest.mark.parametrize('name', VARIANTS)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_model_computes_with_the_rounded_weights(tiny, forward, name, dtype):
  config, params = tiny(dtype=dtype, **VARIANTS[name])
  axes = sharding.axis_names(transformer.abstract(config))
  small = quantize.quantize('int8', params, axes)
  layers = {part: dict(x) for part, x in params['layers'].items()}
  for part, names in (('attention', 'qkvo'), ('mlp', ('gate', 'up', 'down'))):
    for matrix in names:
      kernel = params['layers'][part][matrix]['kernel'].astype(np.float64)
      summed = (1, 2) if matrix == 'o' else kernel.ndim - 2 if part == 'mlp' else 1
      layers[part][matrix] = params['layers'][part][matrix] | {
        'kernel': rounded(kernel, summed).astype(np.float32)
      }
      assert small['layers'][part][matrix]['kernel'].dtype == np.int8
  tokens = np.random.default_rng(0).integers(23, size=(2, 9), dtype=np.int32)
  got, full = forward(config, small, tokens), forward(config, params, tokens)
  head = {'head': rounded(params['embedding'].astype(np.float64), 1).astype(np.float32)}
  scales = {'head_scale': np.ones(config.vocab_size, np.float32)}
  expected = forward(config, params | {'layers': layers} | head | scales, tokens)
  spread = np.abs(full).max()
  is_close = np.isclose(got, expected, atol=(1e-5 if dtype == 'float32' else 0.05) * spread)
  # By its rounding, bfloat16 may send a token to another expert.
  assert is_close.all() if dtype == 'float32' else is_close.mean() > 0.9
  assert 1e-4 * spread < np.abs(got - full).max() < 0.1 * spread  # it is rounded, and near
  assert small['head'].dtype == np.int8
  untouched = [small['embedding'], small['layers']['attention_norm']['scale']]
  assert all(x.dtype == np.float32 for x in untouched)


@pytest.mark.parametrize('count', [1, 2, 9])
@pytest.mark.parametrize('shape', [(tiles.INPUTS, tiles.OUTPUTS), (5, 7), (40, 130)])
def test_a_product_with_tiles_is_that_with_the_matrix(count, shape):
  rng = np.random.default_rng(0)
  matrix = rng.integers(-127, 128, shape).astype(np.int8)
  x = rng.normal(size=(1, count, shape[0])).astype(np.float32)
  got = tiles.product(x, tiles.cut(matrix), shape[1])
  np.testing.assert_allclose(got, x @ matrix.astype(np.float32), rtol=1e-5, atol=1e-3)


def test_no_matrix_is_converted_before_a_loop_over_tokens():
  """It would be read as float32 for each token: the loop keeps no more than the bytes."""
  w_OPCW = tiles.cut(np.ones((256, 1024), np.int8))

  def loop(x, w_OPCW):
    def body(carry):
      step, x = carry
      return step + 1, tiles.product(x, w_OPCW, 1024)[:, :256]

    return jax.lax.while_loop(lambda carry: carry[0] < 9, body, (0, x))[1]

  program = jax.jit(loop).lower(np.ones((1, 256), np.float32), w_OPCW).compile()
  assert program.memory_analysis().temp_size_in_bytes < w_OPCW.size


@pytest.mark.slow
@pytest.mark.parametrize('tied', [True, False])
def test_layers_apart_compute_the_same_in_tiles(tiny, forward, tied):
  config, params = tiny(**VARIANTS['dense'], tie_embeddings=tied)
  axes = sharding.axis_names(jax.eval_shape(lambda: transformer.init(config, jax.random.key(0))))
  small = quantize.quantize('int8', params, axes)
  several = apart.apart(small)
  assert several['layer_0']['mlp']['down']['kernel_tiled'].dtype == np.int8
  assert several['head_tiled'].dtype == np.int8 and 'head' not in several
  for length in (3, 9):
    tokens = np.random.default_rng(0).integers(23, size=(1, length), dtype=np.int32)
    expected = forward(config, small, tokens)
    np.testing.assert_allclose(forward(config, several, tokens), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_matrix_takes_a_quarter_of_its_memory(tiny):
  config, params = tiny(embed_dim=64, mlp_dim=256)
  axes = sharding.axis_names(transformer.abstract(config))
  small = quantize.quantize('int8', params, axes)
  before, after = (
    sum(x.nbytes for x in jax.tree.leaves(p['layers']['mlp'])) for p in (params, small)
  )
  assert after < 0.27 * before
  assert quantize.quantize('none', params, axes) is params
