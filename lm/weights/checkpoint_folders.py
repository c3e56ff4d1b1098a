"""The folders of checkpoints: which are complete, whether their files are what was written.

A folder `checkpoints/STEP` with a `digest.json` is complete; lm/weights/checkpoint.py describes the
files and the order in which they are written.
"""

import jax

from lm.base import buckets, files
from lm.base.errors import UserError


def numbered(directory: files.AnyPath) -> list[int]:
  """Returns the steps that have a folder, complete or not.

  Raises OSError where a bucket cannot be listed: `is_dir` and `is_file` would say that there is
  nothing, and a run would start from scratch, or remove checkpoints that it takes for unfinished.
  """
  try:
    return [int(p.name) for p in directory.iterdir() if p.name.isdecimal()]
  except (FileNotFoundError, NotADirectoryError):
    return []


def steps(directory: files.AnyPath) -> list[int]:
  """Returns the steps of the complete checkpoints, ascending."""
  return sorted(
    step for step in numbered(directory) if (directory / str(step) / 'digest.json').exists()
  )


def folders(directory: files.AnyPath) -> list[int]:
  """Returns the steps that should be complete.

  On a disk these are all steps that have a folder, even if its digest is lost.
  """
  return steps(directory) if buckets.is_url(directory) else numbered(directory)


def unfinished(directory: files.AnyPath) -> list[files.AnyPath]:
  """Returns the folders that a killed save or removal left behind."""
  if buckets.is_url(directory):
    return [directory / str(step) for step in set(numbered(directory)).difference(steps(directory))]
  return [*directory.glob('*.orbax-checkpoint-tmp*'), *directory.glob('.*.tmp')]


def remove(folder: files.AnyPath) -> None:
  """Removes a checkpoint so that a kill half-way leaves nothing that looks complete."""
  if not buckets.is_url(folder):
    folder = folder.rename(folder.with_name(f'.{folder.name}.tmp'))
  files.remove(folder, first='digest.json')


def verify(path: files.AnyPath, *prefixes: str) -> None:
  """Compares the files whose names begin with one of `prefixes` with their digests.

  Each host reads its share of them.

  Raises:
    UserError: a file or the digest is missing, or a file differs from its digest.
  """
  if not (path / 'digest.json').exists():
    raise UserError(f'corrupt checkpoint {path}: digest.json is missing')
  digests = files.read_json(path / 'digest.json')
  if not isinstance(digests, dict):
    raise UserError(f'corrupt checkpoint {path}: digest.json is not a JSON object')
  names = [name for name in sorted(digests) if name.startswith(prefixes)][
    jax.process_index() :: jax.process_count()
  ]
  paths = [files.within(path, name, path / 'digest.json') for name in names]
  for name, file in zip(names, paths, strict=True):
    if not file.exists():
      raise UserError(f'corrupt checkpoint {path}: {name} is missing')
  for name, found in zip(names, files.sha256_all(paths), strict=True):
    if found != digests[name]:
      raise UserError(
        f'corrupt checkpoint {path}: {name} is not the file that was written (its sha256 differs)'
      )
