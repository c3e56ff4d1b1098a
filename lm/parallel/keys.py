"""Random keys: every purpose has keys of its own, all derived from the seed of the run."""

import hashlib

import jax

PURPOSES = (
  'initialization',
  'training',
  'rollouts',
  'evaluation',
  'judging',
  'best_of_n',
  'continuations',
  'probe',
  'pass_at',
  'chat',
)


def derive(seed: int, purpose: str, *indices: int | jax.Array) -> jax.Array:
  """Returns the key of a purpose; other purposes, and other indices, have other keys.

  Args:
    seed: the seed of the run (`config.seed`).
    purpose: one of PURPOSES. The key depends on its name, so that adding a purpose does not change
      the numbers of another.
    indices: numbers that tell several draws of one purpose apart, such as the step or the task.
  """
  assert purpose in PURPOSES, purpose
  domain = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], 'big')
  key = jax.random.fold_in(jax.random.key(seed), domain)
  for index in indices:
    key = jax.random.fold_in(key, index)
  return key
