"""Files that are either whole or absent, on a disk or in a bucket.

On a disk they are written under a temporary name, flushed and renamed. `as_path` turns what the
user gave into a path with pathlib's methods, wherever it is. This module imports no jax.
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
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Union

from lm.base import buckets
from lm.base.errors import UserError, invalid

if TYPE_CHECKING:
  from etils import epath

Path = str | os.PathLike
AnyPath = Union[pathlib.Path, 'epath.Path']  # what `as_path` returns
HASH_THREADS = 8  # files hashed at a time; hashing releases Python's global lock


def as_path(value: Path) -> AnyPath:
  """Returns the path of a local file or folder, or of a URL gs://BUCKET/NAME or s3://BUCKET/NAME.

  Raises:
    UserError: the URL is of another kind, or its bucket cannot be reached.
  """
  text = os.fspath(value)
  if buckets.is_url(text):
    return buckets.path(text)
  if re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', text):
    raise UserError(
      field='path', value=text, allowed='a local path, gs://BUCKET/NAME, s3://BUCKET/NAME'
    )
  return pathlib.Path(text)


def local_path(value: Path, what: str) -> pathlib.Path:
  """Returns a path that must be local. Raises UserError, which calls it `what`, for a URL."""
  if buckets.is_url(value):
    raise UserError(field=what, value=os.fspath(value), allowed='a local path')
  return pathlib.Path(as_path(value))


def absolute(value: Path) -> AnyPath:
  """Returns a path that does not depend on the working directory."""
  found = as_path(value)
  return found if buckets.is_url(found) else found.absolute()


def make_dir(folder: AnyPath) -> None:
  """Creates a folder and its parents where they are missing; in a bucket there is nothing to do."""
  if not buckets.is_url(folder):
    folder.mkdir(parents=True, exist_ok=True)


def size(file: Path) -> int:
  """Returns the bytes of a file."""
  file = as_path(file)
  return file.stat().length if buckets.is_url(file) else file.stat().st_size


def sizes(folder: Path) -> dict[str, int]:
  """Returns the bytes of each file below a folder, at any depth, by its relative name, sorted."""
  folder = as_path(folder)
  if buckets.is_url(folder):
    return dict(sorted(buckets.sizes(folder).items()))
  return {
    p.relative_to(folder).as_posix(): p.stat().st_size
    for p in sorted(folder.rglob('*'))
    if p.is_file()
  }


def remove(folder: Path, first: str = '') -> None:
  """Removes a folder, if it exists: first the file `first`, which marks it as complete."""
  folder = as_path(folder)
  if buckets.is_url(folder):
    return buckets.remove(folder, first)
  if first:
    (folder / first).unlink(missing_ok=True)
  shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[pathlib.Path]:
  """Yields a temporary local path; the file becomes `path` unless the block raises."""
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
  """Yields an empty temporary local folder; it replaces `path` unless the block raises.

  The old folder is moved aside, not removed, until the new one is in its place; where a kill comes
  between the two, the next call puts the old one back. In a bucket, where nothing is renamed, the
  file called `last` marks the folder as complete: it is removed first from the old folder and
  written last to the new one.
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
  shutil.rmtree(temporary, ignore_errors=True)  # a killed run may have left it
  temporary.mkdir()
  try:
    yield temporary
    for written in [*temporary.rglob('*'), temporary]:
      _sync(written)
    replace_dir(temporary, path, last)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: pathlib.Path) -> None:
  """Waits until a file, or the list of names in a folder, has been written to the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def replace_dir(source: Path, target: Path, last: str) -> None:
  """Replaces the folder `target` by `source`, which must not be inside it.

  `last` is the name of the file that marks the folder as complete, as in `atomic_dir`.
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
  """Replaces a bucket's folder by the files below a local one, the file `last` at the end."""
  target = as_path(target)
  buckets.remove(target, first=last)
  for name in sorted(sizes(source), key=lambda name: (name == last, name)):
    buckets.upload(source / name, target / name)


@contextlib.contextmanager
def local_dir(path: Path) -> Iterator[pathlib.Path]:
  """Yields a local folder for libraries that cannot write to buckets.

  It is `path` itself, or a temporary folder whose files are copied there at the end.
  """
  if not buckets.is_url(path):
    yield pathlib.Path(path)
    return
  with tempfile.TemporaryDirectory(prefix='deepdive-') as folder:
    yield pathlib.Path(folder)
    for name in sizes(folder):
      buckets.upload(pathlib.Path(folder) / name, as_path(path) / name)


@contextlib.contextmanager
def locked(
  folder: Path,
  seconds: float = 0.0,
  *,
  clock: Callable[[], float] = time.monotonic,
  sleep: Callable[[float], object] = time.sleep,
) -> Iterator[int | None]:
  """Locks a folder, created if missing, against other processes; yields the lock's descriptor.

  The lock ends with the process, however it ends, and with the processes that inherited the
  descriptor. A bucket has no locks, and None is yielded: of two processes that write there at the
  same time, the last one wins.

  Args:
    folder: the folder to lock.
    seconds: how long to wait for it.
    clock: returns the time in seconds.
    sleep: waits so many seconds between two attempts.

  Raises:
    UserError: the folder is still locked after `seconds`; the error names the process.
  """
  if buckets.is_url(folder):
    yield None
    return
  os.makedirs(folder, exist_ok=True)
  with open(pathlib.Path(folder) / '.lock', 'a+', encoding='utf-8') as file:
    deadline = clock() + seconds
    while True:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except BlockingIOError:
        if clock() >= deadline:
          file.seek(0)
          raise invalid(folder, 'free', f'process {file.read()} uses it') from None
        sleep(0.1)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    yield file.fileno()


@contextlib.contextmanager
def unpacking(path: Path) -> Iterator[None]:
  """Raises UserError, with the file's name, where the block meets damaged gzip data."""
  try:
    yield
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise invalid(path, 'a whole gzip file', error) from error


def write_text(path: Path, text: str) -> None:
  """Writes a UTF-8 file, whole or not at all."""
  write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
  """Writes a file, whole or not at all."""
  if buckets.is_url(path):
    as_path(path).write_bytes(content)
    return
  with atomic_path(path) as temporary:
    temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
  """Writes indented JSON, whole or not at all. Raises ValueError for NaN, which is not JSON."""
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def read_json(path: Path) -> Any:
  """Returns the value in a JSON file.

  Raises:
    FileNotFoundError: there is no such file.
    UserError: the file is not JSON, or its bucket cannot be reached.
  """
  file = as_path(path)
  try:
    return json.loads(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise invalid(path, 'valid JSON', error) from error


def read_object(path: Path) -> dict[str, Any]:
  """Returns the JSON object in a file. Raises as `read_json`, and UserError for another value."""
  value = read_json(path)
  if not isinstance(value, dict):
    raise UserError(field=str(path), value=value, allowed='a JSON object')
  return value


def within(folder: pathlib.Path, name: object, source: Path) -> pathlib.Path:
  """Returns the path of a file in `folder` that is named by the untrusted file `source`.

  A symbolic link in the folder is followed, since Hugging Face's cache consists of them.

  Raises:
    UserError: the name is not a relative path that stays inside the folder.
  """
  parts = pathlib.PurePosixPath(name).parts if isinstance(name, str) and '\0' not in name else ()
  if not parts or parts[0] == '/' or '..' in parts:
    raise UserError(
      field=f'file name in {source}', value=name, allowed=f'the name of a file inside {folder}'
    )
  return folder / name


def sha256(path: Path) -> str:
  """Returns the hexadecimal SHA-256 of a file's bytes."""
  path = as_path(path)
  with buckets.reader(path) if buckets.is_url(path) else open(path, 'rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()


def sha256_all(paths: Sequence[Path]) -> list[str]:
  """Returns the SHA-256 of each file, HASH_THREADS of them at a time."""
  with concurrent.futures.ThreadPoolExecutor(HASH_THREADS) as threads:
    return list(threads.map(sha256, paths))


def digest(value: Any) -> str:
  """Returns the hexadecimal SHA-256 of a JSON value; the order of keys does not matter."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def differences(stored: Any, expected: Any) -> Iterator[tuple[str, Any, Any]]:
  """Yields (dotted path, stored value, expected value) for each place where two JSON values differ.

  A key that only one of them has counts as None in the other; a tuple in `expected` equals a list.
  """
  expected = json.loads(json.dumps(expected))
  if isinstance(stored, dict) and isinstance(expected, dict):
    for key in sorted(stored.keys() | expected.keys()):
      for path, was, now in differences(stored.get(key), expected.get(key)):
        yield f'{key}.{path}' if path else key, was, now
  elif stored != expected:
    yield '', stored, expected


def difference(stored: Any, expected: Any) -> tuple[str, Any, Any] | None:
  """Returns the first of `differences`, or None if the values are equal."""
  return next(differences(stored, expected), None)
