"""The program of a training run: its step over a mesh, with the shapes and shardings of what goes
in and out.

It can be run, or compiled for devices that are not there: nothing here needs arrays.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict, FrozenConfigDict

from lm.model import adapters, transformer
from lm.model.attention import kernels
from lm.parallel import sharding
from lm.stages import pretrain, sft
from lm.stages.rl import policy_gradient
from lm.train import optimizers, train_step
from lm.weights import pretrained


@dataclasses.dataclass(frozen=True)
class Program:
  """A training step and what surrounds it. Shapes are jax.ShapeDtypeStructs with a sharding
  each.
  """

  loss_fn: train_step.LossFn
  step: Callable  # jitted: (state, batch, count) -> (state, metrics); the state is donated
  state: Any  # shapes of {params, opt_state, ...}, see common.init_state
  batch: dict[str, jax.ShapeDtypeStruct]  # [microbatches, rows, seq_len]
  start: Callable  # jitted: params -> state, laid out as `state`
  fresh: Callable  # jitted: key -> state, laid out as `state`
  updates: int  # on each batch


def make(
  config: ConfigDict,
  model_config: FrozenConfigDict,
  mesh: Mesh | AbstractMesh,
  banned_ids: Sequence[int] = (),
) -> Program:
  """Builds the program of `config.stage`; nothing is compiled and no array is made yet.

  Args:
    model_config: the model's.
    mesh: an abstract one will do for the shapes (lm/cost/estimate.py).
    banned_ids: of stage rl: tokens that the sampler never draws.

  Raises:
    UserError: an axis that the mesh does not divide, a large parameter that it does not split, an
      unknown name.
  """
  if isinstance(mesh, Mesh):
    kernels.check(model_config, mesh.devices.flat[0].platform)
  params_shape, axes = pretrained.abstract_params(model_config, mesh)
  inner = config.rl.inner_updates if config.stage == 'rl' else 1
  trained = adapters.trained(config.train.params, axes)
  tx, schedule = optimizers.make(config.optim, config.steps * inner, axes, trained)
  init_state = functools.partial(train_step.init_state, tx=tx, trained=trained)
  state = sharding.abstract_state(init_state, params_shape, mesh)
  shardings = jax.tree.map(lambda x: x.sharding, state)
  if config.stage == 'rl':
    loss_fn = policy_gradient.make_loss(model_config, config.loss, config.rl, banned_ids)
  else:
    loss_fn = {'pretrain': pretrain, 'sft': sft}[config.stage].make_loss(model_config, config.loss)

  def fresh(key):
    return init_state(transformer.init_params(model_config, key))

  # Metrics are everywhere, the new state lies as the old: a second step finds what the first was
  # compiled for.
  metrics = NamedSharding(mesh, PartitionSpec())
  step = jax.jit(
    train_step.make_train_step(loss_fn, tx, schedule, config.faults.spike, trained),
    donate_argnums=0,
    out_shardings=(shardings, metrics),
  )
  return Program(
    loss_fn,
    step,
    state,
    _batch(config, mesh),
    jax.jit(init_state, out_shardings=shardings),
    jax.jit(fresh, out_shardings=shardings),
    inner,
  )


def _batch(config: ConfigDict, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
  whole, real = ('inputs', 'targets'), ['weights']
  if config.stage == 'rl':
    real += ['old_log_probs', 'advantages', *(['reference_log_probs'] if config.rl.kl else [])]
  else:
    whole += ('positions', 'segment_ids')
  shape = config.microbatches, config.batch_size // config.microbatches, config.seq_len
  place = NamedSharding(mesh, sharding.spec((None, 'batch', 'length')))
  return {
    name: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
    for names, dtype in ((whole, jnp.int32), (real, jnp.float32))
    for name in names
  }
