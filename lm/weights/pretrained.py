"""Models from checkpoints: the checkpoint decides the architecture, the caller how to run it."""

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
from lm.weights import checkpoint_arrays, checkpoint_folders, hub_folder, hub_params, origin

# The fields of config.model that do not change what the weights mean: they are always the caller's.
EXECUTION = ('param_dtype', 'dtype', 'scan_layers', 'remat', 'attention', 'mlp_blocks')
# The fields that may differ from the checkpoint's, to continue at another context length. This is
# for models with rotary positions, whose weights fit any length.
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
# The fields that may differ from the checkpoint's because parameters are added, or merged into
# others; see `adopt` and `_extend`.
EXTENSIONS = ('heads', *adapters.FIELDS)
ROWS = 128  # A vocabulary that grows becomes a multiple of this.


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A model read from disk."""

  config: FrozenConfigDict  # The `model` part of its config.
  params: Any
  axes: Any  # The names of each parameter's axes.
  provenance: dict[str, Any]
  run: files.AnyPath  # The folder of the run that made it, or the Hugging Face folder.
  step: int
  tokenizer: str  # The location of its tokenizer, as a `data.tokenizers` spec.

  def check_tokenizer(self, fingerprint: str, allow: Collection[str] = ()) -> None:
    """Raises UserError if the run that made this model used another tokenizer.

    A Hugging Face folder has no record to compare with.

    Args:
      fingerprint: that of the tokenizer to be used.
      allow: what may differ (see `lm.weights.origin.check_provenance`).
    """
    if 'tokenizer' in self.provenance:
      origin.check_provenance(self.provenance, {'tokenizer': fingerprint}, allow)


def adopt(config: Tracked, defaults: ConfigDict, stored: dict[str, Any]) -> FrozenConfigDict:
  """Returns the architecture `stored` with a checkpoint, to be run as `config` says.

  The context length is the one that `config` chooses. A field that the checkpoint lacks was added
  later, and gets its default, which means "as before". Heads may be added. Adapters are the
  checkpoint's unless `config` chooses others, or none.

  Raises:
    UserError: a stored field is unknown, or `config` chooses another value for a field that the
      weights decide.
  """
  if more := sorted(stored.keys() - defaults.keys()):
    raise UserError(
      field=f'config.model.{more[0]} of the checkpoint',
      value=stored[more[0]],
      allowed='fields that this version knows',
    )
  # The completed config has tuples where JSON has lists.
  stored = FrozenConfigDict(config_lib.complete(stored, defaults))
  adopted = stored.to_dict()
  for field in sorted(config.chosen - set(EXECUTION)):
    value, found = config[field], adopted[field]
    if value == found or (field == 'vocab_size' and not value):  # 0 means the tokenizer's size.
      continue
    if field in CONTEXT and adopted['position'] == 'rope':
      adopted[field] = value
      continue
    if field in adapters.FIELDS or (field == 'heads' and set(value) >= set(found)):
      adopted[field] = value
      continue
    why = 'Its positions are a learned table.' if field in CONTEXT else ''
    raise UserError(
      field=f'config.model.{field}',
      value=value,
      allowed=f'{found!r}, which the checkpoint of config.init_from has',
      message=why,
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
      field='config.seq_len',
      value=config.seq_len,
      allowed=f'at most max_len of the model, {chosen.max_len}',
    )
  return chosen


def abstract_params(config: FrozenConfigDict, mesh: Mesh) -> tuple[Any, Any]:
  """Returns (shapes with shardings, axis names) of a model's parameters, without creating any."""
  boxed = transformer.abstract(config)
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
    path: a step, run or recipe folder (`lm.weights.checkpoint_folders.locate`), or a folder as
      transformers writes it (`lm.hf`).
    execution: a `config.model` that says how to run it; see `adopt` for what it may say of the
      architecture.
    defaults: `config.model` as configs/base.py has it.
    seed: the seed of the run, for parameters that begin fresh.

  Raises:
    FileNotFoundError, UserError: there is no such checkpoint, it is corrupt, or it has another
      architecture.
  """
  if hub_folder.is_folder(path):
    source = hub_folder.open_folder(path)
    stored, run, step, tokenizer = (
      hub_params.model_config(source, defaults).to_dict(),
      source.path,
      0,
      source.path,
    )
  else:
    source = checkpoint_folders.locate(path)
    stored, run, step = (
      checkpoint_folders.provenance(source)['config']['model'],
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
  if isinstance(source, hub_folder.Source):
    params, provenance = hub_params.load(source, config, shapes), source.provenance
  else:
    params, provenance = checkpoint_arrays.load_params(source, shapes)
  if config != stored_config:
    params, axes = _extend(params, stored_config, config, mesh, seed)
  return Pretrained(config, params, axes, provenance, run, step, str(tokenizer))


def _extend(
  params: Any, stored: FrozenConfigDict, config: FrozenConfigDict, mesh: Mesh, seed: int
) -> tuple[Any, Any]:
  """Returns (parameters, axis names) of the model `config`, made from those of `stored`.

  The two differ only in EXTENSIONS. Adapters that differ are merged, and new ones are created.
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

    def fresh(key):  # The compiler leaves out what is not selected.
      return select(transformer.init_params(config, key), missing)

    key = keys.derive(seed, 'initialization')
    params = join(params, jax.jit(fresh, out_shardings=shardings)(key))
  return params, axes


def grow(start: Pretrained, vocab_size: int, mesh: Mesh) -> Pretrained:
  """Returns the model with rows for at least `vocab_size` tokens.

  A model that has them already, used or spare, is returned as it is. A new row is the mean of the
  existing rows, in the output matrix too: a token that was never learned then gets no more than the
  average logit (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models").
  The number of rows becomes a multiple of ROWS, so that they still divide among devices.
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
