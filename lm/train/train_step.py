"""The training step of all stages: it sums microbatches, divides once, and updates.

It refuses bad updates: those that are not finite, or whose loss is a spike.
"""

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lm.model import param_rules
from lm.parallel import keys

State = dict[str, Any]
SumAndWeight = tuple[jax.Array, jax.Array]
# (params, microbatch, key) -> {name: (sum, weight)}. `train/loss` is the loss alone. A loss that
# has regularizers also returns `train/total`, which is then minimized in its place. Nothing is
# divided before the microbatches are summed. The key is None in an evaluation, which draws nothing.
LossFn = Callable[[Any, dict, jax.Array | None], dict[str, SumAndWeight]]
LOSS, TOTAL = 'train/loss', 'train/total'
RECENT = 64  # The number of last losses to whose median a loss is compared, to detect a spike.
FEWEST = 8  # The number of losses that are needed before a spike can be detected.


def parts(params: Any, trained: frozenset[str] | None) -> tuple[Any, Any]:
  """Returns (the parameters that are trained, the others), which `param_rules.join` joins.

  Args:
    trained: the names of those that are trained; None means all, and then the others are {}.
  """
  return (params, {}) if trained is None else param_rules.split(params, trained)


def init_state(
  params: Any, tx: optax.GradientTransformation, trained: frozenset[str] | None = None
) -> State:
  """Returns the state before the first update.

  `opt_state` is that of the parameters that are trained.

  Its counters: `step` of all steps, `updates` of those that moved the parameters, `bad` of those
  that were refused; `losses` holds the last RECENT losses that were accepted, as a ring.
  """
  # Each counter is an array of its own, because they are donated.
  count = lambda: jnp.zeros((), jnp.int32)  # noqa: E731
  return {
    'params': params,
    'opt_state': tx.init(parts(params, trained)[0]),
    'step': count(),
    'updates': count(),
    'bad': count(),
    'losses': jnp.zeros(RECENT, jnp.float32),
  }


def objective(sums: dict[str, SumAndWeight]) -> SumAndWeight:
  """Returns what a loss function minimizes: `train/total` if it gives one, else `train/loss`."""
  return sums[TOTAL] if TOTAL in sums else sums[LOSS]


def accumulate(
  loss_fn: LossFn,
  params: Any,
  batch: dict,
  count: jax.Array | int,
  key: jax.Array,
  frozen: Any = None,
) -> tuple[Any, dict[str, SumAndWeight]]:
  """Returns the gradients of the objective and all sums, over the first `count` microbatches.

  The gradients are those of `params`. `frozen` has the model's other parameters, if there are any;
  they get no gradients.

  The microbatches are on axis 0 of the leaves of `batch`, [M, rows, ...]. A batch of one microbatch
  is computed whatever the count, so the caller must not pass one with nothing to learn.
  """

  @functools.partial(jax.jit, inline=True)  # so that it is traced once, for shapes and for the loop
  def one(i, microbatch):
    def minimized(params):
      whole = param_rules.join(params, frozen) if frozen else params
      sums = loss_fn(whole, microbatch, jax.random.fold_in(key, i))
      return objective(sums)[0], sums

    return jax.grad(minimized, has_aux=True)(params)

  size = jax.tree.leaves(batch)[0].shape[0]
  first = jax.tree.map(lambda x: x[0], batch)
  if size == 1:
    return one(0, first)
  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, jnp.int32(0), first)
  )

  def add(i, sums):
    microbatch = jax.tree.map(lambda x: x[i], batch)
    return jax.tree.map(jnp.add, sums, one(jnp.asarray(i, jnp.int32), microbatch))

  return jax.lax.fori_loop(0, count, add, zeros)


def make_train_step(
  loss_fn: LossFn,
  tx: optax.GradientTransformation,
  schedule: optax.Schedule,
  *,
  spike: float = 0.0,
  seed: int = 0,
  trained: frozenset[str] | None = None,
) -> Callable:
  """Returns `step(state, batch, count) -> (state, metrics)`, to be jitted with a donated state.

  Args:
    loss_fn: what is minimized, and its metrics; each is divided by its own summed weight here (0
      where that is 0).
    tx: the optimizer.
    schedule: learning rate by update, for the log.
    spike: a `train/loss` above this many times the median of the last ones is bad; with 0 none is.
      It is for losses above 0.
    seed: the seed of the run; the loss of step N gets a key of its own, derived from it and N.
    trained: the names of the parameters that are trained; None means all. The others do not change.

  The batch's leaves are [M, rows, ...]; the first `count` of the M microbatches are used, at least
  one. A step is bad when its objective or gradient is not finite (`train/finite` is 0) or its loss
  a spike (`train/spike` is its ratio to the median): it leaves the parameters and the optimizer as
  they were, sets the metric `train/bad` to 1 and adds to `train/bad_steps`.
  """

  def step(state, batch, count):
    key = keys.derive(seed, 'training', state['step'])
    params, frozen = parts(state['params'], trained)
    grads, sums = accumulate(loss_fn, params, batch, count, key, frozen)
    total, weight = objective(sums)
    inverse = _inverse(weight)
    grads = jax.tree.map(lambda g: g * inverse.astype(g.dtype), grads)
    means = {name: value * _inverse(own) for name, (value, own) in sums.items()}
    norm = optax.tree.norm(grads)
    finite, watched = jnp.isfinite(total) & jnp.isfinite(norm), {}
    bad = ~finite
    if spike:
      watched['train/spike'] = means[LOSS] / _median(state['losses'], state['updates'])
      bad |= (state['updates'] >= FEWEST) & (watched['train/spike'] > spike)
    updates, opt_state = tx.update(grads, state['opt_state'], params)
    moves = ~bad & (weight > 0)
    old = {name: state[name] for name in ('opt_state', 'updates', 'losses')} | {'params': params}
    new = {
      'params': optax.apply_updates(params, updates),
      'opt_state': opt_state,
      'updates': state['updates'] + 1,
      'losses': state['losses'].at[state['updates'] % RECENT].set(means[LOSS]),
    }
    new = jax.tree.map(lambda a, b: jnp.where(moves, a, b), new, old)
    if frozen:
      new['params'] = param_rules.join(new['params'], frozen)
    counters = {'step': state['step'] + 1, 'bad': state['bad'] + bad.astype(jnp.int32)}
    metrics = {
      TOTAL: total * inverse,
      'train/weight': weight,
      'train/finite': finite.astype(jnp.float32),
      'train/bad': bad.astype(jnp.float32),
      'train/bad_steps': counters['bad'].astype(jnp.float32),
      'opt/grad_norm': norm,
      'opt/lr': jnp.asarray(schedule(state['updates']), jnp.float32),
    }
    return new | counters, means | metrics | watched

  return step


def _inverse(weight: jax.Array) -> jax.Array:
  """Returns 1 / weight, or 0 where the weight is 0."""
  return jnp.where(weight > 0, 1.0 / jnp.where(weight > 0, weight, 1.0), 0.0)


def of_updates(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Returns the metrics of a step that made several updates on one batch, from those of each.

  It returns {} if there were no updates. Most metrics are means over the updates. rl/sampler_gap is
  that of the first update, before any parameter has changed. opt/lr and train/bad_steps are those
  of the last. The step is bad, or not finite, where any update was.
  """
  merge = {
    'rl/sampler_gap': lambda x: x[0],
    'opt/lr': lambda x: x[-1],
    'train/bad_steps': lambda x: x[-1],
    'train/bad': max,
    'train/finite': min,
  }
  columns = {name: [values[name] for values in each] for name in (each[0] if each else ())}
  return {name: merge.get(name, statistics.fmean)(column) for name, column in columns.items()}


def _median(losses: jax.Array, count: jax.Array) -> jax.Array:
  """Returns the (lower) median of the first `count` values, at least one, of a ring buffer."""
  count = jnp.clip(count, 1, losses.size)
  used = jnp.arange(losses.size) < count
  return jnp.sort(jnp.where(used, losses, jnp.finfo(losses.dtype).max))[(count - 1) // 2]
