"""Input files: found by globs in local folders and in buckets, and known by the digest of their
content.

The digest of a large file is remembered under `CACHE`, so that a start does not read again what has
not changed.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lm.base import buckets, files
from lm.base.errors import UserError

Inputs = files.Path | Sequence[files.Path]
CACHE = pathlib.Path.home() / '.cache' / 'deepdive' / 'digests'  # a small file for each large one
REMEMBER_BYTES = (
  16 << 20
)  # size from which a digest is remembered: at about 1 GB/s, smaller files take no time
SETTLED_SECONDS = 2.0  # age from which a file's times tell that it was written again


class File(NamedTuple):
  """A file.

  Attributes:
    path: local path or URL.
    size: bytes.
    stamp: a text that is another one after the file was written again.
    changed: when it was last written, in seconds since 1970; 0 in a bucket, where the stamp alone
      tells.
  """

  path: str
  size: int
  stamp: str
  changed: float


def find(inputs: Inputs) -> list[File]:
  """The files that paths, URLs or globs (a sequence, or one string of them between commas) match,
  sorted, each once.

  Raises:
    FileNotFoundError: one matches no file. UserError: it is of a kind that fsspec does not know or
      has no package for.
  """
  patterns = inputs.split(',') if isinstance(inputs, str) else inputs
  found = {}
  for pattern in map(os.fspath, [patterns] if isinstance(patterns, os.PathLike) else patterns):
    system, name = _filesystem(pattern)
    matches = {name: system.info(name)} if system.isfile(name) else system.glob(name, detail=True)
    matches = {name: info for name, info in matches.items() if info['type'] == 'file'}
    if not matches:
      raise FileNotFoundError(f'no input file matches {pattern!r}')
    found |= {file.path: file for file in (_file(system, *match) for match in matches.items())}
  return [found[path] for path in sorted(found)]


def describe(path: files.Path) -> File:
  """The file of a path or URL. Raises FileNotFoundError if there is none."""
  system, name = _filesystem(os.fspath(path))
  return _file(system, name, system.info(name))


def names(found: Sequence[File]) -> str:
  """The paths of a few of the files, for a message."""
  return ', '.join(file.path for file in found[:3]) + (
    f' and {len(found) - 3} more' if len(found) > 3 else ''
  )


def sha256(file: File, now: Callable[[], float] = time.time) -> str:
  """Hex SHA-256 of a file's bytes, from memory where it has not changed since they were last read.

  Args:
    now: gives the time in seconds since 1970. A file that was written just now is read again next
      time, as a change within the resolution of the file system's times would not show.
  """
  note = CACHE / f'{hashlib.sha256(file.path.encode()).hexdigest()}.json'
  known = {'path': file.path, 'stamp': file.stamp}
  if file.size >= REMEMBER_BYTES and note.exists():
    remembered = files.read_json(note)
    if remembered.items() >= known.items():
      return remembered['sha256']
  with fsspec.open(file.path, 'rb') as content:
    digest = hashlib.file_digest(content, 'sha256').hexdigest()
  if file.size >= REMEMBER_BYTES and now() - file.changed > SETTLED_SECONDS:
    with contextlib.suppress(
      OSError
    ):  # where nothing can be remembered, the file is read again next time
      files.write_json(note, known | {'sha256': digest})
  return digest


def _filesystem(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
  buckets.check(path)
  try:
    return fsspec.core.url_to_fs(path)
  except (
    ImportError,
    ValueError,
  ) as error:  # 'Install s3fs to access S3', 'Protocol not known: s4'
    raise UserError(f'{path}: {error}') from error


def _file(system: fsspec.AbstractFileSystem, name: str, info: dict) -> File:
  if isinstance(system, LocalFileSystem):
    status = os.stat(name)
    times = [status.st_mtime_ns, status.st_ctime_ns]
    return File(
      name, status.st_size, json.dumps([status.st_size, status.st_ino, *times]), max(times) / 1e9
    )
  return File(
    system.unstrip_protocol(name), info['size'], json.dumps(info, sort_keys=True, default=str), 0.0
  )
