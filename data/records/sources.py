"""Finds input files by glob, locally or in a bucket, and identifies them by content digest.

The digest of a large file is cached in `CACHE`, so that starting again does not read unchanged
files.
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
from lm.base.errors import invalid

Inputs = files.Path | Sequence[files.Path]
CACHE = pathlib.Path.home() / '.cache' / 'deepdive' / 'digests'  # one small file per large input
# Digests of smaller local files are not cached: at about 1 GB/s they are computed in no time.
REMEMBER_BYTES = 1 << 20
SETTLED_SECONDS = 2.0  # minimum age at which another write would change a file's times


class File(NamedTuple):
  """An input file.

  Attributes:
    path: local path or URL.
    size: size in bytes.
    stamp: a string that changes whenever the file is written.
    changed: time of the last write in seconds since 1970. It is 0 in a bucket, where the stamp
      alone detects a change.
  """

  path: str
  size: int
  stamp: str
  changed: float


def find(inputs: Inputs) -> list[File]:
  """Returns the files that match paths, URLs or globs, sorted and without repetition.

  Args:
    inputs: a sequence of patterns, or one string of patterns separated by commas.

  Raises:
    FileNotFoundError: a pattern matches no file.
    UserError: fsspec does not know the protocol or lacks the package for it.
  """
  if isinstance(inputs, str):
    inputs = inputs.split(',')
  elif isinstance(inputs, os.PathLike):
    inputs = [inputs]
  found = {}
  for pattern in map(os.fspath, inputs):
    system, name = _filesystem(pattern)
    matches = {name: system.info(name)} if system.isfile(name) else system.glob(name, detail=True)
    matches = {name: info for name, info in matches.items() if info['type'] == 'file'}
    if not matches:
      raise FileNotFoundError(f'no input file matches {pattern!r}')
    for name, info in matches.items():
      file = _file(system, name, info)
      found[file.path] = file
  return [found[path] for path in sorted(found)]


def describe(path: files.Path) -> File:
  """Returns the file at a path or URL. Raises FileNotFoundError if there is none."""
  system, name = _filesystem(os.fspath(path))
  return _file(system, name, system.info(name))


def names(found: Sequence[File]) -> str:
  """Returns the paths of the first three files, for use in a message."""
  shown = ', '.join(file.path for file in found[:3])
  return f'{shown} and {len(found) - 3} more' if len(found) > 3 else shown


def sha256(file: File, now: Callable[[], float] = time.time) -> str:
  """Returns the hex SHA-256 of a file's bytes, from the cache if the file has not changed.

  Args:
    file: the file to read.
    now: returns the time in seconds since 1970. The digest of a file that was written just now is
      not cached, because another write within the resolution of the file system's times could not
      be detected.
  """
  note = CACHE / f'{hashlib.sha256(file.path.encode()).hexdigest()}.json'
  known = {'path': file.path, 'stamp': file.stamp}
  remember = file.size >= REMEMBER_BYTES or '://' in file.path
  if remember and note.exists():
    remembered = files.read_json(note)
    if remembered.items() >= known.items():
      return remembered['sha256']
  with fsspec.open(file.path, 'rb') as content:
    digest = hashlib.file_digest(content, 'sha256').hexdigest()
  if remember and now() - file.changed > SETTLED_SECONDS:
    # If the cache cannot be written, the file is read again next time.
    with contextlib.suppress(OSError):
      files.write_json(note, known | {'sha256': digest})
  return digest


def _filesystem(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
  buckets.check(path)
  try:
    return fsspec.core.url_to_fs(path)
  # fsspec says 'Install s3fs to access S3' or 'Protocol not known: s4'.
  except (ImportError, ValueError) as error:
    raise invalid(path, 'a path that can be opened', error) from error


def _file(system: fsspec.AbstractFileSystem, name: str, info: dict) -> File:
  if isinstance(system, LocalFileSystem):
    status = os.stat(name)
    times = [status.st_mtime_ns, status.st_ctime_ns]
    stamp = json.dumps([status.st_size, status.st_ino, *times])
    return File(name, status.st_size, stamp, changed=max(times) / 1e9)
  stamp = json.dumps(info, sort_keys=True, default=str)
  return File(system.unstrip_protocol(name), info['size'], stamp, changed=0.0)
