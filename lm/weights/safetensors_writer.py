"""Writes safetensors files whose tensors come in any order, one in memory at a time.

The format (huggingface.co/docs/safetensors) is the length of a JSON header in 8 bytes, the header,
and the tensors. The library can write only whole files.
"""

import json
import math
import os
import pathlib
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from lm.base import files
from lm.weights.hub_folder import SHARDED, SINGLE
from lm.weights.remote_tensors import DTYPES


class Writer:
  """Writes one file, or several with an index where the tensors are larger than one may be.

  Args:
    folder: the folder of the files.
    tensors: the type, as safetensors calls it, and the shape of each tensor, by name.
    max_bytes: the bytes of the tensors of one file, which only a single tensor may exceed.
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
    # They are closed by __exit__.
    self._handles = [open(folder / name, 'wb') for name in names]  # noqa: SIM115
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

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, kind, *_) -> None:
    for handle in self._handles:
      os.fsync(handle.fileno())
      handle.close()
    assert kind or not self._places, f'not written: {sorted(self._places)}'


def _by_layer(name: str) -> list[Any]:
  """Returns a sort key that compares the numbers in names as numbers."""
  return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', name)]
