"""The device mesh, and the rules that split the named axes of arrays over its axes.

An axis that the mesh does not divide is an error, never replicated silently.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from lm.base.errors import UserError

# The axes of the mesh, from the slowest links to the fastest.
AXES = ('dcn', 'data', 'fsdp', 'expert', 'context', 'tensor')
BATCH = ('dcn', 'data', 'fsdp', 'expert')  # the mesh axes that rows of a batch are split over
RULES = {  # for each named axis of an array, the mesh axes that it is split over
  'batch': BATCH,
  'length': 'context',
  'embed': 'fsdp',
  'heads': 'tensor',
  'kv_heads': 'tensor',
  'mlp': 'tensor',
  'vocab': 'tensor',
  'expert': 'expert',
  'answers': None,
  'all_heads': None,
  'head_dim': None,
  'positions': None,
  'router': None,
  'layers': None,
  'lora': None,
}
# A parameter with more than this fraction of all parameters must be split where any are.
LARGE = 0.02


def mesh_sizes(config: ConfigDict, devices: int) -> list[int]:
  """Returns the size of each of AXES for so many devices.

  Args:
    config: config.mesh, where one size may be -1 for all remaining devices.
    devices: the number of devices.

  Raises:
    UserError: a size is not allowed, or the sizes do not multiply to the number of devices.
  """
  sizes = [getattr(config, axis) for axis in AXES]
  given = dict(zip(AXES, sizes, strict=True))
  if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
    raise UserError(
      field='config.mesh', value=given, allowed='sizes of at least 1, and -1 for one of them'
    )
  known = math.prod(size for size in sizes if size != -1)
  if -1 in sizes and devices % known == 0:
    sizes[sizes.index(-1)] = devices // known
  if -1 in sizes or math.prod(sizes) != devices:
    raise UserError(
      field='config.mesh',
      value=given,
      allowed=f'sizes whose product is the number of devices, {devices}',
    )
  return sizes


def make_mesh(config: ConfigDict, devices: list[jax.Device] | None = None) -> Mesh:
  """Returns the mesh of config.mesh over all devices. Raises as `mesh_sizes`.

  The slices of a TPU are the outer axis `dcn`; where devices have no slices, its parts are
  consecutive devices. Inside a slice, neighbours on the mesh are neighbours on the network of the
  chips where that is possible.

  Args:
    config: config.mesh.
    devices: the devices, if not all of them.
  """
  devices = jax.devices() if devices is None else devices
  sizes = mesh_sizes(config, len(devices))
  if devices[0].platform != 'tpu':
    grid = np.asarray(devices).reshape(sizes)
  elif sizes[0] > 1:
    outer = [sizes[0], *[1] * (len(sizes) - 1)]
    grid = mesh_utils.create_hybrid_device_mesh(
      [1, *sizes[1:]], outer, devices, allow_split_physical_axes=True
    )
  else:
    grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def spec(axes: tuple[str | None, ...]) -> PartitionSpec:
  """Returns the partition of an array with these named axes; None is an axis that is not split."""
  return PartitionSpec(*(None if axis is None else RULES[axis] for axis in axes))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """Constrains the layout of `x` by the rules; without `jax.set_mesh` it returns `x`."""
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, spec(axes))


def axis_names(boxed: Any) -> Any:
  """Returns the axis names of each parameter, from a tree of boxed parameters (`model.init`)."""
  return jax.tree.map(lambda box: box.names, boxed, is_leaf=_is_box)


def _is_box(x: Any) -> bool:
  """Returns whether a node of a tree is a parameter with its axis names."""
  return isinstance(x, nn.meta.AxisMetadata)


def leaf_name(path: tuple) -> str:
  """Returns the slash-separated name of a leaf from its path in a tree (`jax.tree_util`)."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def param_shardings(boxed: Any, mesh: Mesh) -> Any:
  """Returns a NamedSharding for each boxed (abstract) parameter.

  Raises:
    UserError: a mesh axis does not divide an axis of a parameter, or a large parameter is not split
      though others are.
  """
  splitting = {axis: mesh.shape[axis] for axis in ('fsdp', 'tensor') if mesh.shape[axis] > 1}
  total = sum(x.size for x in jax.tree.leaves(nn.unbox(boxed)))

  def sharding_of(path, box):
    parameter = f'parameter {leaf_name(path)}'
    for name, size in zip(box.names, box.value.shape, strict=True):
      mesh_axis = RULES[name]
      if mesh_axis is not None and size % mesh.shape[mesh_axis]:
        raise UserError(
          field=f'config.mesh.{mesh_axis}',
          value=mesh.shape[mesh_axis],
          allowed=f'a divisor of {size}, the size of axis {name!r} of {parameter}',
        )
    fraction = box.value.size / total
    # An adapter is small beside its matrix, and one of its two sides may have no axis to split.
    is_large = fraction > LARGE and 'lora' not in box.names
    is_split = splitting.keys() & {RULES[name] for name in box.names}
    if splitting and is_large and not is_split:
      raise UserError(
        field='config.mesh',
        value=splitting,
        allowed=f'a split of the axes {box.names}',
        message=f'The {parameter}, {fraction:.0%} of all parameters, would be whole on every '
        'device.',
      )
    return NamedSharding(mesh, spec(box.names))

  return jax.tree_util.tree_map_with_path(sharding_of, boxed, is_leaf=_is_box)


def abstract_state(init_state: Callable[[Any], Any], params: Any, mesh: Mesh) -> Any:
  """Returns the shapes and shardings of a train state.

  An array that belongs to a parameter, such as its moments, is split like it; all others are
  replicated.

  Args:
    init_state: makes a state from parameters.
    params: a jax.ShapeDtypeStruct with a sharding for each parameter.
    mesh: the mesh of those shardings.
  """
  by_path = dict(jax.tree_util.tree_leaves_with_path(params))
  replicated = NamedSharding(mesh, PartitionSpec())

  def shape_of(path, x):
    # The first moment of parameter a/b is at .../mu/a/b: the parameter's path is the longest end of
    # the moment's path that is the path of a parameter.
    owners = (by_path[path[i:]] for i in range(len(path)) if path[i:] in by_path)
    owner = next((p for p in owners if p.shape == x.shape), None)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=owner.sharding if owner else replicated)

  return jax.tree_util.tree_map_with_path(shape_of, jax.eval_shape(init_state, params))


def batch_ways(mesh: Mesh) -> int:
  """Returns the number of equal parts that the mesh splits the rows of a batch into."""
  return math.prod(mesh.shape[axis] for axis in BATCH)


def check_rows(mesh: Mesh, sizes: dict[str, int]) -> None:
  """Raises UserError for the first batch size that the mesh does not split evenly.

  Args:
    mesh: the mesh.
    sizes: the number of rows by the name of its config field.
  """
  ways = batch_ways(mesh)
  for name, rows in sizes.items():
    if rows % ways:
      raise UserError(
        field=f'config.{name}',
        value=rows,
        allowed=f'a multiple of {ways}, the number of parts that config.mesh splits batches into',
      )


@functools.cache
def batch_share(mesh: Mesh) -> tuple[int, int]:
  """Returns this process's share of every batch: (index, count) for part `index` of `count`.

  The parts are equal ranges of rows. Processes whose devices hold the same rows, because the mesh
  splits something else between them, have the same index.

  Raises:
    UserError: the parts of two processes overlap or are unequal.
  """
  ways = batch_ways(mesh)
  layout = NamedSharding(mesh, spec(('batch',)))
  rows_by_process: dict[int, set[int]] = {}
  for device, (index,) in layout.devices_indices_map((ways,)).items():
    held = rows_by_process.setdefault(device.process_index, set())
    held.update(range(*index.indices(ways)))
  parts = sorted({tuple(sorted(rows)) for rows in rows_by_process.values()})
  in_order = [row for part in parts for row in part] == list(range(ways))
  if not in_order or len({len(part) for part in parts}) > 1:
    raise UserError(
      field='config.mesh',
      value=dict(mesh.shape),
      allowed='sizes that give processes equal and separate rows of a batch',
      message=f'These would give them {parts}.',
    )
  return parts.index(tuple(sorted(rows_by_process[jax.process_index()]))), len(parts)


def own_rows(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, np.ndarray]:
  """Returns this process's rows of a batch [microbatches, rows, ...] that all processes hold."""
  index, count = batch_share(mesh)
  return {name: np.split(x, count, axis=1)[index] for name, x in batch.items()}


def put_batch(
  batch: dict[str, np.ndarray], axes: Mapping[str, tuple[str, ...]], mesh: Mesh
) -> dict[str, jax.Array]:
  """Returns this process's rows (see `batch_share`) as global arrays laid out over the mesh.

  Args:
    batch: arrays of full length.
    axes: the names of the last axes of each array, of 'batch' and 'length'; any axes before them,
      such as that of microbatches, are not split.
  """

  def put(name, x):
    places = (None,) * (x.ndim - len(axes[name])) + axes[name]
    shape = [
      size * batch_share(mesh)[1] if axis == 'batch' else size
      for axis, size in zip(places, x.shape, strict=True)
    ]
    layout = NamedSharding(mesh, spec(places))
    return jax.make_array_from_process_local_data(layout, x, tuple(shape))

  return {name: put(name, x) for name, x in batch.items()}


def describe(tree: Any, mesh: Mesh) -> str:
  """Returns a line with name, dtype, shape, partition and bytes per device for each array.

  Args:
    tree: abstract arrays with shardings.
    mesh: their mesh.
  """
  lines, total = [], 0
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    size = math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    shape = f'{x.dtype.name}{list(x.shape)}'
    lines.append(f'{leaf_name(path):64} {shape:28} {x.sharding.spec!s:44} {size:16,}')
    total += size
  header = f'mesh {dict(mesh.shape)}; bytes per device at the right'
  return '\n'.join([header, *lines, f'{total:,} bytes per device in all'])
