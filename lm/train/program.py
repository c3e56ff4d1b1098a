"""The program of a training run: its step over a mesh, with the shapes and shardings it needs.

It can be run, or compiled for devices that do not exist: nothing here needs arrays.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base.errors import UserError
from lm.model import adapters, transformer
from lm.model.attention import kernels
from lm.parallel import sharding
from lm.train import optimizers, train_step
from lm.weights import pretrained


@dataclasses.dataclass(frozen=True)
class Program:
  """A training step, and what it reads and returns.

  The shapes are jax.ShapeDtypeStructs, each with a sharding.
  """

  stage: Any  # `lm.stages.stage.Stage`
  loss_fn: train_step.LossFn
  step: Callable  # Jitted: (state, batch, count) -> (state, metrics); the state is donated.
  state: Any  # The shapes of {params, opt_state, ...}; see train_step.init_state.
  batch: dict[str, jax.ShapeDtypeStruct]  # [microbatches, rows, ...]
  start: Callable  # Jitted: params -> state, with the shardings of `state`.
  fresh: Callable  # Jitted: key -> state, with the shardings of `state`.
  updates: int  # The number of updates on each batch.

  @property
  def parameter_bytes(self) -> int:
    """Returns the bytes of all parameters, over all devices."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self.state['params']))

  def copy_params(self, start: Any, key: jax.Array) -> Any:
    """Returns a copy of parameters, or fresh ones by the key where they are None.

    What a run starts from may share its memory with the state, which the step may overwrite.
    """
    if start is None:
      return self.fresh(key)['params']
    return jax.tree.map(lambda x: x.copy(), start)


def rows_of_microbatch(config: ConfigDict) -> int:
  """Returns the number of rows of a microbatch on all devices.

  Raises:
    UserError: the microbatches do not divide the batch.
  """
  if config.batch_size % config.microbatches:
    raise UserError(
      field='config.microbatches',
      value=config.microbatches,
      allowed=f'a divisor of batch_size, {config.batch_size}',
    )
  return config.batch_size // config.microbatches


def check_shapes(config: ConfigDict, mesh: Mesh | AbstractMesh) -> None:
  """Raises UserError where rows or their length cannot be split over a mesh as the config asks."""
  kernels.check_length(config.model.attention, mesh, config.seq_len)
  sharding.check_rows(mesh, {'batch_size / microbatches': rows_of_microbatch(config)})


def make(
  config: ConfigDict,
  stage: Any,
  model_config: FrozenConfigDict,
  mesh: Mesh | AbstractMesh,
  banned_ids: Sequence[int] = (),
) -> Program:
  """Builds the program of a stage; nothing is compiled and no array is made yet.

  Args:
    stage: the config's `lm.stages.stage.Stage`.
    model_config: the model's.
    mesh: an abstract one will do for the shapes (lm/cost/estimate.py).
    banned_ids: tokens that the sampler never draws.

  Raises:
    UserError: an axis that the mesh does not divide, a large parameter that it does not split, an
      unknown name.
  """
  if isinstance(mesh, Mesh):
    kernels.check(model_config, mesh.devices.flat[0].platform)
  params_shape, axes = pretrained.abstract_params(model_config, mesh)
  trained = adapters.trained(config.train.params, axes)
  num_updates = config.steps * stage.updates_per_batch
  tx, schedule = optimizers.make(config.optim, num_updates, axes, trained)
  init_state = functools.partial(train_step.init_state, tx=tx, trained=trained)
  state = sharding.abstract_state(init_state, params_shape, mesh)
  shardings = jax.tree.map(lambda x: x.sharding, state)
  loss_fn = stage.make_loss(model_config, banned_ids)

  def fresh(key):
    return init_state(transformer.init_params(model_config, key))

  # Metrics are replicated, and the new state has the shardings of the old one, so that a second
  # step needs no second compilation.
  metrics = NamedSharding(mesh, PartitionSpec())
  step = jax.jit(
    train_step.make_train_step(
      loss_fn,
      tx,
      schedule,
      spike=config.faults.spike,
      seed=config.seed,
      trained=trained,
    ),
    donate_argnums=0,
    out_shardings=(shardings, metrics),
  )
  return Program(
    stage=stage,
    loss_fn=loss_fn,
    step=step,
    state=state,
    batch=_batch(config, stage, mesh),
    start=jax.jit(init_state, out_shardings=shardings),
    fresh=jax.jit(fresh, out_shardings=shardings),
    updates=stage.updates_per_batch,
  )


def _batch(config: ConfigDict, stage: Any, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of a batch of full rows."""
  sizes = {'batch': rows_of_microbatch(config), 'length': config.seq_len} | stage.axis_sizes

  def shape(field):
    place = NamedSharding(mesh, sharding.spec((None, *field.axes)))
    size = config.microbatches, *(sizes[axis] for axis in field.axes)
    return jax.ShapeDtypeStruct(size, jnp.dtype(field.dtype), sharding=place)

  return {name: shape(field) for name, field in stage.batch_fields.items()}
