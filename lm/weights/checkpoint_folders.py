"""The folders of checkpoints: which one to use, which are complete, and whether they are intact.

A folder `checkpoints/STEP` with a `digest.json` is complete; lm/weights/checkpoint.py describes the
files and the order in which they are written.
"""

from typing import Any

import jax

from lm.base import buckets, files
from lm.base.errors import UserError
from lm.weights import best


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
    raise UserError(field=f'digest.json of checkpoint {path}')
  digests = files.read_object(path / 'digest.json')
  names = [name for name in sorted(digests) if name.startswith(prefixes)][
    jax.process_index() :: jax.process_count()
  ]
  paths = [files.within(path, name, path / 'digest.json') for name in names]
  for name, file in zip(names, paths, strict=True):
    if not file.exists():
      raise UserError(field=f'{name} of checkpoint {path}')
  for name, found in zip(names, files.sha256_all(paths), strict=True):
    if found != digests[name]:
      raise UserError(
        field=f'SHA-256 of {name} of checkpoint {path}',
        value=found,
        allowed=f'{digests[name]}, that of the file that was written',
      )


def provenance(path: files.Path) -> dict[str, Any]:
  """Returns the record of where a checkpoint came from.

  `path` and the errors are those of `locate` and `verify`.
  """
  path = locate(path)
  verify(path, 'provenance.json')
  return files.read_json(path / 'provenance.json')


def locate(path: files.Path) -> files.AnyPath:
  """Returns the folder of one checkpoint, found from one of several kinds of folder.

  The path is that folder, a `checkpoints` folder, a run's folder or a recipe's folder. Of a run
  the best step is taken if it has `config.checkpoint.best`, else the last complete one. A recipe's
  `final.json` ({"run": NAME}) names the run that holds its final model.

  Raises:
    FileNotFoundError: there is no complete checkpoint; the message names the path.
    UserError: `final.json` does not name a run.
  """
  given = path = files.absolute(path)
  if (path / 'final.json').is_file():
    final = files.read_json(path / 'final.json')
    if not isinstance(final, dict) or 'run' not in final:
      raise UserError(field=str(path / 'final.json'), value=final, allowed='{"run": NAME}')
    path = files.within(path, final['run'], path / 'final.json')
  if (path / 'checkpoints').is_dir():
    path = path / 'checkpoints'
  if (path / 'digest.json').is_file():
    return path
  found = steps(path) if path.is_dir() else []
  if not found:
    raise FileNotFoundError(
      f'no complete checkpoint at {given}' + ('' if given.exists() else ': no such folder')
    )
  return path / str(best.chosen(path, found))
