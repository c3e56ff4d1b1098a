"""Models from checkpoints: the architecture comes with the weights, how to run it is the caller's choice."""

import dataclasses
import pathlib
from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from lm import checkpoint, hf, kernels, model, sharding
from lm.errors import UserError
from lm.files import Path

# The fields that do not change what the weights mean.
EXECUTION = ('param_dtype', 'dtype', 'scan_layers', 'remat', 'attention', 'mlp_blocks')
ROWS = 128  # a vocabulary that grows becomes a multiple of it


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A model read from disk."""

  config: FrozenConfigDict  # its `model` part
  params: Any
  axes: Any  # the names of each parameter's axes
  provenance: dict[str, Any]
  run: pathlib.Path  # the folder of the run that made it, or the Hugging Face folder
  step: int
  tokenizer: str  # where its tokenizer is, as a `data.tokenizer` spec

  def check_tokenizer(self, fingerprint: str, allow: Collection[str] = ()) -> None:
    """Raises UserError if a run used another tokenizer than this. With a Hugging Face folder there is no record to compare."""
    if 'tokenizer' in self.provenance:
      checkpoint.check_provenance(self.provenance, {'tokenizer': fingerprint}, allow)


def adopt(config: ConfigDict, defaults: ConfigDict, stored: dict[str, Any]) -> FrozenConfigDict:
  """The architecture `stored` with a checkpoint, run as `config` says.

  Raises:
    UserError: a field that is not stored (the checkpoint is of another version), or an architecture field of `config` that
      was set (differs from `defaults`) to something else than is stored.
  """
  stored = FrozenConfigDict(stored).as_configdict()  # with tuples for JSON's lists
  if lacking := [field for field in defaults if field not in stored and field not in EXECUTION]:
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
  """Reads the parameters of a checkpoint, or of a Hugging Face folder, onto a mesh.

  Args:
    path: a step, run or recipe folder (`lm.checkpoint.locate`), or a folder as transformers writes it (`lm.hf`).
    execution: a `config.model` that says how to run it (and may repeat, not contradict, its architecture).
    defaults: `config.model` as configs/base.py has it.

  Raises:
    FileNotFoundError, UserError: no such checkpoint, a corrupt one, or one of another architecture.
  """
  if hf.is_folder(path):
    source = hf.open_folder(path)
    stored, run, step, tokenizer = hf.model_config(source, defaults).to_dict(), source.path, 0, source.path
  else:
    source = checkpoint.locate(path)
    stored, run, step = checkpoint.provenance(source)['config']['model'], source.parent.parent, int(source.name)
    tokenizer = run / 'tokenizer'
  config = adopt(execution, defaults, stored)
  model.check(config)
  kernels.check(config, mesh.devices.flat[0].platform)
  shapes, axes = abstract_params(config, mesh)
  if isinstance(source, hf.Source):
    params, provenance = hf.load(source, config, shapes), source.provenance
  else:
    params, provenance = checkpoint.load_params(source, shapes)
  return Pretrained(config, params, axes, provenance, run, step, str(tokenizer))


def grow(start: Pretrained, vocab_size: int, mesh: Mesh) -> Pretrained:
  """The model with rows for at least `vocab_size` tokens; as it is where it has them, used or spare.

  A new row is the mean of the rows that are there, in the output matrix too: a token that was never learned then gets no
  more than the average logit (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models"). The number of
  rows becomes a multiple of ROWS, so that they still divide among devices.
  """
  old = start.config.vocab_size
  if vocab_size <= old:
    return start
  config = FrozenConfigDict(start.config.to_dict() | {'vocab_size': -(-vocab_size // ROWS) * ROWS})
  shapes = abstract_params(config, mesh)[0]

  def extend(table_VD):
    mean_D = jnp.mean(table_VD, axis=0, dtype=jnp.float32).astype(table_VD.dtype)
    return jnp.concatenate([table_VD, jnp.broadcast_to(mean_D, (config.vocab_size - old, len(mean_D)))])

  tables = {name: jax.jit(extend, out_shardings=shapes[name].sharding)(start.params[name])
            for name in ('embedding', 'head') if name in start.params}
  return dataclasses.replace(start, config=config, params={**start.params, **tables})
