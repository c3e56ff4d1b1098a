"""Optimizers and learning-rate schedules from optax, with masks made from the names of the parameters' axes."""

from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from lm.errors import UserError, unknown

OPTIMIZERS = ('adamw', 'muon')
SCHEDULES = ('cosine', 'wsd', 'constant')


def make_schedule(config: ConfigDict, peak: float, steps: int) -> optax.Schedule:
  """Learning rate by update: linear warm-up to `peak`, then cosine decay, or stable then linear decay (WSD), or constant.

  Raises:
    UserError: an unknown schedule, or a warm-up as long as the whole run.
  """
  warmup, final = config.warmup, config.final_lr * peak
  if warmup >= steps:
    raise UserError(f'config.optim.warmup is {warmup} updates; it must be below the run\'s {steps}')
  if config.schedule == 'cosine':
    after = optax.cosine_decay_schedule(peak, steps - warmup, config.final_lr)
  elif config.schedule == 'wsd':
    decay = min(max(1, round(config.decay * steps)), steps - warmup)
    parts = [optax.constant_schedule(peak), optax.linear_schedule(peak, final, decay)]
    after = optax.join_schedules(parts, [steps - warmup - decay])
  elif config.schedule == 'constant':
    after = optax.constant_schedule(peak)
  else:
    raise unknown('config.optim.schedule', config.schedule, SCHEDULES)
  # Update number 0 already moves: the ramp is 1/(w+1), 2/(w+1), ... of the peak rather than 0, 1/w, ...
  ramp = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
  return optax.join_schedules([ramp, after], [warmup])


def matrix_axes(names: tuple[str, ...]) -> tuple[int, ...]:
  """Positions of the axes that make a parameter a matrix (two or more of them) rather than a vector or a table."""
  if 'positions' in names or 'embed' not in names:  # the bias of a query has two axes, heads and head_dim: no matrix
    return ()
  return tuple(i for i, name in enumerate(names) if name != 'layers')


def decay_mask(axes: Any) -> Any:
  """True for the parameters that weight decay applies to: matrices, told by their axis names."""
  return jax.tree.map(lambda names: len(matrix_axes(names)) > 1, axes, is_leaf=_is_names)


def muon_dimensions(axes: Any) -> Any:
  """For each parameter the (input, output) axes that Muon orthogonalises between, or None for AdamW's parameters.

  Muon takes the matrices inside the layers; the embedding and the head go to AdamW (K. Jordan, Muon, 2024).
  """

  def one(names):
    matrix = matrix_axes(names)
    if names[0] != 'layers' or len(matrix) < 2:
      return None
    split = 1 if names[matrix[0]] == 'embed' else len(matrix) - 1  # embed is all of the input or all of the output
    return optax.contrib.MuonDimensionNumbers(matrix[:split], matrix[split:])

  return jax.tree.map(one, axes, is_leaf=_is_names)


def _is_names(x: Any) -> bool:
  return isinstance(x, tuple) and all(isinstance(name, str) for name in x)


def make(config: ConfigDict, steps: int, axes: Any) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """The optimizer of `config.optim` for a run of `steps` updates, and its learning-rate schedule (for the log).

  Args:
    axes: the axis names of every parameter (`lm.sharding.axis_names`).
  """
  schedule = make_schedule(config, config.lr, steps)
  if config.name == 'adamw':
    inner = optax.adamw(schedule, config.b1, config.b2, config.eps, weight_decay=config.weight_decay,
                        mask=decay_mask(axes))
  elif config.name == 'muon':
    inner = optax.contrib.muon(
      make_schedule(config, config.muon_lr, steps), adam_learning_rate=schedule, adam_b1=config.b1, adam_b2=config.b2,
      eps=config.eps, weight_decay=config.weight_decay, adam_weight_decay=config.weight_decay,
      weight_decay_mask=decay_mask(axes), muon_weight_dimension_numbers=muon_dimensions(axes),
    )
  else:
    raise unknown('config.optim.name', config.name, OPTIMIZERS)
  clip = [optax.clip_by_global_norm(config.clip)] if config.clip else []
  return optax.chain(*clip, inner), schedule
