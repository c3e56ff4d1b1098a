"""Keys of different purposes."""

import itertools

import jax
import pytest

from lm.parallel import keys


def bits(key):
  return tuple(jax.random.key_data(key).tolist())


def test_no_two_purposes_or_indices_share_a_key():
  indices = ((), (0,), (1,), (0, 0), (0, 1), (1, 0))
  drawn = [
    bits(keys.derive(seed, purpose, *index))
    for seed, purpose, index in itertools.product((0, 1), keys.PURPOSES, indices)
  ]
  drawn += [bits(jax.random.key(seed)) for seed in (0, 1)]
  assert len(set(drawn)) == len(drawn) == 2 * len(keys.PURPOSES) * len(indices) + 2


def test_a_key_is_the_same_in_every_process():
  assert (
    bits(keys.derive(3, 'rollouts', 7))
    == bits(keys.derive(3, 'rollouts', 7))
    == (2271610890, 3545213220)
  )


def test_an_unknown_purpose_is_refused():
  with pytest.raises(AssertionError, match='lunch'):
    keys.derive(0, 'lunch')
