"""Our parameters out of the tensors of a Hugging Face model, each device reading its own parts.

The names of each family's fields and tensors are in lm/weights/families.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base.errors import UserError
from lm.model import transformer
from lm.parallel import sharding
from lm.weights import families
from lm.weights.families import Family, Tensor
from lm.weights.hub_folder import Index, Source, Stored
from lm.weights.remote_tensors import DTYPES

ROWS = 4096  # The rows of a matrix that are compared at a time.


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


def shapes(config: FrozenConfigDict) -> dict[str, tuple[int, ...]]:
  """Returns the shape of each parameter of a model, by its slash-separated name."""
  leaves = jax.tree_util.tree_leaves_with_path(nn.unbox(transformer.abstract(config)))
  return {sharding.leaf_name(path): x.shape for path, x in leaves}


def layouts(family: Family, config: FrozenConfigDict) -> dict[str, Layout]:
  """Returns where each parameter of a model is stored, by its slash-separated name.

  Adapters and the scalar head have no tensors there and are left out.
  """
  named = shapes(FrozenConfigDict(config.to_dict() | {'heads': ('vocabulary',), 'lora_rank': 0}))
  if unknown := sorted(named.keys() - family.tensors):
    raise UserError(
      field=f'tensor of {family.architecture} for our parameter {unknown[0]!r}',
      message='lm/weights/families has the tensors of each family.',
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
        field=f'tensor {name!r}',
        message=f'{family.architecture} with this config.json has it.',
      ).at(source.path)
    if stored.shape != shape:
      raise UserError(
        field=f'shape of tensor {name!r}',
        value=list(stored.shape),
        allowed=f'{list(shape)}, by this config.json',
      ).at(source.path)
    if stored.dtype not in DTYPES:
      raise UserError(field=f'type of tensor {name!r}', value=stored.dtype, allowed=DTYPES).at(
        source.path
      )
  for ours, x in layout.items():
    if len(types := {source.tensors[name].dtype for name in x.names()}) > 1:
      raise UserError(
        field=f'types of the tensors of {ours}', value=sorted(types), allowed='one type for all'
      ).at(source.path)
  for name in sorted(source.tensors.keys() - wanted):
    if re.fullmatch(family.buffers, name):
      continue
    if name != 'lm_head.weight' or 'head' in layout:
      allowed = f'the tensors of {family.architecture} with this config.json'
      raise UserError(field='name of a tensor', value=name, allowed=allowed).at(source.path)
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
      field='tie_word_embeddings in config.json',
      value=True,
      allowed=f'false, since tensor {head!r} is not the same as {embedding!r}',
    ).at(source.path)


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
    raise error.at(source.path) from error
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
