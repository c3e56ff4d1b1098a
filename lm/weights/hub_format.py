"""Hugging Face folders: import of their weights and config into a run of ours, and export.

hub_folder.py reads such a folder, and hub_params.py has where our parameters are in it. Weights
keep their dtype: exporting what was imported gives the same bytes.
"""

import functools
import itertools
import logging
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base import config as config_lib
from lm.base import errors, files
from lm.base.errors import UserError
from lm.model import adapters, heads
from lm.weights import checkpoint_arrays, checkpoint_folders, families, hub_params, origin
from lm.weights.hub_folder import Source, tokenizer_files
from lm.weights.remote_tensors import DTYPES
from lm.weights.safetensors_writer import Writer

MAX_SHARD = 5 * 10**9  # The bytes of weights in one file, as transformers writes them.


def import_model(
  source: Source,
  path: files.Path,
  defaults: ConfigDict,
  fingerprint: Callable[[pathlib.Path], str],
  ignore: Iterable[str] = (),
) -> FrozenConfigDict:
  """Writes a run's folder with one checkpoint, of step 0, and the tokenizer's files.

  One parameter is in memory at a time.

  Args:
    path: a folder that does not exist.
    defaults: config.model as configs/base.py has it.
    fingerprint: returns the fingerprint of the tokenizer in a folder.
    ignore: fields of config.json that are ignored.

  Returns:
    The model's config.

  Raises:
    UserError: as `lm.weights.hub_params.open_params`; or the folder exists; or the source has no
      tokenizer.
  """
  path = files.as_path(path)
  if path.exists():
    raise UserError(field='DST', value=str(path), allowed='a folder that does not exist yet')
  if not any(name in source.tokenizer for name in ('tokenizer.json', 'tokenizer.model')):
    raise UserError(field=f'tokenizer.json or tokenizer.model in {source.path}')
  config = hub_params.model_config(source, defaults, ignore)
  layout = hub_params.open_params(source, config)
  types = {DTYPES[source.tensors[next(x.names())].dtype].name for x in layout.values()}
  config = FrozenConfigDict(
    config.to_dict() | {'param_dtype': types.pop() if len(types) == 1 else 'float32'}
  )
  with files.atomic_dir(path, last='checkpoints/0/digest.json') as folder:
    (folder / 'tokenizer').mkdir()
    for name, content in source.tokenizer.items():
      (folder / 'tokenizer' / name).write_bytes(content)
    provenance = {
      'config': {'model': config_lib.as_json(config)},
      'code': origin.code_version(),
      'data': None,
      'tokenizer': fingerprint(folder / 'tokenizer'),
      'init_from': None,
    } | source.provenance
    params: dict[str, Any] = {}
    for name, x in layout.items():
      *parents, leaf = name.split('/')
      tree = functools.reduce(lambda tree, key: tree.setdefault(key, {}), parents, params)
      whole = tuple(slice(0, size) for size in x.shape)
      tree[leaf] = checkpoint_arrays.Deferred(functools.partial(x.read, source.tensors, whole))
    (folder / 'checkpoints').mkdir()
    checkpoint_arrays.write_params(folder / 'checkpoints' / '0', params, provenance)
  return config


def _imported_config(provenance: Mapping[str, Any] | None) -> dict[str, Any] | None:
  """Returns the config.json that a checkpoint or its ancestor was imported with, or None.

  An ancestor is the checkpoint that its training started from.
  """
  while provenance:
    if provenance.get('hf_config'):
      return provenance['hf_config']
    provenance = provenance.get('init_from')
  return None


def export_model(
  path: files.Path,
  out: files.Path,
  defaults: ConfigDict,
  *,
  vocab_size: int,
  tokens: Mapping[str, int],
  max_shard_bytes: int = MAX_SHARD,
) -> None:
  """Writes a checkpoint as a folder that transformers reads.

  The folder has the config, the weights (in their dtype) and the tokenizer. Adapters are merged
  into the matrices that they adapt. A scalar head is left out, which is logged.

  Args:
    path: anything that `lm.weights.checkpoint_folders.locate` takes.
    out: a folder that does not exist.
    defaults: config.model as configs/base.py has it, for fields that the checkpoint does not have
      yet.
    vocab_size: that of the tokenizer. Rows of the vocabulary that a training run here added beyond
      it are left out; those of an imported model are all kept.
    tokens: `bos_token_id` and the like, for the config.json of a model that was trained here.
    max_shard_bytes: a larger model is split into several files.

  Raises:
    FileNotFoundError, UserError: there is no such checkpoint, it is corrupt, no family has its
      architecture, or the folder exists.
  """
  out = files.as_path(out)
  if out.exists():
    raise UserError(field='DST', value=str(out), allowed='a folder that does not exist yet')
  path = checkpoint_folders.locate(path)
  provenance = checkpoint_folders.provenance(path)
  types = checkpoint_arrays.params_metadata(path)
  config = FrozenConfigDict(config_lib.complete(provenance['config']['model'], defaults))
  imported = _imported_config(provenance)
  rows, trained = config.vocab_size, 'hf_config' not in provenance
  if trained:
    rows = min(rows, max(vocab_size, imported['vocab_size'] if imported else 0))
  family, hf = families.express(config.to_dict() | {'vocab_size': rows}, imported)
  if trained:
    hf |= tokens
  shapes = hub_params.shapes(config)
  for name in sorted(shapes.keys() | types.keys()):
    found, expected = types[name].shape if name in types else None, shapes.get(name)
    if found != expected:
      raise UserError(
        field=f'shape of params/{name} of checkpoint {path}',
        value=found,
        allowed=f'{expected}, by its provenance',
      )
  if heads.SCALAR in shapes:
    logging.warning('%s is not exported: transformers has no tensor for it', heads.SCALAR)
  layout = hub_params.layouts(family, FrozenConfigDict(config.to_dict() | {'vocab_size': rows}))
  dtypes = {name: _dtype_name(path, name, types[name].dtype) for name in layout}
  hf['dtype' if 'dtype' in hf else 'torch_dtype'] = DTYPES[dtypes['embedding']].name
  groups: dict[str, list[str]] = {}  # Parameters that share their tensors.
  for name, x in sorted(layout.items(), key=lambda item: item[1].tensor.part or 0):
    groups.setdefault(x.tensor.name, []).append(name)
  header = {
    tensor: (dtypes[group[0]], layout[group[0]].stored_shape)
    for group in groups.values()
    for tensor in layout[group[0]].names()
  }
  # This is the tokenizer_config.json of a tokenizer that has none.
  tokenizer = {'tokenizer_config.json': b'{"tokenizer_class": "PreTrainedTokenizerFast"}\n'}
  tokenizer |= tokenizer_files(path.parent.parent / 'tokenizer')
  with files.atomic_dir(out, last='config.json') as folder:
    files.write_json(folder / 'config.json', hf)
    for name, content in tokenizer.items():
      (folder / name).write_bytes(content)
    with Writer(folder, header, max_shard_bytes) as writer:
      for group in groups.values():
        params = _read_merged(path, config, group, types)
        one = layout[group[0]]
        for where in itertools.product(*map(range, one.shape[: one.lead])):
          # A group has three thirds of a tensor, or one parameter that is the whole.
          thirds = [layout[name].write_one(params[name], where) for name in group]
          writer.write(
            one.name(where), np.concatenate(thirds, -1) if len(thirds) > 1 else thirds[0]
          )


def _read_merged(
  path: files.AnyPath, config: FrozenConfigDict, group: list[str], types: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Returns some parameters of a checkpoint, with their adapters merged into them."""
  pairs = {name: adapters.pair_of(name) for name in group if name.endswith('/kernel')}
  adapted = {name: pair for name, pair in pairs.items() if pair[0] in types}
  params = checkpoint_arrays.read_params(path, [*group, *itertools.chain(*adapted.values())])
  for name, (a, b) in adapted.items():
    params[name] = adapters.merged(params[name], params[a], params[b], adapters.scale(config))
  return params


def _dtype_name(path: pathlib.Path, name: str, dtype: np.dtype) -> str:
  found = next((key for key, known in DTYPES.items() if known == dtype), None)
  if found is None:
    raise errors.unknown(
      f'dtype of params/{name} in checkpoint {path}', dtype, [d.name for d in DTYPES.values()]
    )
  return found
