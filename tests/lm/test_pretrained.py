"""Models from checkpoints: whose choice each field is, and what becomes of one whose tokenizer gets
more tokens.
"""

import copy
import pickle

import jax
import numpy as np
import pytest

from configs import base
from lm.base import config as config_lib
from lm.base.errors import UserError
from lm.parallel import sharding
from lm.weights import pretrained

STORED = {
  'num_layers': 3,
  'rope_theta': 500_000.0,
  'max_len': 64,
  'layer_types': ['full', 'window'],
  'window': 8,
}


def adopt(stored=STORED, **chosen):
  config, defaults = base.get_config(), base.get_config().model
  config.model.update(chosen)
  config = config_lib.place(
    pickle.loads(pickle.dumps(config)), 'runs/x'
  )  # as a stage of a recipe gets it
  return pretrained.adopt(config.model, defaults, config_lib.as_json(defaults) | stored)


def test_what_is_not_chosen_is_the_checkpoints():
  adopted = adopt(dtype='bfloat16')
  assert (adopted.num_layers, adopted.rope_theta, adopted.layer_types) == (
    3,
    500_000.0,
    ('full', 'window'),
  )
  assert adopted.dtype == 'bfloat16'


@pytest.mark.parametrize(
  'field, value', [('num_layers', 12), ('window', 0), ('layer_types', ('full',)), ('window', 4)]
)
def test_an_architecture_that_is_chosen_otherwise_is_refused_whatever_the_default(field, value):
  with pytest.raises(UserError) as raised:
    adopt(**{field: value})
  assert (raised.value.field, raised.value.value) == (f'config.model.{field}', value)
  assert raised.value.allowed.startswith(repr(adopt()[field]))
  assert adopt(num_layers=3, window=8, layer_types=('full', 'window'), vocab_size=0).num_layers == 3


def test_the_context_is_chosen_on_purpose():
  longer = {
    'max_len': 1024,
    'rope_theta': 10_000.0,
    'rope_scaling': 'llama3',
    'rope_factor': 2.0,
    'rope_original_len': 64,
  }
  assert {field: adopt(**longer)[field] for field in longer} == longer  # the first two are defaults
  learned = STORED | {'position': 'learned'}
  with pytest.raises(UserError) as raised:
    adopt(learned, max_len=1024)
  assert (raised.value.field, raised.value.value) == ('config.model.max_len', 1024)
  assert raised.value.allowed.startswith('64,') and 'learned table' in raised.value.message


def test_fields_that_are_not_stored_were_added_later():
  defaults = base.get_config().model
  stored = config_lib.as_json(defaults)
  del stored['rope_theta_window'], stored['mlp_blocks']
  assert pretrained.adopt(defaults, defaults, stored) == pretrained.adopt(
    defaults, defaults, config_lib.as_json(defaults)
  )
  with pytest.raises(UserError) as raised:
    pretrained.adopt(defaults, defaults, stored | {'of_tomorrow': 1})
  assert raised.value.value == 1 and 'config.model.of_tomorrow' in raised.value.field


def test_copies_of_a_config_know_what_was_chosen():
  config = base.get_config().model
  assert config.chosen == frozenset()
  config.num_layers, config['window'] = config.num_layers, config.window
  assert copy.deepcopy(config).chosen == {'num_layers', 'window'}


@pytest.mark.slow
@pytest.mark.parametrize('tied', [True, False])
def test_a_grown_vocabulary_leaves_old_logits_and_gives_new_tokens_their_mean(tiny, forward, tied):
  config, params = tiny(tie_embeddings=tied)
  mesh = sharding.make_mesh(base.get_config().mesh)
  start = pretrained.Pretrained(config, params, None, {}, None, 3, '')
  assert pretrained.grow(start, config.vocab_size, mesh) is start
  assert pretrained.grow(start, config.vocab_size - 1, mesh) is start  # a spare row
  with jax.set_mesh(mesh):
    grown = pretrained.grow(start, config.vocab_size + 1, mesh)
  assert grown.config.vocab_size == 128 and grown.step == 3
  shapes = jax.tree.map(lambda x: x.shape, pretrained.abstract_params(grown.config, mesh)[0])
  assert jax.tree.map(lambda x: x.shape, grown.params) == shapes
  tokens = np.arange(config.vocab_size, dtype=np.int32)[None]
  old, new = forward(config, params, tokens), forward(grown.config, grown.params, tokens)
  np.testing.assert_allclose(new[..., : config.vocab_size], old, atol=1e-5)
  np.testing.assert_allclose(
    new[..., config.vocab_size :], np.repeat(old.mean(-1, keepdims=True), 105, -1), atol=1e-5
  )
  np.testing.assert_allclose(grown.params['embedding'][-1], params['embedding'].mean(0), atol=1e-6)
