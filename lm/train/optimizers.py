"""Optimizers and learning-rate schedules from optax, with masks from parameter axis names."""

import functools
import math
import re
from collections.abc import Iterable
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from lm.base import config as config_lib
from lm.base.errors import UserError, unknown
from lm.model.param_rules import leaf_names, matches, matrix_sides, select
from lm.parallel.sharding import leaf_name

OPTIMIZERS = ('adamw', 'muon')
SCHEDULES = ('cosine', 'wsd', 'constant')


def make_schedule(config: ConfigDict, peak: float, steps: int) -> optax.Schedule:
  """Returns the learning rate by update: a linear warm-up to `peak`, then the chosen schedule.

  The schedules are cosine decay, stable then linear decay (WSD), and constant. A warm-up is cut to
  steps - 1 updates, so that the last update of the shortest run has the peak.

  Raises:
    UserError: an unknown schedule, a warm-up below 0, or no steps.
  """
  if steps < 1:
    raise UserError(field='config.steps', value=steps, allowed='at least 1')
  if config.warmup < 0:
    raise UserError(field='config.optim.warmup', value=config.warmup, allowed='at least 0')
  warmup, final = min(config.warmup, steps - 1), config.final_lr * peak
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
  # Update number 0 already changes the parameters: the ramp is 1/(w+1), 2/(w+1), ... of the peak
  # rather than 0, 1/w, ...
  ramp = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
  return optax.join_schedules([ramp, after], [warmup])


def decay_mask(axes: Any) -> Any:
  """Returns True for each parameter that weight decay applies to: the matrices.

  The names of a parameter's axes tell whether it is a matrix.
  """
  return jax.tree.map(lambda names: matrix_sides(names) is not None, axes, is_leaf=_is_names)


def muon_dimensions(axes: Any) -> Any:
  """Returns the (input, output) axes that Muon orthogonalizes, or None for AdamW's parameters.

  Muon takes the matrices inside the layers. The embedding and the head go to AdamW (K. Jordan,
  Muon, 2024), and so do adapters, one factor of which is 0 at first.
  """

  def one(names):
    taken = names[0] == 'layers' and 'lora' not in names
    sides = matrix_sides(names) if taken else None
    return sides and optax.contrib.MuonDimensionNumbers(*sides)

  return jax.tree.map(one, axes, is_leaf=_is_names)


def _is_names(x: Any) -> bool:
  return isinstance(x, tuple) and all(isinstance(name, str) for name in x)


def _as_masked(tree: Any, params: Any) -> Any:
  """Returns `tree` without the entries of parameters that another part of a partition has."""
  masked = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
  return jax.tree.map(lambda p, t: p if masked(p) else t, params, tree, is_leaf=masked)


def _muon(
  config: ConfigDict, schedule: optax.Schedule, adamw: optax.GradientTransformation, axes: Any
):
  """Returns an optimizer with Muon on the matrices of the layers and `adamw` on the rest.

  optax.contrib.muon has the same two parts, but its AdamW decays norms, biases and tables too and
  looks ahead (Nesterov).
  """
  dimensions = muon_dimensions(axes)
  is_entry = lambda d: d is None or isinstance(d, optax.contrib.MuonDimensionNumbers)  # noqa: E731
  labels = jax.tree.map(lambda d: 'adamw' if d is None else 'muon', dimensions, is_leaf=is_entry)
  numbers = jax.tree.map(
    lambda d: optax.MaskedNode() if d is None else d, dimensions, is_leaf=is_entry
  )

  def scale(updates, params):
    """Scales updates by the spectral norm that preserves the scale of what a matrix computes.

    The norm is sqrt(outputs / inputs), at least 1.
    """
    del params

    def one(d, x):
      outputs, inputs = (
        math.prod(x.shape[i] for i in axes) for axes in (d.output_axis, d.reduction_axis)
      )
      return x * max(1.0, outputs / inputs) ** 0.5

    return jax.tree.map(
      one, numbers, updates, is_leaf=lambda d: isinstance(d, optax.contrib.MuonDimensionNumbers)
    )

  muon = optax.chain(
    optax.contrib.scale_by_muon(weight_dimension_numbers=numbers),
    optax.stateless(scale),
    optax.add_decayed_weights(config.weight_decay),
    optax.scale_by_learning_rate(schedule),
  )
  return optax.partition({'muon': muon, 'adamw': adamw}, labels)


def rate_factors(rates: str, names: Iterable[str]) -> dict[str, float]:
  """Returns the factors of the learning rates of these parameters, where they are not 1.

  Args:
    rates: `config.optim.rates`: 'REGEX:FACTOR,...', of which the first that matches a name counts.
    names: of all parameters that are trained.

  Raises:
    UserError: an entry is not of this form, its factor is not above 0, or it matches no parameter.
  """
  names, factors = list(names), {}
  for entry in config_lib.names(rates):
    pattern, _, factor = entry.rpartition(':')
    if not (pattern and re.fullmatch(r'\d*\.?\d+([eE][+-]?\d+)?', factor) and float(factor) > 0):
      raise UserError(
        field='config.optim.rates',
        value=entry,
        allowed='REGEX:FACTOR with a factor above 0',
        message='Parameters that are not to be trained are named by config.train.params.',
      )
    for name in matches('config.optim.rates', pattern, names):
      factors.setdefault(name, float(factor))
  return factors


def _scale_by(factors: dict[str, float]) -> optax.GradientTransformation:
  """Multiplies the update of each named parameter by its factor."""

  def scale(updates, params):
    del params
    return jax.tree_util.tree_map_with_path(
      lambda path, x: x * factors[name] if (name := leaf_name(path)) in factors else x, updates
    )

  return optax.stateless(scale)


def make(
  config: ConfigDict, steps: int, axes: Any, trained: frozenset[str] | None = None
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Returns the optimizer of `config.optim` for `steps` updates, and its learning-rate schedule.

  The schedule is for the log.

  Args:
    axes: the axis names of every parameter (`lm.parallel.sharding.axis_names`).
    trained: the names of the parameters that are trained; None means all. The optimizer is given
      only these (`lm.model.param_rules.select`) and has no state for others.
  """
  if trained is not None:
    axes = select(axes, trained)
  schedule = make_schedule(config, config.lr, steps)
  adamw = optax.adamw(
    schedule,
    config.b1,
    config.b2,
    config.eps,
    weight_decay=config.weight_decay,
    mask=functools.partial(_as_masked, decay_mask(axes)),
  )
  if config.name == 'adamw':
    inner = adamw
  elif config.name == 'muon':
    inner = _muon(config, make_schedule(config, config.muon_lr, steps), adamw, axes)
  else:
    raise unknown('config.optim.name', config.name, OPTIMIZERS)
  clip = [optax.clip_by_global_norm(config.clip)] if config.clip else []
  factors = rate_factors(config.rates, leaf_names(axes))
  return optax.chain(*clip, inner, *([_scale_by(factors)] if factors else [])), schedule
