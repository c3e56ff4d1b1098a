"""Fine-tuning: what weighs the same in the loss, and the noise on embeddings."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from lm.base.errors import UserError
from lm.evals import held_out
from lm.model import transformer
from lm.stages import pretrain, sft

LOSS = ConfigDict({'chunk': 8, 'z_loss': 0.0, 'vocab_blocks': 0, 'balance': 0.0})
RNG = np.random.default_rng(0)
# Two conversations and padding in the first row, one in the second.
SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 0, 0]], np.int32)
WEIGHTS = np.array([[0, 0, 1, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0, 0, 0]], np.float32)
BATCH = {
  'inputs': RNG.integers(23, size=SEGMENTS.shape, dtype=np.int32),
  'targets': RNG.integers(23, size=SEGMENTS.shape, dtype=np.int32),
  'positions': np.zeros(SEGMENTS.shape, np.int32),
  'segment_ids': SEGMENTS,
  'weights': WEIGHTS,
}
KEY = jax.random.key(0)


def mean(loss_fn, params, batch=BATCH, key=None):
  total, weight = jax.jit(loss_fn)(params, batch, key)['train/loss']
  return float(total / weight)


def test_a_conversation_weighs_one_whatever_its_length(tiny):
  config, params = tiny()
  by_token = sft.make_loss(config, LOSS)
  each = []
  for row, segment in ((0, 1), (0, 2), (1, 1)):
    alone = np.zeros_like(WEIGHTS)
    alone[row] = WEIGHTS[row] * (SEGMENTS[row] == segment)
    each.append(mean(by_token, params, BATCH | {'weights': alone}))
  assert mean(by_token, params) == pytest.approx(np.average(each, weights=[1, 3, 2]), rel=1e-5)
  by_conversation = sft.make_loss(config, LOSS, by='conversation')
  assert mean(by_conversation, params) == pytest.approx(np.mean(each), rel=1e-5)
  context = jax.jit(by_conversation)(params, BATCH, None)['sft/context_per_token']
  assert tuple(map(float, context)) == (13, 6)
  with pytest.raises(UserError) as raised:
    sft.make_loss(config, LOSS, by='turn')
  assert raised.value.field == 'config.sft.loss_by' and raised.value.allowed == sft.LOSS_BY


def test_the_noise_of_neftune_is_bounded_by_the_length_of_the_conversation():
  noise_BTD = np.asarray(sft.neftune_noise(KEY, SEGMENTS, 50, 5.0))
  for row, segment, length in ((0, 1, 3), (0, 2, 4), (1, 1, 6)):
    own = noise_BTD[row][SEGMENTS[row] == segment]
    bound = 5 / np.sqrt(length * 50)
    assert own.shape == (length, 50) and 0.95 * bound < np.abs(own).max() <= bound
    assert np.std(own) == pytest.approx(bound / np.sqrt(3), rel=0.15)  # of a uniform distribution


@pytest.mark.slow
def test_noise_is_added_to_embeddings_in_training_alone(tiny):
  config, params = tiny(scale_embeddings=True)
  plain, noisy = sft.make_loss(config, LOSS), sft.make_loss(config, LOSS, neftune=5.0)
  evaluated = [
    held_out.make_evaluate(loss)(params, [BATCH])['train/loss'] for loss in (plain, noisy)
  ]
  assert evaluated[0] == evaluated[1]
  other = jax.random.key(1)
  drawn = [mean(noisy, params, key=key) for key in (KEY, KEY, other)]
  assert drawn[0] == drawn[1] != drawn[2] and mean(plain, params, key=KEY) not in drawn
  # The same as a model whose tokens have these embeddings.
  noise_BTD = np.asarray(sft.neftune_noise(KEY, SEGMENTS, config.embed_dim, 5.0))
  ids = np.arange(16, dtype=np.int32).reshape(2, 8)  # no two tokens alike
  table = np.array(params['embedding'])
  table[ids] += noise_BTD
  model = transformer.Transformer(config)

  def hidden(params, noise_BTD=None):
    return model.apply({'params': params}, ids, noise_BTD=noise_BTD)[0]

  np.testing.assert_allclose(
    jax.jit(hidden)(params, noise_BTD),
    jax.jit(hidden)(params | {'embedding': table}),
    rtol=1e-4,
    atol=1e-5,
  )


def test_pretraining_has_no_noise(tiny):
  config, params = tiny()
  loss = pretrain.make_loss(config, LOSS)
  assert mean(loss, params, key=KEY) == mean(loss, params)
