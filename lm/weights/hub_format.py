"""Hugging Face folders: import of their weights and config into a run of ours, and export.

The names of each family's fields and tensors are in lm/weights/families. Weights are read only from
safetensors files (a pickle can run code), tensor by tensor, and keep their dtype: exporting what
was imported gives the same bytes.
"""

import dataclasses
import functools
import itertools
import json
import logging
import math
import os
import pathlib
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import safetensors
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base import buckets, errors, files
from lm.base import config as config_lib
from lm.base.errors import UserError
from lm.model import adapters, heads, transformer
from lm.parallel import sharding
from lm.weights import checkpoint, families, remote_tensors
from lm.weights.families import Family, Tensor

Index = tuple[slice, ...]

DTYPES = remote_tensors.DTYPES
SINGLE, SHARDED = 'model.safetensors', 'model.safetensors.index.json'
TOKENIZER_FILES = (
  'tokenizer.json',
  'tokenizer.model',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'generation_config.json',
)
MAX_SHARD = 5 * 10**9  # The bytes of weights in one file, as transformers writes them.
ROWS = 4096  # The rows of a matrix that are compared at a time.


# ---- Sources of weights --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Stored:
  """A tensor that is stored somewhere.

  `read` returns a part of it, given one slice (of step 1) for each axis.
  """

  dtype: str  # The name in safetensors; DTYPES has those that weights may have.
  shape: tuple[int, ...]
  read: Callable[[Index], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
  """A model as Hugging Face's transformers stores it, wherever it comes from.

  Attributes:
    path: where it comes from.
    config: its config.json.
    tensors: its tensors, by their names in transformers.
    tokenizer: the content of each of TOKENIZER_FILES that exists.
    files: the config.json and the files that hold the weights.
  """

  path: files.AnyPath
  config: dict[str, Any]
  tensors: Mapping[str, Stored]
  tokenizer: Mapping[str, bytes]
  files: tuple[files.AnyPath, ...]

  @property
  def provenance(self) -> dict[str, Any]:
    """Returns what a checkpoint made of it records: where it is from, and its files' digests."""
    digests = {path.name: files.sha256(path) for path in self.files}
    return {'source': {'path': str(self.path), 'files': digests}, 'hf_config': self.config}


def is_folder(path: files.Path) -> bool:
  """Returns whether this is a folder as transformers writes it, rather than one of ours."""
  config = files.as_path(path) / 'config.json'  # A run of ours has one too.
  return config.is_file() and not {'architectures', 'model_type'}.isdisjoint(
    files.read_json(config)
  )


def open_folder(path: files.Path) -> Source:
  """Returns the model in a Hugging Face folder; no weights are read yet.

  Raises:
    FileNotFoundError, UserError: a file is missing or malformed; the message names it.
  """
  path = files.absolute(path)
  config = files.read_json(path / 'config.json')
  if not isinstance(config, dict):
    raise UserError(f'{path / "config.json"} is not a JSON object')
  weights = _weight_files(path)
  tensors: dict[str, Stored] = {}
  for file in weights:
    if buckets.is_url(file):
      tensors |= {
        name: Stored(dtype, shape, read)
        for name, (dtype, shape, read) in remote_tensors.tensors(file).items()
      }
      continue
    try:
      with safetensors.safe_open(file, 'np') as opened:
        for name in opened.keys():  # noqa: SIM118  not a mapping
          part = opened.get_slice(name)
          tensors[name] = Stored(
            part.get_dtype(), tuple(part.get_shape()), functools.partial(_read_file, file, name)
          )
    except safetensors.SafetensorError as error:
      raise UserError(f'{file} is not a safetensors file: {error}') from error
  return Source(path, config, tensors, tokenizer_files(path), (path / 'config.json', *weights))


def tokenizer_files(path: files.AnyPath) -> dict[str, bytes]:
  """Returns the content of those of TOKENIZER_FILES that a folder has."""
  return {name: (path / name).read_bytes() for name in TOKENIZER_FILES if (path / name).is_file()}


def _weight_files(path: files.AnyPath) -> list[files.AnyPath]:
  if (path / SINGLE).is_file():
    return [path / SINGLE]
  if (path / SHARDED).is_file():
    index = files.read_json(path / SHARDED)
    if not isinstance(index, dict) or not isinstance(index.get('weight_map'), dict):
      raise UserError(f'{path / SHARDED} has no object "weight_map"')
    weights = index['weight_map'].values()
    return sorted({files.within(path, name, path / SHARDED) for name in weights})
  pickles = sorted(p.name for p in path.iterdir() if p.suffix in ('.bin', '.pt', '.pth', '.ckpt'))
  hint = (
    f'; {pickles[0]} is a pickle, which can run code and is not read: convert it to safetensors'
    if pickles
    else ''
  )
  raise UserError(f'{path} has neither {SINGLE} nor {SHARDED}{hint}')


def _read_file(file: pathlib.Path, name: str, index: Index) -> np.ndarray:
  # The file is opened for each read, because the pages of a file that stays open count as memory of
  # this process.
  with safetensors.safe_open(file, 'np') as opened:
    return opened.get_slice(name)[index]


# ---- Our parameters out of their tensors ---------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Layout:
  """One of our parameters, and where its parts are stored."""

  tensor: Tensor
  shape: tuple[int, ...]  # Our shape, with the axes of layers and experts.

  def __post_init__(self):
    assert len(self.tensor.axes) == len(self.shape), f'{self.tensor} does not fit {self.shape}'

  @property
  def lead(self) -> int:
    """The number of our axes that count tensors."""
    return len(self.tensor.axes) - len(self.tensor.layout.split(' -> ')[0])

  @property
  def sizes(self) -> dict[str, int]:
    return dict(zip(self.tensor.axes, self.shape, strict=True))

  @property
  def stored_shape(self) -> tuple[int, ...]:
    """The shape of each stored tensor."""
    shape = [math.prod(self.sizes[axis] for axis in group) for group in self.tensor.stored]
    if self.tensor.part is not None:
      shape[-1] *= 3
    return tuple(shape)

  def name(self, where: tuple[int, ...]) -> str:
    """Returns the name of the tensor of one layer, or of one expert in one layer."""
    return self.tensor.name.format(**dict(zip('le', where, strict=False)))

  def names(self) -> Iterator[str]:
    """Returns the names of all its tensors."""
    return map(self.name, itertools.product(*map(range, self.shape[: self.lead])))

  def read(self, tensors: Mapping[str, Stored], index: Index) -> np.ndarray:
    """Returns a part of the parameter, in its stored dtype; no other part is read."""
    index = tuple(slice(*s.indices(size)[:2]) for s, size in zip(index, self.shape, strict=True))
    first = tensors[next(self.names())]
    out = np.empty([s.stop - s.start for s in index], DTYPES[first.dtype])
    for where in itertools.product(*(range(s.start, s.stop) for s in index[: self.lead])):
      place = tuple(i - s.start for i, s in zip(where, index, strict=False))
      out[place] = self._read_one(tensors[self.name(where)], index[self.lead :])
    return out

  def _read_one(self, stored: Stored, index: Index) -> np.ndarray:
    axes = self.tensor.layout.split(' -> ')[0]
    at, sizes = dict(zip(axes, index, strict=True)), self.sizes
    rows, shape, within = [], [], []
    # Of joined axes, whole ranges of the first are read, and then cut.
    for group in self.tensor.stored:
      inner = math.prod(sizes[axis] for axis in group[1:])
      rows.append(slice(at[group[0]].start * inner, at[group[0]].stop * inner))
      shape += [at[group[0]].stop - at[group[0]].start, *(sizes[axis] for axis in group[1:])]
      within += [slice(None), *(at[axis] for axis in group[1:])]
    if self.tensor.part is not None:
      offset = self.tensor.part * stored.shape[-1] // 3
      rows[-1] = slice(rows[-1].start + offset, rows[-1].stop + offset)
    order = ''.join(self.tensor.stored)
    part = stored.read(tuple(rows)).reshape(shape)[tuple(within)]
    return part.transpose([order.index(axis) for axis in axes])

  def write_one(self, ours: np.ndarray, where: tuple[int, ...]) -> np.ndarray:
    """Returns the whole stored form of the part of the parameter that one tensor holds.

    The parameter may have more rows for tokens than the tensor.
    """
    axes, order = self.tensor.layout.split(' -> ')[0], ''.join(self.tensor.stored)
    shape = [math.prod(self.sizes[axis] for axis in group) for group in self.tensor.stored]
    ours = ours[where][: self.sizes['V']] if 'V' in axes else ours[where]
    return ours.transpose([axes.index(axis) for axis in order]).reshape(shape)


def _shapes(config: FrozenConfigDict) -> dict[str, tuple[int, ...]]:
  """Returns the shape of each parameter of a model, by its slash-separated name."""
  abstract = nn.unbox(jax.eval_shape(lambda: transformer.init(config, jax.random.key(0))))
  leaves = jax.tree_util.tree_leaves_with_path(abstract)
  return {sharding.leaf_name(path): x.shape for path, x in leaves}


def layouts(family: Family, config: FrozenConfigDict) -> dict[str, Layout]:
  """Returns where each parameter of a model is stored, by its slash-separated name.

  Adapters and the scalar head have no tensors there and are left out.
  """
  named = _shapes(FrozenConfigDict(config.to_dict() | {'heads': ('vocabulary',), 'lora_rank': 0}))
  if unknown := sorted(named.keys() - family.tensors):
    raise UserError(
      f'our parameter {unknown[0]!r} has no tensor in {family.architecture} (lm/weights/families)'
    )
  return {name: Layout(family.tensors[name], shape) for name, shape in named.items()}


def _without_prefix(
  family: Family, layout: dict[str, Layout], tensors: Mapping[str, Stored]
) -> dict[str, Layout]:
  """Returns `layout` with the names that the files use.

  The names in files that were saved from the model without its output head lack the first part.
  """
  if any(name.startswith(family.prefix) for name in tensors):
    return layout

  def shorten(tensor: Tensor) -> Tensor:
    return dataclasses.replace(tensor, name=tensor.name.removeprefix(family.prefix))

  return {ours: dataclasses.replace(x, tensor=shorten(x.tensor)) for ours, x in layout.items()}


def check(source: Source, family: Family, layout: dict[str, Layout]) -> None:
  """Raises UserError, naming the tensor, where the tensors do not fit the model.

  A tensor may be missing, not belong to this model, or have the wrong shape or dtype.
  """
  wanted = {name: x.stored_shape for x in layout.values() for name in x.names()}
  for name, shape in wanted.items():
    stored = source.tensors.get(name)
    if stored is None:
      raise UserError(
        f'{source.path}: tensor {name!r} is missing; {family.architecture} with this config.json '
        'has it'
      )
    if stored.shape != shape:
      found, expected = list(stored.shape), list(shape)
      raise UserError(
        f'{source.path}: tensor {name!r} is {found}; with this config.json it should be {expected}'
      )
    if stored.dtype not in DTYPES:
      raise UserError(
        f'{source.path}: tensor {name!r} is of type {stored.dtype}; allowed: {", ".join(DTYPES)}'
      )
  for ours, x in layout.items():
    if len(types := {source.tensors[name].dtype for name in x.names()}) > 1:
      raise UserError(
        f'{source.path}: the tensors of {ours} have the types {", ".join(sorted(types))}; all must '
        'have one'
      )
  for name in sorted(source.tensors.keys() - wanted):
    if re.fullmatch(family.buffers, name):
      continue
    if name != 'lm_head.weight' or 'head' in layout:
      raise UserError(
        f'{source.path}: tensor {name!r} is not one of {family.architecture} with this config.json'
      )
    _check_tied(source, name, next(layout['embedding'].names()))


def _check_tied(source: Source, head: str, embedding: str) -> None:
  """Raises UserError unless a tied head that is stored beside the embedding equals it."""
  a, b = source.tensors[head], source.tensors[embedding]
  same = a.shape == b.shape and a.dtype == b.dtype
  for start in range(0, a.shape[0] if same else 0, ROWS):
    rows = (slice(start, min(start + ROWS, a.shape[0])), slice(0, a.shape[1]))
    same = same and a.read(rows).tobytes() == b.read(rows).tobytes()
  if not same:
    raise UserError(
      f'{source.path}: tie_word_embeddings is true, but {head!r} is not the same as {embedding!r}'
    )


def model_config(
  source: Source, defaults: ConfigDict, ignore: Iterable[str] = ()
) -> FrozenConfigDict:
  """Returns the checked config.model of a source.

  Args:
    defaults: config.model as configs/base.py has it; it says how to run the model.
    ignore: see `lm.weights.families.Family.read`.

  Raises:
    UserError: its config.json has a field that we cannot run; the message names it.
  """
  try:
    architecture = families.of(source.config).read(source.config, ignore)
  except UserError as error:
    raise UserError(f'{source.path}: {error}') from error
  config = FrozenConfigDict(defaults.to_dict() | architecture)
  transformer.check(config)
  return config


def open_params(source: Source, config: FrozenConfigDict) -> dict[str, Layout]:
  """Returns where the parameters of a model are in a source, after checking every tensor."""
  family = families.of(source.config)
  layout = _without_prefix(family, layouts(family, config), source.tensors)
  check(source, family, layout)
  return layout


def load(source: Source, config: FrozenConfigDict, abstract_params: Any) -> Any:
  """Reads parameters straight onto their devices, each of which reads its own parts.

  Args:
    config: the result of `model_config`.
    abstract_params: a jax.ShapeDtypeStruct with a sharding for each parameter; a parameter that is
      stored in another floating-point type is cast.

  Raises:
    UserError: as `check`.
  """
  layout = open_params(source, config)

  def one(path, x):
    at = layout[sharding.leaf_name(path)]
    parts: dict[str, np.ndarray] = {}  # Several devices may hold the same part.

    def read(index):
      key = str(index)
      if key not in parts:
        parts[key] = at.read(source.tensors, index).astype(x.dtype, copy=False)
      return parts[key]

    return jax.make_array_from_callback(x.shape, x.sharding, read).block_until_ready()

  return jax.tree_util.tree_map_with_path(one, abstract_params)


# ---- Import --------------------------------------------------------------------------------------


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
    UserError: as `open_params`; or the folder exists; or the source has no tokenizer.
  """
  path = files.as_path(path)
  if path.exists():
    raise UserError(f'{path} exists; nothing is overwritten')
  if not any(name in source.tokenizer for name in ('tokenizer.json', 'tokenizer.model')):
    raise UserError(f'{source.path} has neither tokenizer.json nor tokenizer.model')
  config = model_config(source, defaults, ignore)
  layout = open_params(source, config)
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
      'code': checkpoint.code_version(),
      'data': None,
      'tokenizer': fingerprint(folder / 'tokenizer'),
      'init_from': None,
    } | source.provenance
    params: dict[str, Any] = {}
    for name, x in layout.items():
      *parents, leaf = name.split('/')
      tree = functools.reduce(lambda tree, key: tree.setdefault(key, {}), parents, params)
      whole = tuple(slice(0, size) for size in x.shape)
      tree[leaf] = checkpoint.Deferred(functools.partial(x.read, source.tensors, whole))
    (folder / 'checkpoints').mkdir()
    checkpoint.write_params(folder / 'checkpoints' / '0', params, provenance)
  return config


# ---- Export --------------------------------------------------------------------------------------


def origin(provenance: Mapping[str, Any] | None) -> dict[str, Any] | None:
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
    path: anything that `lm.weights.checkpoint.locate` takes.
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
    raise UserError(f'{out} exists; nothing is overwritten')
  path = checkpoint.locate(path)
  provenance = checkpoint.provenance(path)
  types = checkpoint.params_metadata(path)
  config = FrozenConfigDict(config_lib.complete(provenance['config']['model'], defaults))
  imported = origin(provenance)
  rows, trained = config.vocab_size, 'hf_config' not in provenance
  if trained:
    rows = min(rows, max(vocab_size, imported['vocab_size'] if imported else 0))
  family, hf = families.express(config.to_dict() | {'vocab_size': rows}, imported)
  if trained:
    hf |= tokens
  shapes = _shapes(config)
  for name in sorted(shapes.keys() | types.keys()):
    if name not in shapes or name not in types or types[name].shape != shapes[name]:
      raise UserError(
        f'checkpoint {path}: params/{name} is not a parameter of the model that its provenance '
        'describes'
      )
  if heads.SCALAR in shapes:
    logging.warning('%s is not exported: transformers has no tensor for it', heads.SCALAR)
  layout = layouts(family, FrozenConfigDict(config.to_dict() | {'vocab_size': rows}))
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
    with _Writer(folder, header, max_shard_bytes) as writer:
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
  params = checkpoint.read_params(path, [*group, *itertools.chain(*adapted.values())])
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


class _Writer:
  """Writes safetensors files whose tensors come in any order, one in memory at a time.

  The format (huggingface.co/docs/safetensors) is the length of a JSON header in 8 bytes, the
  header, and the tensors. The library can write only whole files.
  """

  def __init__(
    self, folder: pathlib.Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], max_bytes: int
  ):
    sizes = {
      name: math.prod(shape) * DTYPES[dtype].itemsize for name, (dtype, shape) in tensors.items()
    }
    shards: list[list[str]] = [[]]
    for name in sorted(sizes, key=_by_layer):
      if shards[-1] and sum(map(sizes.get, shards[-1])) + sizes[name] > max_bytes:
        shards.append([])
      shards[-1].append(name)
    names = [SINGLE]
    if len(shards) > 1:
      names = [f'model-{i:05}-of-{len(shards):05}.safetensors' for i in range(1, len(shards) + 1)]
      where = {
        tensor: name for name, shard in zip(names, shards, strict=True) for tensor in sorted(shard)
      }
      files.write_json(
        folder / SHARDED, {'metadata': {'total_size': sum(sizes.values())}, 'weight_map': where}
      )
    self._tensors = tensors
    self._places: dict[str, tuple[Any, int]] = {}
    self._handles = [open(folder / name, 'wb') for name in names]  # noqa: SIM115  closed by __exit__
    for handle, shard in zip(self._handles, shards, strict=True):
      header, end = {'__metadata__': {'format': 'pt'}}, 0
      # This is the order in which the library writes tensors.
      for name in sorted(shard, key=lambda name: (-DTYPES[tensors[name][0]].itemsize, name)):
        dtype, shape = tensors[name]
        header[name] = {
          'dtype': dtype,
          'shape': list(shape),
          'data_offsets': [end, end + sizes[name]],
        }
        self._places[name] = handle, end
        end += sizes[name]
      text = json.dumps(header, separators=(',', ':')).encode()
      text += b' ' * (-len(text) % 8)
      handle.write(struct.pack('<Q', len(text)) + text)
      handle.truncate(8 + len(text) + end)
      self._places |= {name: (handle, 8 + len(text) + self._places[name][1]) for name in shard}

  def write(self, name: str, value: np.ndarray) -> None:
    dtype, shape = self._tensors[name]
    assert (value.dtype, value.shape) == (DTYPES[dtype], shape), (
      f'{name} is {value.dtype}{value.shape}'
    )
    handle, offset = self._places.pop(name)
    handle.seek(offset)
    handle.write(np.ascontiguousarray(value).view(np.uint8).data)

  def __enter__(self) -> '_Writer':
    return self

  def __exit__(self, kind, *_) -> None:
    for handle in self._handles:
      os.fsync(handle.fileno())
      handle.close()
    assert kind or not self._places, f'not written: {sorted(self._places)}'


def _by_layer(name: str) -> list[Any]:
  """Returns a sort key that compares the numbers in names as numbers."""
  return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', name)]


# ---- The front end -------------------------------------------------------------------------------
