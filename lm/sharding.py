"""Which mesh axis each named axis of an array is split over."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from lm.errors import UserError

AXES = ('data', 'fsdp', 'tensor')
RULES = {
  'batch': ('data', 'fsdp'),
  'length': None,
  'embed': 'fsdp',
  'heads': 'tensor',
  'kv_heads': 'tensor',
  'mlp': 'tensor',
  'vocab': 'tensor',
  'head_dim': None,
  'all_heads': None,
  'router': None,
  'expert': None,
  'positions': None,
  'layers': None,
}


def make_mesh(config: ConfigDict, devices: list[jax.Device] | None = None) -> Mesh:
  """The mesh of `config.mesh` over all devices. Raises UserError when the sizes do not multiply to their number."""
  devices = jax.devices() if devices is None else devices
  sizes = [getattr(config, axis) for axis in AXES]
  known = math.prod(s for s in sizes if s != -1)
  if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
    raise UserError(f'config.mesh is {dict(zip(AXES, sizes, strict=True))}; sizes are at least 1, or -1 for one of them')
  if -1 in sizes and len(devices) % known == 0:
    sizes[sizes.index(-1)] = len(devices) // known
  if -1 in sizes or math.prod(sizes) != len(devices):
    raise UserError(f'config.mesh is {dict(zip(AXES, sizes, strict=True))}, which does not fit {len(devices)} devices')
  return Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def spec(axes: tuple[str | None, ...]) -> PartitionSpec:
  """The partition of an array with these named axes (None: not split)."""
  return PartitionSpec(*(None if axis is None else RULES[axis] for axis in axes))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """Asks the compiler to lay `x` out by the rules, under `jax.set_mesh`; without a mesh it is left alone."""
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, spec(axes))


def axis_names(boxed: Any) -> Any:
  """The tuple of axis names of each parameter, from a tree of boxed parameters (`model.init`)."""
  return jax.tree.map(lambda box: box.names, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))


def param_shardings(boxed: Any, mesh: Mesh) -> Any:
  """A NamedSharding for each boxed (abstract) parameter.

  Raises:
    UserError: an axis that the mesh axis does not divide, by name.
  """

  def one(path, box):
    for name, size in zip(box.names, box.value.shape, strict=True):
      mesh_axis = RULES[name]
      if mesh_axis is not None and size % mesh.shape[mesh_axis]:
        raise UserError(f'parameter {jax.tree_util.keystr(path, simple=True, separator="/")}: axis {name!r} has size '
                        f'{size}, which config.mesh.{mesh_axis} = {mesh.shape[mesh_axis]} does not divide')
    return NamedSharding(mesh, spec(box.names))

  return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))


def abstract_state(init_state: Callable[[Any], Any], params: Any, mesh: Mesh) -> Any:
  """Shapes and shardings of a train state: what mirrors a parameter lies as it does, counters lie everywhere.

  Args:
    init_state: parameters -> state.
    params: jax.ShapeDtypeStruct with a sharding for each parameter.
  """
  own = {path: p for path, p in jax.tree_util.tree_leaves_with_path(params)}
  everywhere = NamedSharding(mesh, PartitionSpec())

  def one(path, x):
    # A moment of parameter a/b is found at .../mu/a/b: the longest end of its path that is a parameter's.
    twins = (own[path[i:]] for i in range(len(path)) if path[i:] in own)
    twin = next((p for p in twins if p.shape == x.shape), None)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=twin.sharding if twin else everywhere)

  return jax.tree_util.tree_map_with_path(one, jax.eval_shape(init_state, params))


def check_rows(mesh: Mesh, sizes: dict[str, int]) -> None:
  """Raises UserError naming the first batch size that the batch axes of the mesh do not divide."""
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  for name, rows in sizes.items():
    if rows % ways:
      raise UserError(f'config.{name} is {rows}; config.mesh splits batches {ways} ways, so it must be a multiple of that')


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """This host's rows [..., B, T] as global arrays split over the batch axes of the mesh."""

  def put(x):
    axes = (None,) * (x.ndim - 2) + ('batch', 'length') if x.ndim > 1 else ('batch',) * x.ndim
    return jax.make_array_from_process_local_data(NamedSharding(mesh, spec(axes)), x)

  return jax.tree.map(put, batch)


def describe(state: Any, batch: dict[str, tuple[int, ...]], mesh: Mesh) -> str:
  """Name, type, shape, partition and bytes per device of every array of an abstract state and of batches [M, B, T]."""
  rows = []
  for path, x in jax.tree_util.tree_leaves_with_path(state):
    size = math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    rows.append((jax.tree_util.keystr(path, simple=True, separator='/'), x.dtype.name, x.shape, x.sharding.spec, size))
  for name, shape in batch.items():
    layout = NamedSharding(mesh, spec((None, 'batch', 'length')))
    rows.append((name, 'int32', shape, layout.spec, math.prod(layout.shard_shape(shape)) * 4))
  lines = [f'{name:60} {dtype}{list(shape)!s:28} {partition!s:40} {size:16,}' for name, dtype, shape, partition, size in rows]
  total = sum(row[-1] for row in rows)
  return '\n'.join([f'mesh {dict(mesh.shape)}; bytes per device at the right', *lines, f'{total:,} bytes per device in all'])
