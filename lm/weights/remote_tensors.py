"""Reads safetensors files in a bucket, each device only its part; the library reads local files.

The format (huggingface.co/docs/safetensors) is the length of a JSON header in 8 bytes, the header,
and the tensors one after the other in row-major order.
"""

import functools
import json
import math
from collections.abc import Callable

import ml_dtypes
import numpy as np

from lm.base import buckets, files
from lm.base.errors import invalid

Index = tuple[slice, ...]
# A tensor: its dtype as safetensors calls it, its shape, and a function that reads a part.
RemoteTensor = tuple[str, tuple[int, ...], Callable[[Index], np.ndarray]]
DTYPES = {
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
}
MAX_HEADER = 100_000_000  # bytes; the limit of the library


def tensors(file: files.AnyPath) -> dict[str, RemoteTensor]:
  """Returns the tensors of a file by name. Raises UserError where it is not a safetensors file."""
  try:
    with buckets.reader(file) as opened:
      size = int.from_bytes(opened.read(8), 'little')
      if not 0 < size <= MAX_HEADER:
        raise ValueError(f'its header would have {size} bytes')
      header = json.loads(opened.read(size))
    total = files.size(file) - 8 - size
    header.pop('__metadata__', None)
    return {name: _tensor(file, 8 + size, total, **entry) for name, entry in header.items()}
  except (ValueError, TypeError, AttributeError) as error:
    raise invalid(file, 'a safetensors file', error) from error


def _tensor(
  file: files.AnyPath,
  base: int,
  total: int,
  *,
  dtype: str,
  shape: list[int],
  data_offsets: list[int],
) -> RemoteTensor:
  """Returns a tensor as its entry in the header describes it.

  Args:
    file: the file.
    base: the offset of the first tensor in the file.
    total: the bytes of all tensors.
    dtype: of the entry, as are the next two.
    shape: its dimensions.
    data_offsets: its first byte and the byte after its last, counted from `base`.

  Raises:
    ValueError: the entry does not fit the size of the file.
  """
  start, stop = data_offsets
  fits = all(type(n) is int and n >= 0 for n in (start, stop, *shape)) and start <= stop <= total
  if fits and dtype in DTYPES:  # tensors of other types are never read
    fits = stop - start == math.prod(shape) * DTYPES[dtype].itemsize
  if not fits:
    raise ValueError(
      f'it has a tensor of type {dtype} and shape {shape} at bytes {data_offsets} of {total}'
    )
  read = functools.partial(_read, file, base + start, dtype, tuple(shape))
  return dtype, tuple(shape), read


def _read(
  file: files.AnyPath, start: int, dtype: str, shape: tuple[int, ...], index: Index
) -> np.ndarray:
  """Returns the part `index` of a tensor; the request covers only the rows that it needs."""
  rows = index[0] if index else slice(0, 1)
  width = math.prod(shape[1:]) * DTYPES[dtype].itemsize
  data = buckets.read_range(file, start + rows.start * width, start + rows.stop * width)
  array = np.frombuffer(data, DTYPES[dtype]).reshape(-1, *shape[1:])
  return array[(slice(None), *index[1:])] if index else array.reshape(shape)
