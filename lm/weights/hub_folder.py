"""A model as Hugging Face's transformers stores it: its config, tensors and tokenizer files.

Weights are read only from safetensors files (a pickle can run code), tensor by tensor.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors

from lm.base import buckets, files
from lm.base.errors import UserError, invalid
from lm.weights import remote_tensors

Index = tuple[slice, ...]

SINGLE, SHARDED = 'model.safetensors', 'model.safetensors.index.json'
TOKENIZER_FILES = (
  'tokenizer.json',
  'tokenizer.model',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'generation_config.json',
)


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
  config = files.read_object(path / 'config.json')
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
      raise invalid(file, 'a safetensors file', error) from error
  return Source(path, config, tensors, tokenizer_files(path), (path / 'config.json', *weights))


def tokenizer_files(path: files.AnyPath) -> dict[str, bytes]:
  """Returns the content of those of TOKENIZER_FILES that a folder has."""
  return {name: (path / name).read_bytes() for name in TOKENIZER_FILES if (path / name).is_file()}


def _weight_files(path: files.AnyPath) -> list[files.AnyPath]:
  if (path / SINGLE).is_file():
    return [path / SINGLE]
  if (path / SHARDED).is_file():
    weights = files.read_object(path / SHARDED).get('weight_map')
    if not isinstance(weights, dict):
      raise UserError(
        field=f'weight_map of {path / SHARDED}', value=weights, allowed='a JSON object'
      )
    return sorted({files.within(path, name, path / SHARDED) for name in weights.values()})
  pickles = sorted(p.name for p in path.iterdir() if p.suffix in ('.bin', '.pt', '.pth', '.ckpt'))
  hint = (
    f'{pickles[0]} is a pickle, which can run code and is not read: convert it to safetensors.'
    if pickles
    else ''
  )
  raise UserError(field=f'{SINGLE} or {SHARDED} in {path}', message=hint)


def _read_file(file: pathlib.Path, name: str, index: Index) -> np.ndarray:
  # The file is opened for each read, because the pages of a file that stays open count as memory of
  # this process.
  with safetensors.safe_open(file, 'np') as opened:
    return opened.get_slice(name)[index]
