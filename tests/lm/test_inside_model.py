"""Attention weights and the guesses of layers, beside formulas in NumPy and the model's own output."""

import numpy as np
import pytest

from lm.base.errors import UserError
from lm.infer import inside
from lm.model.apart import apart

VARIANTS = {
  'plain': {},
  'untied, window': {'tie_embeddings': False, 'layer_types': ('window', 'full'), 'window': 3},
  'experts': {'num_experts': 4, 'experts_per_token': 2},
  'norms behind': {'norm_position': 'post', 'qk_norm': 'projection'},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def model(tiny, request):
  return tiny(**request.param)


def tokens_of(length, vocab_size=23):
  return np.random.default_rng(length).integers(0, vocab_size, length).tolist()


@pytest.mark.slow
def test_the_last_layer_guesses_what_the_model_says(model, forward):
  tokens = tokens_of(11)
  seen = inside.look_inside(*model, tokens, layer=0)
  logits_TV = forward(*model, np.array([tokens], np.int32))[0].astype(np.float64)
  p_TV = np.exp(logits_TV - logits_TV.max(-1, keepdims=True))
  p_TV /= p_TV.sum(-1, keepdims=True)
  np.testing.assert_allclose(
    seen.guess_probs_LTA[-1], -np.sort(-p_TV)[:, : inside.GUESSES], rtol=1e-4
  )
  assert (seen.guess_ids_LTA[-1][:, 0] == p_TV.argmax(-1)).all()
  np.testing.assert_allclose(seen.entropy_LT[-1], -(p_TV * np.log(p_TV)).sum(-1), rtol=1e-4)
  assert not np.allclose(seen.entropy_LT[0], seen.entropy_LT[-1], rtol=0.01)


@pytest.mark.slow
def test_weights_sum_to_one_over_what_a_token_may_see(model):
  config, params = model
  window = 3 if 'window' in config.layer_types else 99
  for layer in range(config.num_layers):
    weights_NTS = inside.look_inside(config, params, tokens_of(11), layer).weights_NTS
    assert weights_NTS.shape == (config.num_heads, 11, 11)
    np.testing.assert_allclose(weights_NTS.sum(-1), 1, rtol=1e-5)
    distance_TS = np.arange(11)[:, None] - np.arange(11)[None]
    allowed_TS = distance_TS >= 0
    if layer == 0:
      allowed_TS &= distance_TS < window
    assert (weights_NTS[:, ~allowed_TS] == 0).all() and (weights_NTS[:, allowed_TS] > 0).all()


def test_the_first_layers_weights_are_the_softmax_of_its_scores(tiny):
  """In NumPy, for a model without positions, norms of queries or biases: the formula alone."""
  config, params = tiny(layer_types=('nope',))
  tokens, layer = tokens_of(7), 0
  x_TD = params['embedding'][tokens]
  part = {name: value[layer] for name, value in params['layers']['attention_norm'].items()}
  x_TD = x_TD / np.sqrt((x_TD**2).mean(-1, keepdims=True) + config.norm_eps) * part['scale']
  attention = params['layers']['attention']
  q_TNH = np.einsum('td,dnh->tnh', x_TD, attention['q']['kernel'][layer])
  k_TKH = np.einsum('td,dkh->tkh', x_TD, attention['k']['kernel'][layer])
  k_TNH = k_TKH.repeat(config.num_heads // config.num_kv_heads, axis=1)
  scores_NTS = np.einsum('tnh,snh->nts', q_TNH, k_TNH) / np.sqrt(config.head_dim)
  scores_NTS[:, np.triu_indices(7, 1)[0], np.triu_indices(7, 1)[1]] = -np.inf
  expected_NTS = np.exp(scores_NTS - scores_NTS.max(-1, keepdims=True))
  expected_NTS /= expected_NTS.sum(-1, keepdims=True)
  seen = inside.look_inside(config, params, tokens, layer)
  np.testing.assert_allclose(seen.weights_NTS, expected_NTS, rtol=1e-4, atol=1e-6)


def test_what_is_shown_does_not_depend_on_the_padding(tiny):
  model, tokens = tiny(), tokens_of(40)
  long, short = (inside.look_inside(*model, tokens[:n], layer=1) for n in (40, 12))
  np.testing.assert_allclose(short.entropy_LT, long.entropy_LT[:, :12], rtol=1e-4)
  np.testing.assert_allclose(short.weights_NTS, long.weights_NTS[:, :12, :12], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_layers_that_are_apart_show_the_same(model):
  config, params = model
  expected, seen = (
    inside.look_inside(config, p, tokens_of(9), layer=1) for p in (params, apart(params))
  )
  np.testing.assert_allclose(seen.weights_NTS, expected.weights_NTS, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(seen.guess_probs_LTA, expected.guess_probs_LTA, rtol=1e-3)
  assert (seen.guess_ids_LTA[:, :, 0] == expected.guess_ids_LTA[:, :, 0]).all()


@pytest.mark.parametrize(
  ('length', 'layer', 'field'), [(0, 0, 'text'), (65, 0, 'text'), (3, 2, 'layer'), (3, -1, 'layer')]
)
def test_a_text_too_long_or_a_layer_that_is_not_there_is_refused(tiny, length, layer, field):
  with pytest.raises(UserError) as error:
    inside.look_inside(*tiny(), tokens_of(length), layer)
  assert error.value.field == field and error.value.allowed
