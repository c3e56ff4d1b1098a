"""Safetensors files in a bucket, of which each device reads its part: the library reads local files
only.

The format (huggingface.co/docs/safetensors): the length of a JSON header in 8 bytes, the header,
the tensors one after the other, each row by row.
"""

import functools
import json
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from lm.base import buckets, files
from lm.base.errors import UserError

Index = tuple[slice, ...]
DTYPES = {
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
}
MAX_HEADER = 100_000_000  # bytes, as the library has it


def tensors(
  file: files.AnyPath,
) -> dict[str, tuple[str, tuple[int, ...], Callable[[Index], np.ndarray]]]:
  """The tensors of a file by name: (dtype as safetensors calls it, shape, a function that reads a
  part).

  Raises UserError naming the file if it is not one.
  """
  try:
    with buckets.reader(file) as opened:
      size = int.from_bytes(opened.read(8), 'little')
      if not 0 < size <= MAX_HEADER:
        raise ValueError(f'a header of {size} bytes')
      header = json.loads(opened.read(size))
    total = files.size(file) - 8 - size
    header.pop('__metadata__', None)
    return {name: _tensor(file, 8 + size, total, **described) for name, described in header.items()}
  except (ValueError, TypeError, AttributeError) as error:
    raise UserError(f'{file} is not a safetensors file: {error}') from error


def _tensor(
  file: files.AnyPath,
  base: int,
  total: int,
  *,
  dtype: str,
  shape: list[int],
  data_offsets: list[int],
) -> Any:
  """A tensor as its entry in the header describes it, checked against the size of the file."""
  start, stop = data_offsets
  itemsize = DTYPES[dtype].itemsize if dtype in DTYPES else None  # of other types nothing is read
  whole = all(type(n) is int and n >= 0 for n in (start, stop, *shape)) and start <= stop <= total
  if not whole or (itemsize and stop - start != math.prod(shape) * itemsize):
    raise ValueError(
      f'a tensor of type {dtype} and shape {shape} at bytes {data_offsets} of {total}'
    )
  return dtype, tuple(shape), functools.partial(_read, file, base + start, dtype, tuple(shape))


def _read(
  file: files.AnyPath, start: int, dtype: str, shape: tuple[int, ...], index: Index
) -> np.ndarray:
  """A part of a tensor; of its rows no others are read."""
  rows = index[0] if index else slice(0, 1)
  width = math.prod(shape[1:]) * DTYPES[dtype].itemsize
  data = buckets.read_range(file, start + rows.start * width, start + rows.stop * width)
  array = np.frombuffer(data, DTYPES[dtype]).reshape(-1, *shape[1:])
  return array[(slice(None), *index[1:])] if index else array.reshape(shape)
