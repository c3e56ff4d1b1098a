"""A tiny model for the tests of lm/, varied by its config fields. Made and compiled once for each
variant.
"""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from serving import TOKENIZER

from configs import base
from lm.model import heads, transformer
from lm.weights import checkpoint

TINY = {
  'vocab_size': 23,
  'num_layers': 2,
  'embed_dim': 16,
  'num_heads': 4,
  'num_kv_heads': 2,
  'head_dim': 4,
  'mlp_dim': 24,
  'max_len': 64,
  'scan_layers': True,
}


@functools.cache
def _make(fields):
  config = FrozenConfigDict(base.get_config().model.to_dict() | TINY | dict(fields))
  transformer.check(config)
  shapes = nn.unbox(transformer.abstract(config))
  rng = np.random.default_rng(1)

  # NumPy draws them, since a program that does takes longer to compile than a test to run.
  def draw(path, shape):
    is_scale = path[-1].key == 'scale' and not config.norm_offset
    return (is_scale + 0.3 * rng.normal(size=shape.shape)).astype(shape.dtype)

  return config, jax.tree.map_with_path(draw, shapes)


def make(**fields):
  """(config, params) of the tiny model with these fields."""
  return _make(tuple(sorted(fields.items())))


@functools.partial(jax.jit, static_argnums=0)
def _forward(config, params, tokens_BT, options):
  hidden, _ = transformer.Transformer(config).apply({'params': params}, tokens_BT, **options)
  return heads.unembed(params, config, hidden)


@pytest.fixture(scope='session')
def tiny():
  """tiny(field=value, ...) -> (config, params): a two-layer model none of whose parameters is 0 or
  1. NumPy arrays.
  """
  return make


@pytest.fixture
def forward():
  """forward(config, params, tokens_BT, **options of the Transformer) -> float32 logits [B, T, V]
  without a cache.
  """
  return lambda config, params, tokens_BT, **options: np.asarray(
    _forward(config, params, tokens_BT, options)
  )


@pytest.fixture
def run_folder(tiny, tmp_path):
  """The folder of a run whose tiny model has the tokenizer of the tests of serving."""
  config, params = tiny(vocab_size=TOKENIZER.vocab_size)
  with checkpoint.Checkpointer(tmp_path / 'checkpoints', keep_last=1) as saver:
    provenance = {'config': {'model': config.to_dict()}, 'tokenizer': TOKENIZER.fingerprint}
    saver.save(3, {'params': params, 'step': np.int32(3)}, provenance)
  TOKENIZER.save(tmp_path / 'tokenizer')
  return tmp_path
