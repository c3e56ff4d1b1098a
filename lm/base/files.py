"""Files that are either whole or absent, on a disk (written under a temporary name, flushed,
renamed) or in a bucket.

`as_path` takes what the user gave, and the result has pathlib's methods wherever it lies. No jax
here.
"""

import concurrent.futures
import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Union

from lm.base import buckets
from lm.base.errors import UserError

if TYPE_CHECKING:
  from etils import epath

Path = str | os.PathLike
AnyPath = Union[pathlib.Path, 'epath.Path']  # what `as_path` gives
HASH_THREADS = 8  # files hashed at one time; hashing lets go of Python's lock


def as_path(value: Path) -> AnyPath:
  """The path of a local file or folder, or of a URL `gs://BUCKET/NAME` or `s3://BUCKET/NAME`: both
  have pathlib's methods.

  Raises UserError for a URL of another kind, and for a bucket that cannot be reached
  (`lm.base.buckets.path`).
  """
  text = os.fspath(value)
  if buckets.is_url(text):
    return buckets.path(text)
  if re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', text):
    raise UserError(
      f'{text} cannot be opened; allowed: a local path, gs://BUCKET/NAME, s3://BUCKET/NAME'
    )
  return pathlib.Path(text)


def local_path(value: Path, what: str) -> pathlib.Path:
  """`as_path` of what cannot lie in a bucket. Raises UserError that says so; `what` names it."""
  if buckets.is_url(value):
    raise UserError(f'{what} is {os.fspath(value)}; only a local path is possible')
  return pathlib.Path(as_path(value))


def absolute(value: Path) -> AnyPath:
  """`as_path`, independent of the working directory."""
  found = as_path(value)
  return found if buckets.is_url(found) else found.absolute()


def make_dir(folder: AnyPath) -> None:
  """Makes a folder and those above it where they are missing; a bucket has none, and is never
  made.
  """
  if not buckets.is_url(folder):
    folder.mkdir(parents=True, exist_ok=True)


def size(file: Path) -> int:
  """Bytes of a file."""
  file = as_path(file)
  return file.stat().length if buckets.is_url(file) else file.stat().st_size


def sizes(folder: Path) -> dict[str, int]:
  """Bytes of each file below a folder, at any depth, by its name relative to the folder, sorted."""
  folder = as_path(folder)
  if buckets.is_url(folder):
    return dict(sorted(buckets.sizes(folder).items()))
  return {
    p.relative_to(folder).as_posix(): p.stat().st_size
    for p in sorted(folder.rglob('*'))
    if p.is_file()
  }


def remove(folder: Path, first: str = '') -> None:
  """Removes a folder, if it is there, and in it the file `first`, which makes it complete, before
  the others.
  """
  folder = as_path(folder)
  if buckets.is_url(folder):
    return buckets.remove(folder, first)
  if first:
    (folder / first).unlink(missing_ok=True)
  shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[pathlib.Path]:
  """Yields the name of a temporary local file; it becomes the file `path` if the block ends well,
  else it is removed.
  """
  if buckets.is_url(path):
    target = as_path(path)
    with tempfile.TemporaryDirectory(prefix='deepdive-') as folder:
      yield pathlib.Path(folder) / target.name
      buckets.upload(pathlib.Path(folder) / target.name, target)
    return
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    yield temporary
    with open(temporary, 'rb') as f:
      os.fsync(f.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path: Path, last: str = '') -> Iterator[pathlib.Path]:
  """Yields an empty temporary local folder; it replaces `path` if the block ends well, else it is
  removed.

  The old folder is moved aside, not removed, until the new one is in its place; the next call puts
  back one that a kill between the two left aside. In a bucket, where nothing is renamed, the file
  called `last` says that the others are there: of the old folder it is removed first, of the new
  one it is written last.
  """
  if buckets.is_url(path):
    with tempfile.TemporaryDirectory(prefix='deepdive-') as folder:
      yield pathlib.Path(folder)
      upload(pathlib.Path(folder), path, last)
    return
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary, aside = path.with_name(f'.{path.name}.tmp'), path.with_name(f'.{path.name}.old')
  if aside.exists() and not path.exists():
    os.replace(aside, path)
  shutil.rmtree(aside, ignore_errors=True)
  shutil.rmtree(temporary, ignore_errors=True)  # what a killed run left
  temporary.mkdir()
  try:
    yield temporary
    for written in [*temporary.rglob('*'), temporary]:
      _sync(written)
    replace_dir(temporary, path, last)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: pathlib.Path) -> None:
  """Waits until a file, or the list of names in a folder, is on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def replace_dir(source: Path, target: Path, last: str) -> None:
  """Moves a folder in the place of another, which is removed; `last`: as in `atomic_dir`. `source`
  may not be in `target`.
  """
  source, target = as_path(source), as_path(target)
  if buckets.is_url(target):
    return buckets.move(source, target, last)
  aside = target.with_name(f'.{target.name}.old')
  shutil.rmtree(aside, ignore_errors=True)
  if target.exists():
    os.replace(target, aside)
  os.replace(source, target)
  _sync(target.parent)
  shutil.rmtree(aside, ignore_errors=True)


def upload(source: pathlib.Path, target: Path, last: str) -> None:
  """Puts the files below a local folder in the place of a bucket's folder, the one called `last` at
  the end.
  """
  target = as_path(target)
  buckets.remove(target, first=last)
  for name in sorted(sizes(source), key=lambda name: (name == last, name)):
    buckets.upload(source / name, target / name)


@contextlib.contextmanager
def local_dir(path: Path) -> Iterator[pathlib.Path]:
  """Yields a local folder in which libraries may write that know no buckets: `path`, or one that is
  copied there at the end.
  """
  if not buckets.is_url(path):
    yield pathlib.Path(path)
    return
  with tempfile.TemporaryDirectory(prefix='deepdive-') as folder:
    yield pathlib.Path(folder)
    for name in sizes(folder):
      buckets.upload(pathlib.Path(folder) / name, as_path(path) / name)


@contextlib.contextmanager
def locked(folder: Path, seconds: float = 0.0) -> Iterator[int | None]:
  """Holds a folder, made if need be, against other processes that do; yields the file descriptor
  that the lock is on.

  The lock goes with the process, however it ends, and with the processes that it has given the
  descriptor to. A bucket has no locks (None is yielded): what two processes write there at one
  time, the last one has written.

  Raises UserError that names the holder if that one does not end within `seconds`.
  """
  if buckets.is_url(folder):
    yield None
    return
  os.makedirs(folder, exist_ok=True)
  with open(pathlib.Path(folder) / '.lock', 'a+', encoding='utf-8') as file:
    deadline = time.monotonic() + seconds
    while True:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except BlockingIOError:
        if time.monotonic() >= deadline:
          file.seek(0)
          raise UserError(f'{folder} is already in use by pid {file.read()}') from None
        time.sleep(0.1)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    yield file.fileno()


@contextlib.contextmanager
def unpacking(path: Path) -> Iterator[None]:
  """What reads a gzip file inside raises UserError, which names it, where it is cut off or
  damaged.
  """
  try:
    yield
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise UserError(f'{path} is cut off or damaged: {error}') from error


def write_text(path: Path, text: str) -> None:
  """Writes `path` whole or not at all (UTF-8)."""
  write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
  """Writes `path` whole or not at all."""
  if buckets.is_url(path):
    as_path(path).write_bytes(content)
    return
  with atomic_path(path) as temporary:
    temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
  """Writes `value` as indented JSON, whole or not at all. NaN is refused: it is not JSON."""
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def read_json(path: Path) -> Any:
  """Reads a JSON file. Raises FileNotFoundError, or UserError that names the file when it is not
  JSON, or its bucket when that cannot be reached.
  """
  file = as_path(path)
  try:
    return json.loads(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise UserError(f'{path} is not valid JSON: {error}') from error


def within(folder: pathlib.Path, name: object, source: Path) -> pathlib.Path:
  """The path of a file in `folder` that the file `source` names.

  A symbolic link that lies in the folder is followed, as Hugging Face's cache consists of them.
  Raises UserError if the name is not a relative path that stays inside the folder: `source` may
  come from anybody.
  """
  parts = pathlib.PurePosixPath(name).parts if isinstance(name, str) and '\0' not in name else ()
  if not parts or parts[0] == '/' or '..' in parts:
    raise UserError(f'{source} names the file {name!r}; allowed: names of files inside {folder}')
  return folder / name


def sha256(path: Path) -> str:
  """Hex SHA-256 of a file's bytes."""
  path = as_path(path)
  with buckets.reader(path) if buckets.is_url(path) else open(path, 'rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()


def sha256_all(paths: Sequence[Path]) -> list[str]:
  """`sha256` of several files, HASH_THREADS at one time."""
  with concurrent.futures.ThreadPoolExecutor(HASH_THREADS) as threads:
    return list(threads.map(sha256, paths))


def digest(value: Any) -> str:
  """Hex SHA-256 of a JSON value, the same whatever the order of its keys."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def differences(stored: Any, expected: Any) -> Iterator[tuple[str, Any, Any]]:
  """The places where two JSON values differ: (dotted path, stored value, expected value) each.

  A key that only one of them has counts as None in the other; a tuple in `expected` equals a list.
  """
  expected = json.loads(json.dumps(expected))
  if isinstance(stored, dict) and isinstance(expected, dict):
    for key in sorted(stored.keys() | expected.keys()):
      for path, was, now in differences(stored.get(key), expected.get(key)):
        yield '.'.join(filter(None, (key, path))), was, now
  elif stored != expected:
    yield '', stored, expected


def difference(stored: Any, expected: Any) -> tuple[str, Any, Any] | None:
  """The first of `differences`, or None if the values are equal."""
  return next(differences(stored, expected), None)
