"""Files that are either whole or absent: written under a temporary name, flushed, then renamed. No jax here."""

import concurrent.futures
import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from lm.errors import UserError

Path = str | os.PathLike
HASH_THREADS = 8  # files hashed at one time; hashing lets go of Python's lock


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[pathlib.Path]:
  """Yields a temporary file name beside `path`; renames it to `path` if the block ends well, else removes it."""
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
def atomic_dir(path: Path) -> Iterator[pathlib.Path]:
  """Yields an empty temporary folder; it replaces `path` if the block ends well, else it is removed.

  The old folder is moved aside, not removed, until the new one is in its place; the next call puts back one that a kill
  between the two left aside.
  """
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
    if path.exists():
      os.replace(path, aside)
    os.replace(temporary, path)
    _sync(path.parent)
    shutil.rmtree(aside, ignore_errors=True)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: pathlib.Path) -> None:
  """Waits until a file, or the list of names in a folder, is on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path, seconds: float = 0.0) -> Iterator[int]:
  """Holds a folder, made if need be, against other processes that do; yields the file descriptor that the lock is on.

  The lock goes with the process, however it ends, and with the processes that it has given the descriptor to. Raises
  UserError that names its holder if that one does not end within `seconds`.
  """
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
  """What reads a gzip file inside raises UserError, which names it, where it is cut off or damaged."""
  try:
    yield
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise UserError(f'{path} is cut off or damaged: {error}') from error


def write_text(path: Path, text: str) -> None:
  """Writes `path` whole or not at all (UTF-8)."""
  with atomic_path(path) as temporary:
    temporary.write_text(text, encoding='utf-8')


def write_bytes(path: Path, content: bytes) -> None:
  """Writes `path` whole or not at all."""
  with atomic_path(path) as temporary:
    temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
  """Writes `value` as indented JSON, whole or not at all. NaN is refused: it is not JSON."""
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def read_json(path: Path) -> Any:
  """Reads a JSON file. Raises FileNotFoundError, or UserError that names the file when it is not JSON."""
  try:
    return json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except ValueError as error:
    raise UserError(f'{path} is not valid JSON: {error}') from error


def within(folder: pathlib.Path, name: object, source: Path) -> pathlib.Path:
  """The path of a file in `folder` that the file `source` names.

  A symbolic link that lies in the folder is followed, as Hugging Face's cache consists of them. Raises UserError if the
  name is not a relative path that stays inside the folder: `source` may come from anybody.
  """
  parts = pathlib.PurePosixPath(name).parts if isinstance(name, str) and '\0' not in name else ()
  if not parts or parts[0] == '/' or '..' in parts:
    raise UserError(f'{source} names the file {name!r}; allowed: names of files inside {folder}')
  return folder / name


def sha256(path: Path) -> str:
  """Hex SHA-256 of a file's bytes."""
  with open(path, 'rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()


def sha256_all(paths: Sequence[Path]) -> list[str]:
  """`sha256` of several files, HASH_THREADS at one time."""
  with concurrent.futures.ThreadPoolExecutor(HASH_THREADS) as threads:
    return list(threads.map(sha256, paths))


def digest(value: Any) -> str:
  """Hex SHA-256 of a JSON value, the same whatever the order of its keys."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def difference(stored: Any, expected: Any) -> tuple[str, Any, Any] | None:
  """The first place where two JSON values differ: (dotted path, stored value, expected value), or None if equal.

  A key that only one of them has counts as None in the other; a tuple in `expected` equals a list.
  """
  expected = json.loads(json.dumps(expected))
  if isinstance(stored, dict) and isinstance(expected, dict):
    for key in sorted(stored.keys() | expected.keys()):
      if found := difference(stored.get(key), expected.get(key)):
        return '.'.join(filter(None, (key, found[0]))), found[1], found[2]
    return None
  return None if stored == expected else ('', stored, expected)
