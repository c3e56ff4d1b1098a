"""Models from checkpoints: what becomes of one whose tokenizer gets more tokens."""

import jax
import numpy as np
import pytest

from configs import base
from lm import pretrained, sharding


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
  np.testing.assert_allclose(new[..., config.vocab_size :], np.repeat(old.mean(-1, keepdims=True), 105, -1), atol=1e-5)
  np.testing.assert_allclose(grown.params['embedding'][-1], params['embedding'].mean(0), atol=1e-6)
