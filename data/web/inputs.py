"""Opens folders and input files, local or remote, found by glob and read by line.

Unlike data.records, a damaged input is an error here: these files are the user's own labels and
evaluation items, of which none may be skipped.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import fsspec
from datatrove.io import DataFolder
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from lm.base import files
from lm.base.errors import UserError, invalid


def filesystem(path: files.Path) -> tuple[AbstractFileSystem, str]:
  """Returns the file system of a path, and the path's name in it.

  Raises UserError if fsspec does not know the protocol or lacks the package for it.
  """
  try:
    return fsspec.core.url_to_fs(str(path))
  # fsspec says 'Install s3fs to access S3' or 'Protocol not known: s4'.
  except (ImportError, ValueError) as error:
    raise invalid(path, 'a path that can be opened', error) from error


def folder(path: files.Path) -> DataFolder:
  """Returns a path as datatrove's folder object. Raises UserError as `filesystem` does."""
  filesystem(path)
  return DataFolder(str(path))


def names(system: AbstractFileSystem, glob: str) -> list[tuple[str, int]]:
  """Returns (path, bytes) of the files that match a glob in a file system, sorted."""
  found = sorted(name for name in system.glob(glob) if system.isfile(name))
  local = isinstance(system, LocalFileSystem)
  return [(name if local else system.unstrip_protocol(name), system.size(name)) for name in found]


def find(globs: Iterable[str], formats: tuple[str, ...], field: str) -> list[tuple[str, int]]:
  """Returns (path, bytes) of the files that match, sorted and without repetition.

  Raises UserError that names `field` for a glob that no file matches, or for a file whose name ends
  in none of `formats`.
  """
  found = set()
  for spec in globs:
    matches = names(*filesystem(spec))
    if not matches:
      raise UserError(field=field, value=spec, allowed='a path or a glob that a file matches')
    found.update(matches)
  for name, _ in found:
    if not name.endswith(formats):
      raise UserError(
        field=field, value=name, allowed=f'files whose names end in {", ".join(formats)}'
      )
  return sorted(found)


def json_lines(path: str) -> Iterator[tuple[str, Any]]:
  """Yields (place, value) of each line of a JSONL file, plain or compressed.

  `place` names the file and line, for use in errors. Raises UserError if a line is not JSON, or the
  file is cut off or damaged.
  """
  with files.unpacking(path), fsspec.open(path, 'rb', compression='infer') as file:
    for number, line in enumerate(file, 1):
      place = f'{path}, line {number}'
      try:
        value = json.loads(line)
      except ValueError as error:
        raise invalid(place, 'JSON', error) from error
      yield place, value
