"""Which mesh axis each named axis of an array is split over."""

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

# from the slowest links to the fastest
AXES = ('dcn', 'data', 'fsdp', 'expert', 'context', 'tensor')
BATCH = ('dcn', 'data', 'fsdp', 'expert')  # the axes that rows are split over
RULES = {
  'batch': BATCH,
  'length': 'context',
  'embed': 'fsdp',
  'heads': 'tensor',
  'kv_heads': 'tensor',
  'mlp': 'tensor',
  'vocab': 'tensor',
  'expert': 'expert',
  'all_heads': None,
  'head_dim': None,
  'positions': None,
  'router': None,
  'layers': None,
  'lora': None,
}
# of all parameters: one of this size that is not split is a mistake where parameters are
LARGE = 0.02


def mesh_sizes(config: ConfigDict, devices: int) -> list[int]:
  """The size of each of AXES. Raises UserError when `config.mesh` does not multiply to that many
  devices.
  """
  sizes = [getattr(config, axis) for axis in AXES]
  known = math.prod(s for s in sizes if s != -1)
  if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
    raise UserError(
      f'config.mesh is {dict(zip(AXES, sizes, strict=True))}; sizes are at least 1, or -1 for one '
      'of them'
    )
  if -1 in sizes and devices % known == 0:
    sizes[sizes.index(-1)] = devices // known
  if -1 in sizes or math.prod(sizes) != devices:
    raise UserError(
      f'config.mesh is {dict(zip(AXES, sizes, strict=True))}, which does not fit {devices} devices'
    )
  return sizes


def make_mesh(config: ConfigDict, devices: list[jax.Device] | None = None) -> Mesh:
  """The mesh of `config.mesh` over all devices. Raises UserError when the sizes do not multiply to
  their number.

  The slices of a TPU (or the hosts, where devices have no slices) are the outer axis `dcn`; inside
  one, neighbours on the mesh are neighbours on the chip's network where that is possible.
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
  """The partition of an array with these named axes (None: not split)."""
  return PartitionSpec(*(None if axis is None else RULES[axis] for axis in axes))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """Asks the compiler to lay `x` out by the rules, under `jax.set_mesh`; without a mesh it is left
  alone.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, spec(axes))


def axis_names(boxed: Any) -> Any:
  """The tuple of axis names of each parameter, from a tree of boxed parameters (`model.init`)."""
  return jax.tree.map(
    lambda box: box.names, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata)
  )


def leaf_name(path: tuple) -> str:
  """The slash-separated name of a leaf, given its path in a tree (`jax.tree_util`)."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def param_shardings(boxed: Any, mesh: Mesh) -> Any:
  """A NamedSharding for each boxed (abstract) parameter.

  Raises:
    UserError: an axis that the mesh axis does not divide, or a large parameter that is split by
      none of the mesh's axes that split parameters, by name.
  """
  splitting = {axis: mesh.shape[axis] for axis in ('fsdp', 'tensor') if mesh.shape[axis] > 1}
  total = sum(x.size for x in jax.tree.leaves(nn.unbox(boxed)))

  def one(path, box):
    where = f'parameter {leaf_name(path)}'
    for name, size in zip(box.names, box.value.shape, strict=True):
      mesh_axis = RULES[name]
      if mesh_axis is not None and size % mesh.shape[mesh_axis]:
        raise UserError(
          f'{where}: axis {name!r} has size {size}, which config.mesh.{mesh_axis} = '
          f'{mesh.shape[mesh_axis]} '
          'does not divide'
        )
    share = box.value.size / total
    # An adapter is small beside its matrix, and one of its two sides may have no axis to split.
    small = share <= LARGE or 'lora' in box.names
    if splitting and not small and not splitting.keys() & {RULES[name] for name in box.names}:
      raise UserError(
        f'{where}, {share:.0%} of all, would be whole on every device: its axes {box.names} are '
        'split by none '
        f'of config.mesh {splitting}'
      )
    return NamedSharding(mesh, spec(box.names))

  return jax.tree_util.tree_map_with_path(
    one, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata)
  )


def abstract_state(init_state: Callable[[Any], Any], params: Any, mesh: Mesh) -> Any:
  """Shapes and shardings of a train state: what mirrors a parameter lies as it does, counters lie
  everywhere.

  Args:
    init_state: parameters -> state.
    params: jax.ShapeDtypeStruct with a sharding for each parameter.
  """
  own = {path: p for path, p in jax.tree_util.tree_leaves_with_path(params)}
  everywhere = NamedSharding(mesh, PartitionSpec())

  def one(path, x):
    # A moment of parameter a/b is found at .../mu/a/b: the longest end of its path that is a
    # parameter's.
    twins = (own[path[i:]] for i in range(len(path)) if path[i:] in own)
    twin = next((p for p in twins if p.shape == x.shape), None)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=twin.sharding if twin else everywhere)

  return jax.tree_util.tree_map_with_path(one, jax.eval_shape(init_state, params))


def batch_ways(mesh: Mesh) -> int:
  """Into how many parts the mesh cuts the rows of a batch."""
  return math.prod(mesh.shape[axis] for axis in BATCH)


def check_rows(mesh: Mesh, sizes: dict[str, int]) -> None:
  """Raises UserError naming the first batch size that the batch axes of the mesh do not divide."""
  ways = batch_ways(mesh)
  for name, rows in sizes.items():
    if rows % ways:
      raise UserError(
        f'config.{name} is {rows}; config.mesh splits batches {ways} ways, so it must be a '
        'multiple of that'
      )


@functools.cache
def batch_share(mesh: Mesh) -> tuple[int, int]:
  """(index, count): this process holds part `index` of the `count` equal parts that batches are cut
  into along their rows.

  Processes whose devices hold the same rows (the mesh splits something else between them) have the
  same index. Raises UserError where the parts of two processes overlap.
  """
  ways = batch_ways(mesh)
  rows: dict[int, set[int]] = {}
  for device, (index,) in (
    NamedSharding(mesh, spec(('batch',))).devices_indices_map((ways,)).items()
  ):
    rows.setdefault(device.process_index, set()).update(range(*index.indices(ways)))
  parts = sorted({tuple(sorted(held)) for held in rows.values()})
  if [row for part in parts for row in part] != list(range(ways)) or len(
    {len(part) for part in parts}
  ) > 1:
    raise UserError(
      f'config.mesh = {dict(mesh.shape)} gives processes unequal or overlapping rows of a batch: '
      f'{parts}'
    )
  return parts.index(tuple(sorted(rows[jax.process_index()]))), len(parts)


def own_rows(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, np.ndarray]:
  """This process's rows of a batch [M, B, T] that all processes hold whole."""
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
  """Name, type, shape, partition and bytes per device of every array of a tree of abstract arrays
  with shardings.
  """
  lines, total = [], 0
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    size = math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    lines.append(
      f'{leaf_name(path):64} {x.dtype.name + str(list(x.shape)):28} {x.sharding.spec!s:44} '
      f'{size:16,}'
    )
    total += size
  return '\n'.join(
    [
      f'mesh {dict(mesh.shape)}; bytes per device at the right',
      *lines,
      f'{total:,} bytes per device in all',
    ]
  )
