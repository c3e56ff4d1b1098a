"""The scalar head beside the vocabulary head, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.base.errors import UserError
from lm.model import heads, transformer
from lm.parallel import sharding

BOTH = {'heads': ('vocabulary', 'scalar')}
TOKENS = np.random.default_rng(0).integers(23, size=(2, 9), dtype=np.int32)


def hidden(config, params):
  return transformer.Transformer(config).apply({'params': params}, TOKENS)[0]


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_value_is_the_product_of_a_vector_and_the_hidden_state(tiny, dtype):
  config, params = tiny(dtype=dtype, **BOTH)
  x_BTD = hidden(config, params)
  values_BT = heads.scalar_values(params, config, x_BTD)
  assert (values_BT.dtype, values_BT.shape) == (jnp.float32, (2, 9))
  vector_D = np.asarray(jnp.asarray(params['scalar_head'], dtype), np.float64)
  expected = np.asarray(x_BTD, np.float64) @ vector_D
  np.testing.assert_allclose(values_BT, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_gradient_of_a_value_reaches_the_head_and_every_layer(tiny):
  config, params = tiny(**BOTH)

  def total(params):
    return jnp.sum(jnp.square(heads.scalar_values(params, config, hidden(config, params))))

  grads = jax.jit(jax.grad(total))(params)
  assert np.abs(grads['scalar_head']).min() > 0
  for x_L in jax.tree.leaves(grads['layers']):
    assert all(np.abs(x).max() > 0 for x in x_L)


@pytest.mark.slow
def test_the_vocabulary_head_and_fresh_parameters_are_as_without_it(tiny, forward):
  (plain, _), (both, params) = tiny(), tiny(**BOTH)
  old, new = (
    jax.jit(transformer.init_params, static_argnums=0)(c, jax.random.key(3)) for c in (plain, both)
  )
  fresh = new.pop('scalar_head')
  jax.tree.map(np.testing.assert_array_equal, new, old)
  assert fresh.shape == (16,) and 0.1 < np.std(fresh) * 17**0.5 < 2
  rest = {name: x for name, x in params.items() if name != 'scalar_head'}
  np.testing.assert_array_equal(forward(both, params, TOKENS), forward(plain, rest, TOKENS))


@pytest.mark.slow
def test_the_vector_is_split_as_the_hidden_states_are(tiny):
  config, _ = tiny(**BOTH)
  boxed = jax.eval_shape(lambda: transformer.init(config, jax.random.key(0)))
  assert sharding.axis_names(boxed)['scalar_head'] == ('embed',)


def test_values_of_a_model_without_the_head_are_refused(tiny):
  config, params = tiny()
  with pytest.raises(UserError) as error:
    heads.scalar_values(params, config, jnp.zeros((1, 16)))
  assert (error.value.field, error.value.value) == ('config.model.heads', ('vocabulary',))


@pytest.mark.parametrize('names', [('vocabulary', 'scaler'), ('scalar',)])
def test_heads_that_are_not_known_or_lack_the_vocabulary_are_refused(names):
  with pytest.raises(UserError) as error:
    heads.check(names)
  assert error.value.field == 'config.model.heads'
