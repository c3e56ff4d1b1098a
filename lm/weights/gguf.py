"""Reads GGUF files, the format of llama.cpp, as if they were Hugging Face folders.

    python -m lm.hf import gguf FILE DST

The `gguf` package decodes the blocks of quantized weights; the result is float32, and one tensor at
a time is in memory. llama.cpp changes some weights when it converts a model
(convert_hf_to_gguf.py): it orders the rows of Llama's queries and keys for its own rotation, and
adds 1 to Gemma's norms. Reading undoes both. gguf_config.py makes the config.json.
"""

import dataclasses
import functools
import importlib.util
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from ml_collections import ConfigDict

from lm.base import files
from lm.base.choices import MODELS
from lm.base.errors import UserError, invalid, missing_package, unknown
from lm.weights import gguf_config, hub_folder, hub_format
from lm.weights.families import Fields
from lm.weights.gguf_config import Metadata

TYPES = ('F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q4_K', 'Q5_K', 'Q6_K')
CACHE = pathlib.Path.home() / '.cache' / 'deepdive' / 'models'


def open_file(
  path: files.Path, tokenizer: Callable[[Metadata], Mapping[str, bytes]], ignore: Iterable[str] = ()
) -> hub_folder.Source:
  """Opens the model in a GGUF file; weights are read later, tensor by tensor.

  Args:
    path: the file.
    tokenizer: makes a tokenizer's files from metadata (`data.tokenizers.gguf_vocabulary.convert`).
    ignore: metadata keys of the architecture that may be present without being known.

  Raises:
    FileNotFoundError: there is no such file.
    UserError: the file is not a GGUF file, is cut off, or holds something that we cannot run.
  """
  path = files.local_path(path, 'the GGUF file').absolute()
  metadata, tensors = _read(path)
  try:
    config, named = _translate(path, metadata, tensors, set(ignore))
    stored = {
      name: hub_folder.Stored('F32', x.shape, functools.partial(x.read, path))
      for name, x in named.items()
    }
    return hub_folder.Source(path, config, stored, tokenizer(metadata), (path,))
  except UserError as error:
    raise error.at(path) from error


@dataclasses.dataclass(frozen=True)
class Packed:
  """A tensor as it is stored in the file.

  Attributes:
    kind: one of TYPES.
    shape: its shape in transformers, rows before columns.
    offset: the offset of its first byte in the file.
    heads: the number of heads whose rows are in the order of llama.cpp's rotation. 0: the rows are
      in transformers' order.
    add: the number to add to its values.
  """

  kind: str
  shape: tuple[int, ...]
  offset: int
  heads: int = 0
  add: float = 0.0

  def read(self, path: pathlib.Path, index: hub_folder.Index) -> np.ndarray:
    """Returns the part `index` of the tensor in float32; only the rows that it needs are read."""
    from gguf import quants
    from gguf.constants import GGMLQuantizationType

    kind = GGMLQuantizationType[self.kind]
    *_, columns = self.shape
    if self.kind in _PLAIN:
      dtype, width = _PLAIN[self.kind], columns
    else:
      dtype, width = np.uint8, quants.quant_shape_to_byte_shape((columns,), kind)[0]
    # The file is mapped anew for each read, since the pages of a file that stays mapped count as
    # memory of this process.
    data = np.memmap(path, dtype, 'r', self.offset, (math.prod(self.shape[:-1]), width))
    order = _rotation(self.shape[0], self.heads) if self.heads else slice(None)
    if len(self.shape) == 1:
      values = quants.dequantize(data, kind)[0][order][index[0]]
    else:
      rows = order[index[0]] if self.heads else index[0]
      values = quants.dequantize(data[rows], kind)[:, index[1]]
    return np.asarray(values, np.float32) + np.float32(self.add)


# The types that the package decodes from numbers; it decodes all others from bytes.
_PLAIN = {'F32': np.float32, 'F16': np.float16}


def _rotation(rows: int, heads: int) -> np.ndarray:
  """Returns for each row in transformers' order its place in llama.cpp's order, [rows].

  llama.cpp rotates neighbouring pairs of a head's axes, transformers pairs half a head apart.
  """
  places = np.arange(rows).reshape(heads, rows // heads // 2, 2)
  return places.swapaxes(1, 2).reshape(-1)


def _read(path: pathlib.Path) -> tuple[Metadata, dict[str, Packed]]:
  """Returns the metadata and the tensors of a file, by their names in it."""
  try:
    import gguf
  except ModuleNotFoundError as error:
    raise missing_package('gguf', 'gguf', 'A GGUF file') from error
  if not path.is_file():
    raise FileNotFoundError(f'{path} does not exist or is not a file')
  try:
    reader = gguf.GGUFReader(path)
  # The package raises these three where bytes are missing or wrong.
  except (ValueError, KeyError, IndexError) as error:
    raise invalid(path, 'a whole GGUF file', error) from error
  if reader.byte_order == 'S':
    raise UserError(field=f'byte order of {path}', value='swapped', allowed='that of this machine')
  tensors = {}
  for tensor in reader.tensors:
    kind = tensor.tensor_type.name
    if kind not in TYPES:
      raise unknown(f'type of tensor {tensor.name!r} in {path}', kind, TYPES)
    shape = tuple(int(size) for size in reversed(tensor.shape))
    tensors[tensor.name] = Packed(kind, shape, int(tensor.data_offset))
  return {name: field.contents() for name, field in reader.fields.items()}, tensors


def _translate(
  path: pathlib.Path, metadata: Metadata, tensors: dict[str, Packed], ignore: set[str]
) -> tuple[Fields, dict[str, Packed]]:
  """Returns the config.json, and the tensors by their names in transformers."""
  factors = tensors.pop('rope_freqs.weight', None)
  factors_H = None if factors is None else factors.read(path, (slice(None),))
  shapes = {name: tensor.shape for name, tensor in tensors.items()}
  config = gguf_config.config_json(metadata, shapes, factors_H, ignore)
  return config, _rename(gguf_config.architecture_of(metadata), config, tensors)


def _rename(
  architecture: gguf_config.Architecture, config: Fields, tensors: Mapping[str, Packed]
) -> dict[str, Packed]:
  """Returns the tensors by their names in transformers, told how llama.cpp changed them."""
  heads = {'attn_q': config['num_attention_heads'], 'attn_k': config['num_key_value_heads']}
  renamed = {}
  for theirs, tensor in tensors.items():
    *layer, part, kind = theirs.split('.')  # blk.3.attn_q.weight, or output.weight
    ours = f'{architecture.names.get(part, part)}.{kind}'
    if architecture.permuted and part in heads:
      tensor = dataclasses.replace(tensor, heads=heads[part])
    if architecture.norm_offset and part.endswith('norm'):
      tensor = dataclasses.replace(tensor, add=-architecture.norm_offset)
    renamed['.'.join(['model.layers', *layer[1:], ours] if layer else [ours])] = tensor
  return renamed


def find(
  path: str,
  defaults: ConfigDict,
  tokenizer: Callable[[Metadata], Mapping[str, bytes]],
  fingerprint: Callable[[pathlib.Path], str],
) -> files.Path:
  """Returns the folder of a checkpoint: `path`, or what `installed` returns for one of MODELS."""
  return installed(path, defaults, tokenizer, fingerprint) if path in MODELS else path


def installed(
  name: str,
  defaults: ConfigDict,
  tokenizer: Callable[[Metadata], Mapping[str, bytes]],
  fingerprint: Callable[[pathlib.Path], str],
) -> pathlib.Path:
  """Returns the run folder of one of MODELS, in CACHE; the first call imports the model there.

  Args:
    name: a key of MODELS.
    defaults: the config.model of configs/base.py.
    tokenizer: as in `open_file`.
    fingerprint: as in `lm.weights.hub_format.import_model`.

  Raises:
    UserError: its package is not installed, or as `open_file`.
  """
  package, file = MODELS[name]
  found = importlib.util.find_spec(file.split('/')[0])
  if found is None:
    raise missing_package(package, 'smollm2', f'The model {name}')
  run = CACHE / name
  with files.locked(CACHE, seconds=600):  # another process may be importing it
    if not run.exists():
      path = pathlib.Path(found.origin).parents[1] / file
      hub_format.import_model(open_file(path, tokenizer), run, defaults, fingerprint)
  return run
