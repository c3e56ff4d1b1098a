"""Input files: found by globs, and read by line; any path that fsspec knows."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lm import files
from lm.errors import UserError


def find(globs: Iterable[str], formats: tuple[str, ...], field: str) -> list[tuple[str, int]]:
  """(path, bytes) of the files that match, sorted, each once.

  Raises UserError that names `field` for a glob that no file matches, or a file whose name ends in none of `formats`.
  """
  found = set()
  for spec in globs:
    system, path = fsspec.core.url_to_fs(spec)
    names = [name for name in system.glob(path) if system.isfile(name)]
    if not names:
      raise UserError(f'{field}: no file matches {spec!r}')
    local = isinstance(system, LocalFileSystem)
    found |= {(name if local else system.unstrip_protocol(name), system.size(name)) for name in names}
  for name, _ in found:
    if not name.endswith(formats):
      raise UserError(f'{field}: {name} is of no known format; allowed: {", ".join(formats)}')
  return sorted(found)


def json_lines(path: str) -> Iterator[tuple[str, Any]]:
  """(place, value) of each line of a JSONL file, also of a packed one: errors may name the place.

  Raises UserError where a line is not JSON, or the file is cut off or damaged.
  """
  with files.unpacking(path), fsspec.open(path, 'rb', compression='infer') as file:
    for number, line in enumerate(file, 1):
      place = f'{path}, line {number}'
      try:
        value = json.loads(line)
      except ValueError as error:
        raise UserError(f'{place}, is not JSON: {error}') from error
      yield place, value
