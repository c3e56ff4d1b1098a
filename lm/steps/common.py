"""What the train steps share: adding up microbatches, the one division, the update, and the refusal of non-finite ones."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

State = dict[str, Any]  # params, opt_state, step
LossFn = Callable[[Any, dict], tuple[jax.Array, jax.Array, dict[str, jax.Array]]]


def init_state(params: Any, tx: optax.GradientTransformation) -> State:
  """The state before the first update."""
  return {'params': params, 'opt_state': tx.init(params), 'step': jnp.zeros((), jnp.int32)}


def accumulate(loss_fn: LossFn, params: Any, batch: dict, count: jax.Array | int) -> tuple[Any, jax.Array, jax.Array, dict]:
  """Gradients, loss, weight and metrics, each summed over the first `count` of the M microbatches on axis 0 of `batch`."""

  def one(microbatch):
    def total(params):
      loss, weight, metrics = loss_fn(params, microbatch)
      return loss, (weight, metrics)

    (loss, (weight, metrics)), grads = jax.value_and_grad(total, has_aux=True)(params)
    return grads, loss, weight, metrics

  size = jax.tree.leaves(batch)[0].shape[0]
  first = jax.tree.map(lambda x: x[0], batch)
  if size == 1:
    return one(first)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, first))
  return jax.lax.fori_loop(
    0, count, lambda i, sums: jax.tree.map(jnp.add, sums, one(jax.tree.map(lambda x: x[i], batch))), zeros)


def make_train_step(loss_fn: LossFn, tx: optax.GradientTransformation, schedule: optax.Schedule) -> Callable:
  """Builds `step(state, batch, count) -> (state, metrics)`, to be jitted with the state donated.

  Args:
    loss_fn: (params, microbatch) -> (loss sum, weight, {metric: sum}); everything is divided by the summed weight here.
    tx: the optimizer.
    schedule: learning rate by update, for the log.

  The batch's leaves are [M, rows, ...]; `count` of the M microbatches are used. A loss or gradient that is not finite
  leaves the parameters and the optimizer as they were and sets the metric `train/finite` to 0.
  """

  def step(state, batch, count):
    grads, loss, weight, sums = accumulate(loss_fn, state['params'], batch, count)
    inverse = 1.0 / jnp.maximum(weight, 1.0)
    grads = jax.tree.map(lambda g: g * inverse.astype(g.dtype), grads)
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, opt_state = tx.update(grads, state['opt_state'], state['params'])
    params = optax.apply_updates(state['params'], updates)
    new = {'params': params, 'opt_state': opt_state}
    old = {name: state[name] for name in new}
    moves = finite & (weight > 0)
    new = jax.tree.map(lambda a, b: jnp.where(moves, a, b), new, old)
    metrics = {'train/loss': loss * inverse, 'train/weight': weight, 'train/finite': finite.astype(jnp.float32),
               'opt/grad_norm': norm, 'opt/lr': jnp.asarray(schedule(state['step']), jnp.float32)}
    metrics |= {name: value * inverse for name, value in sums.items()}
    return new | {'step': state['step'] + 1}, metrics

  return step
