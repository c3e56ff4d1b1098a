"""Models from checkpoints: the architecture comes with the weights, how to run it is the caller's
choice.
"""

import dataclasses
import functools
import logging
from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base import config as config_lib
from lm.base import files
from lm.base.config import Tracked
from lm.base.errors import UserError
from lm.model import adapters, transformer
from lm.model.attention import kernels
from lm.model.param_rules import join, leaf_names, select
from lm.parallel import keys, sharding
from lm.weights import checkpoint, hub_format

# The fields of config.model that do not change what the weights mean: they are always the caller's.
EXECUTION = ('param_dtype', 'dtype', 'scan_layers', 'remat', 'attention', 'mlp_blocks')
# Those that may be set to something else than the checkpoint has, to go on at another context
# length: of models with rotary positions, whose weights fit any.
CONTEXT = (
  'max_len',
  'rope_theta',
  'rope_theta_window',
  'rope_scaling',
  'rope_factor',
  'rope_low_freq_factor',
  'rope_high_freq_factor',
  'rope_original_len',
)
# Those that may be set to something else than the checkpoint has because parameters are added, or
# merged into others; see `adopt` and `_extend`.
EXTENSIONS = ('heads', *adapters.FIELDS)
ROWS = 128  # a vocabulary that grows becomes a multiple of it


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A model read from disk."""

  config: FrozenConfigDict  # its `model` part
  params: Any
  axes: Any  # the names of each parameter's axes
  provenance: dict[str, Any]
  run: files.AnyPath  # the folder of the run that made it, or the Hugging Face folder
  step: int
  tokenizer: str  # where its tokenizer is, as a `data.tokenizer` spec

  def check_tokenizer(self, fingerprint: str, allow: Collection[str] = ()) -> None:
    """Raises UserError if a run used another tokenizer than this. With a Hugging Face folder there
    is no record to compare.
    """
    if 'tokenizer' in self.provenance:
      checkpoint.check_provenance(self.provenance, {'tokenizer': fingerprint}, allow)


def adopt(config: Tracked, defaults: ConfigDict, stored: dict[str, Any]) -> FrozenConfigDict:
  """The architecture `stored` with a checkpoint, run as `config` says, at the context it chooses.

  A field that the checkpoint lacks was added later, and gets its default, which means "as before".
  Heads may be added. Adapters are the checkpoint's unless `config` chooses others, or none.

  Raises:
    UserError: a field is stored that we do not know, or `config` chooses another value for one that
      the weights decide.
  """
  if more := sorted(stored.keys() - defaults.keys()):
    raise UserError(f'the checkpoint has config.model.{more[0]}, which this version does not know')
  stored = FrozenConfigDict(config_lib.complete(stored, defaults))  # with tuples for JSON's lists
  adopted = stored.to_dict()
  for field in sorted(config.chosen - set(EXECUTION)):
    value, found = config[field], adopted[field]
    if value == found or (field == 'vocab_size' and not value):  # 0: the tokenizer's
      continue
    if field in CONTEXT and adopted['position'] == 'rope':
      adopted[field] = value
      continue
    if field in adapters.FIELDS or (field == 'heads' and set(value) >= set(found)):
      adopted[field] = value
      continue
    why = ', and its positions are a learned table' if field in CONTEXT else ''
    raise UserError(
      f'config.model.{field} is {value!r}, but the checkpoint of config.init_from has '
      f'{found!r}{why}'
    )
  return FrozenConfigDict(adopted | {field: config[field] for field in EXECUTION})


def model_config(config: ConfigDict, start: Pretrained | None, vocab_size: int) -> FrozenConfigDict:
  """Returns the model of a training config: that of `start`, or a new one of `vocab_size` ids.

  Raises:
    UserError: its context is shorter than the rows of the config.
  """
  chosen = start.config if start else transformer.sized(config.model, vocab_size)
  if config.seq_len > chosen.max_len:
    raise UserError(
      f'config.seq_len is {config.seq_len}; the model reads at most max_len = {chosen.max_len} '
      'tokens'
    )
  return chosen


def abstract_params(config: FrozenConfigDict, mesh: Mesh) -> tuple[Any, Any]:
  """(shapes with shardings, axis names) of a model's parameters, without making any."""
  boxed = jax.eval_shape(lambda: transformer.init(config, jax.random.key(0)))
  shardings = sharding.param_shardings(boxed, mesh)
  shapes = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), shardings
  )
  return shapes, sharding.axis_names(boxed)


def load(
  path: files.Path, execution: Tracked, defaults: ConfigDict, mesh: Mesh, seed: int = 0
) -> Pretrained:
  """Reads the parameters of a checkpoint, or of a Hugging Face folder, onto a mesh.

  Heads and adapters that `execution` asks for and the checkpoint lacks begin fresh, which is
  logged; adapters of the checkpoint that are not to be kept are merged into their matrices.

  Args:
    path: a step, run or recipe folder (`lm.weights.checkpoint.locate`), or a folder as transformers writes
      it (`lm.hf`).
    execution: a `config.model` that says how to run it; see `adopt` for what it may say of the
      architecture.
    defaults: `config.model` as configs/base.py has it.
    seed: of the run, for what begins fresh.

  Raises:
    FileNotFoundError, UserError: no such checkpoint, a corrupt one, or one of another architecture.
  """
  if hub_format.is_folder(path):
    source = hub_format.open_folder(path)
    stored, run, step, tokenizer = (
      hub_format.model_config(source, defaults).to_dict(),
      source.path,
      0,
      source.path,
    )
  else:
    source = checkpoint.locate(path)
    stored, run, step = (
      checkpoint.provenance(source)['config']['model'],
      source.parent.parent,
      int(source.name),
    )
    tokenizer = run / 'tokenizer'
  config = adopt(execution, defaults, stored)
  transformer.check(config)
  kernels.check(config, mesh.devices.flat[0].platform)
  stored = config_lib.complete(stored, defaults)
  stored_config = FrozenConfigDict(config.to_dict() | {name: stored[name] for name in EXTENSIONS})
  shapes, axes = abstract_params(stored_config, mesh)
  if isinstance(source, hub_format.Source):
    params, provenance = hub_format.load(source, config, shapes), source.provenance
  else:
    params, provenance = checkpoint.load_params(source, shapes)
  if config != stored_config:
    params, axes = _extend(params, stored_config, config, mesh, seed)
  return Pretrained(config, params, axes, provenance, run, step, str(tokenizer))


def _extend(
  params: Any, stored: FrozenConfigDict, config: FrozenConfigDict, mesh: Mesh, seed: int
) -> tuple[Any, Any]:
  """(parameters, axis names) of the model `config`, out of the parameters of the model `stored`.

  They differ in EXTENSIONS alone. Adapters that are not the same are merged and made anew.
  """
  if stored.lora_rank and any(stored[field] != config[field] for field in adapters.FIELDS):
    logging.warning('the adapters of the checkpoint are merged into the matrices they adapt')
    plain = FrozenConfigDict(stored.to_dict() | {'lora_rank': 0})
    shardings = jax.tree.map(lambda x: x.sharding, abstract_params(plain, mesh)[0])
    merge = functools.partial(adapters.merge, factor=adapters.scale(stored))
    params = jax.jit(merge, out_shardings=shardings)(params)
  shapes, axes = abstract_params(config, mesh)
  missing = frozenset(leaf_names(shapes)) - frozenset(leaf_names(params))
  if missing:
    logging.warning(
      'parameters that the checkpoint lacks begin fresh: %s', ', '.join(sorted(missing))
    )
    shardings = jax.tree.map(lambda x: x.sharding, select(shapes, missing))

    def fresh(key):  # the compiler leaves out what is not selected
      return select(transformer.init_params(config, key), missing)

    key = keys.derive(seed, 'initialization')
    params = join(params, jax.jit(fresh, out_shardings=shardings)(key))
  return params, axes


def grow(start: Pretrained, vocab_size: int, mesh: Mesh) -> Pretrained:
  """The model with rows for at least `vocab_size` tokens; as it is where it has them, used or
  spare.

  A new row is the mean of the rows that are there, in the output matrix too: a token that was never
  learned then gets no more than the average logit (Hewitt 2021, "Initializing New Word Embeddings
  for Pretrained Language Models"). The number of rows becomes a multiple of ROWS, so that they
  still divide among devices.
  """
  old = start.config.vocab_size
  if vocab_size <= old:
    return start
  config = FrozenConfigDict(start.config.to_dict() | {'vocab_size': -(-vocab_size // ROWS) * ROWS})
  shapes = abstract_params(config, mesh)[0]

  def extend(table_VD):
    mean_D = jnp.mean(table_VD, axis=0, dtype=jnp.float32).astype(table_VD.dtype)
    return jnp.concatenate(
      [table_VD, jnp.broadcast_to(mean_D, (config.vocab_size - old, len(mean_D)))]
    )

  tables = {
    name: jax.jit(extend, out_shardings=shapes[name].sharding)(start.params[name])
    for name in ('embedding', 'head')
    if name in start.params
  }
  return dataclasses.replace(start, config=config, params={**start.params, **tables})
