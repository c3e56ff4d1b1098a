"""The arrays of one checkpoint, as Orbax writes and reads them.

lm/weights/checkpoint.py says which files a checkpoint has, and keeps those of a run.
"""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from lm.base import buckets, files
from lm.base.errors import UserError
from lm.parallel.sharding import leaf_name
from lm.weights import checkpoint_folders, orbax_s3

orbax_s3.install()
_CHUNK = 2**26  # The size of a chunk of a stored array, in bytes.
Tree = Any  # A pytree of arrays, or of jax.ShapeDtypeStructs.


class Handler(ocp.CompositeCheckpointHandler):
  """Writes params/ and state/, then the provenance and the digest.

  The provenance and the digest are written in the background, before the final rename.
  """

  provenance: Any = None

  def __init__(self, directory: files.Path, **options):
    # There is no compression: float32 weights shrink by only a few percent, and it would take cores
    # from the training step. On a disk few files hold all arrays (OCDBT). In a bucket each array
    # has objects of its own: the few files of OCDBT are written several times in a save, with
    # conditions on their generation, which gcp-storage-emulator does not report.
    options = {'use_compression': False, 'use_ocdbt': not buckets.is_url(directory)} | options
    super().__init__(
      composite_options=ocp.CompositeOptions(atomicity_options=atomicity(directory)),
      **{item: ocp.PyTreeCheckpointHandler(**options) for item in ('params', 'state')},
    )

  def finalize(self, directory):
    super().finalize(directory)
    files.write_json(directory / 'provenance.json', self.provenance)
    names = list(files.sizes(directory))
    digests = files.sha256_all([directory / name for name in names])
    files.write_json(directory / 'digest.json', dict(zip(names, digests, strict=True)))


@ocp.args.register_with_handler(Handler, for_save=True, for_restore=True)
class Items(ocp.args.Composite):
  """The items of one save, a type of its own by which Orbax finds the handler."""


def atomicity(directory: files.Path) -> ocp.options.AtomicityOptions:
  """Returns how Orbax makes a folder appear at once.

  On a disk it renames the folder. In a bucket, where nothing is renamed, it writes a file last.
  """
  mode = ocp.options.AtomicityMode
  return ocp.options.AtomicityOptions(
    mode=mode.COMMIT_FILE if buckets.is_url(directory) else mode.AUTO
  )


@dataclasses.dataclass(frozen=True)
class ArrayType:
  """The dtype and shape of a stored array."""

  dtype: np.dtype
  shape: tuple[int, ...]

  def __str__(self) -> str:
    return f'{self.dtype}[{",".join(map(str, self.shape))}]'


@dataclasses.dataclass(frozen=True)
class Deferred:
  """An array that is created when it is to be written, and dropped once it is written."""

  make: Callable[[], np.ndarray]


class _DeferredHandler(ocp.type_handlers.NumpyHandler):
  """Writes one deferred array after the other, as NumPy arrays are written."""

  async def serialize(self, values, infos, args=None):
    for value, info, arg in zip(values, infos, args, strict=True):
      for written in await super().serialize([value.make()], [info], [arg]):
        written.result()
    return []


def write_params(path: files.Path, params: Tree, provenance: dict[str, Any]) -> None:
  """Writes a checkpoint of parameters alone, holding one of them in memory at a time.

  Args:
    path: the folder of the step, `checkpoints/STEP`; it must not exist.
    params: a `Deferred` for each parameter.
    provenance: as for `Checkpointer.save`.
  """
  arrays = (
    (Deferred, _DeferredHandler(deepcopy_host_arrays=False)),
    (jax.Array, ocp.type_handlers.ArrayHandler()),
  )
  handler = Handler(
    path, type_handler_registry=ocp.type_handlers.create_type_handler_registry(*arrays)
  )
  handler.provenance = provenance
  # Arrays are written in chunks, so that a host that needs a part of one reads a part of the file.
  chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK), params)
  with ocp.Checkpointer(handler) as saver:
    saver.save(
      files.absolute(path), args=Items(params=ocp.args.PyTreeSave(params, save_args=chunks))
    )


def params_metadata(path: files.Path) -> dict[str, ArrayType]:
  """Returns the dtype and shape of each stored parameter, by its slash-separated name.

  Raises:
    FileNotFoundError, UserError: as `load_params`.
  """
  path = checkpoint_folders.locate(path)
  checkpoint_folders.verify(path, 'params/')
  return _arrays(ocp.PyTreeCheckpointHandler().metadata(epath.Path(path / 'params')).tree)


def read_params(path: files.Path, names: Collection[str]) -> dict[str, np.ndarray]:
  """Returns some of the parameters as they are stored, on the host.

  The other parameters are not read, and the files are not verified.
  """
  handler = ocp.PyTreeCheckpointHandler()
  directory = epath.Path(checkpoint_folders.locate(path) / 'params')
  wanted = jax.tree_util.tree_map_with_path(
    lambda p, _: (
      ocp.RestoreArgs(restore_type=np.ndarray) if leaf_name(p) in names else ocp.PLACEHOLDER
    ),
    handler.metadata(directory).tree,
  )
  read = handler.restore(directory, args=ocp.args.PyTreeRestore(wanted, restore_args=wanted))
  return {
    leaf_name(p): x
    for p, x in jax.tree_util.tree_leaves_with_path(read)
    if x is not ocp.PLACEHOLDER
  }


def load_params(path: files.Path, abstract_params: Tree) -> tuple[Tree, dict[str, Any]]:
  """Reads the parameters of a checkpoint, and where it came from.

  The optimizer's state is not read.

  Args:
    path: anything that `checkpoint_folders.locate` takes.
    abstract_params: a jax.ShapeDtypeStruct for each parameter; those without a sharding go to the
      first device. A parameter that is stored in another floating-point type is cast to the
      requested one.

  Raises:
    FileNotFoundError, UserError: as `Checkpointer.restore`.
  """
  path = checkpoint_folders.locate(path)
  checkpoint_folders.verify(path, 'params/')
  return read_tree(path, 'params', abstract_params, cast=True), checkpoint_folders.provenance(path)


def read_tree(path: files.AnyPath, item: str, abstract: Tree, cast: bool = False) -> Tree:
  """Reads one tree onto the shardings of `abstract`.

  Args:
    cast: whether the arrays may be stored in another floating-point type.

  Raises:
    UserError: an array does not fit; the message names the first.
  """
  first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or first), abstract
  )
  handler, directory = ocp.PyTreeCheckpointHandler(), epath.Path(path / item)
  stored, wanted = _arrays(handler.metadata(directory).tree), _arrays(abstract)
  for name in sorted(stored.keys() | wanted.keys()):
    found, expected = stored.get(name), wanted.get(name)
    if found == expected:
      continue
    floats = (
      found and expected and all(jnp.issubdtype(x.dtype, jnp.floating) for x in (found, expected))
    )
    if not (cast and floats and found.shape == expected.shape):
      found, expected = ('no such array' if x is None else str(x) for x in (found, expected))
      raise UserError(
        field=f'{item}/{name}', value=found, allowed=f'{expected}, as in the model'
      ).at(f'checkpoint {path}')
  restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
  return handler.restore(
    directory, args=ocp.args.PyTreeRestore(abstract, restore_args=restore_args)
  )


def _arrays(tree: Tree) -> dict[str, ArrayType]:
  """Returns the dtype and shape of each array of a tree, by its slash-separated name."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {leaf_name(path): ArrayType(np.dtype(x.dtype), tuple(x.shape)) for path, x in leaves}
