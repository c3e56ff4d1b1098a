"""Random keys: each purpose draws from one of its own, and all of them follow from the seed of the
run.
"""

import hashlib

import jax

PURPOSES = ('initialization', 'training', 'rollouts', 'evaluation', 'continuations', 'chat')


def derive(seed: int, purpose: str, *indices: int | jax.Array) -> jax.Array:
  """Returns the key of one purpose; two purposes, or two sequences of indices, never share one.

  Args:
    seed: of the run (`config.seed`).
    purpose: one of PURPOSES. Its name alone decides, so a new purpose changes no other's numbers.
    indices: what tells several draws of one purpose apart: the step, the task.
  """
  assert purpose in PURPOSES, purpose
  domain = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], 'big')
  key = jax.random.fold_in(jax.random.key(seed), domain)
  for index in indices:
    key = jax.random.fold_in(key, index)
  return key
