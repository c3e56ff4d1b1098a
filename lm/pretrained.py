"""Models from checkpoints: the architecture comes with the weights, how to run it is the caller's choice."""

import dataclasses
import pathlib
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from lm import checkpoint, kernels, model, sharding
from lm.errors import UserError
from lm.files import Path

EXECUTION = ('param_dtype', 'dtype', 'scan_layers', 'remat', 'attention')  # fields that do not change what the weights mean


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A model read from disk."""

  config: FrozenConfigDict  # its `model` part
  params: Any
  axes: Any  # the names of each parameter's axes
  provenance: dict[str, Any]
  run: pathlib.Path  # the folder of the run that made it
  step: int

  @property
  def tokenizer(self) -> str:
    """Where its tokenizer is, as a `data.tokenizer` spec."""
    return str(self.run / 'tokenizer')


def adopt(config: ConfigDict, defaults: ConfigDict, stored: dict[str, Any]) -> FrozenConfigDict:
  """The architecture `stored` with a checkpoint, run as `config` says.

  Raises:
    UserError: a field that is not stored (the checkpoint is of another version), or an architecture field of `config` that
      was set (differs from `defaults`) to something else than is stored.
  """
  stored = FrozenConfigDict(stored).as_configdict()  # with tuples for JSON's lists
  if lacking := [field for field in defaults if field not in stored]:
    raise UserError(f'the checkpoint has no config.model.{lacking[0]}: another version of deepdive wrote it')
  for field, value in stored.items():
    if field not in EXECUTION and config[field] not in (value, defaults[field]):
      raise UserError(f'config.model.{field} is {config[field]!r}, but the checkpoint of config.init_from has {value!r}')
  return FrozenConfigDict(stored.to_dict() | {field: config[field] for field in EXECUTION})


def abstract_params(config: FrozenConfigDict, mesh: Mesh) -> tuple[Any, Any]:
  """(shapes with shardings, axis names) of a model's parameters, without making any."""
  boxed = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
  shardings = sharding.param_shardings(boxed, mesh)
  shapes = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), shardings)
  return shapes, sharding.axis_names(boxed)


def load(path: Path, execution: ConfigDict, defaults: ConfigDict, mesh: Mesh) -> Pretrained:
  """Reads the parameters of a checkpoint onto a mesh.

  Args:
    path: a step, run or recipe folder (`lm.checkpoint.locate`).
    execution: a `config.model` that says how to run it (and may repeat, not contradict, its architecture).
    defaults: `config.model` as configs/base.py has it.

  Raises:
    FileNotFoundError, UserError: no such checkpoint, a corrupt one, or one of another architecture.
  """
  folder = checkpoint.locate(path)
  config = adopt(execution, defaults, checkpoint.provenance(folder)['config']['model'])
  model.check(config)
  kernels.check(config, mesh.devices.flat[0].platform)
  shapes, axes = abstract_params(config, mesh)
  params, provenance = checkpoint.load_params(folder, shapes)
  return Pretrained(config, params, axes, provenance, folder.parent.parent, int(folder.name))
