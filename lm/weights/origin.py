"""Where a checkpoint came from: the code that made it, and what a run that continues may change."""

import contextlib
import importlib.metadata
import pathlib
import subprocess
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError


def provenance(
  config: ConfigDict,
  model_config: FrozenConfigDict,
  *,
  data: str,
  tokenizer: str,
  inputs: Mapping[str, Any],
  init_from: Mapping[str, Any] | None,
) -> dict[str, Any]:
  """Returns what a checkpoint records of the run that makes it.

  Args:
    config, model_config: the run's, and its model's.
    data, tokenizer: fingerprints.
    inputs: what else decides the numbers of the run (`lm.stages.stage.Stage.inputs`).
    init_from: the provenance of the checkpoint that the run began from, None if it began from none.
  """
  made = {
    'config': config_lib.as_json(config) | {'model': config_lib.as_json(model_config)},
    'code': code_version(),
    'data': data,
    'tokenizer': tokenizer,
    'init_from': init_from and {name: x for name, x in init_from.items() if name != 'batches'},
  }
  return made | ({'inputs': dict(inputs)} if inputs else {})


def check_provenance(
  stored: dict[str, Any],
  expected: dict[str, Any],
  allow: Collection[str] = (),
  free: Collection[str] = (),
) -> None:
  """Raises UserError if a checkpoint came from something else than `expected`.

  It is about the first difference; its message has the override that would allow all of them.

  Args:
    stored: the provenance of the checkpoint.
    expected: the provenance of the run that is to continue from it, or a part of that.
    allow: what may differ because the user says so (`config.allowed_mismatches`): keys of
      `expected`, and fields or parts of its config.
    free: fields and parts of the config that may always differ.
  """
  differing: dict[str, tuple[str, Any, Any]] = {}  # (field, value there, value here)
  for key, value in expected.items():
    for field, was, now in files.differences(stored.get(key), value):
      name = field if key == 'config' else key
      passed = key == 'config' and config_lib.covers(free, name)
      if not (passed or key in allow or config_lib.covers(allow, name)):
        whole = f'{key}.{field}' if field else key
        differing.setdefault(name, (whole, was, now))
  if differing:
    field, was, now = next(iter(differing.values()))
    raise UserError(
      field=field,
      value=now,
      allowed=f'{was!r}, as in the checkpoint',
      message=f'config.checkpoint.allow_mismatch={",".join(differing)} goes on anyway.',
    )


def code_version() -> str:
  """Returns the git commit of this code, or the package's version outside git.

  The commit ends in '-dirty' if a tracked file was changed.
  """
  root = pathlib.Path(__file__).resolve().parents[2]
  # The root itself must be a repository, not a folder inside another project's repository.
  if (root / '.git').exists():
    with contextlib.suppress(FileNotFoundError):  # It is raised where git is not installed.
      command = [
        'git',
        '-C',
        str(root),
        'describe',
        '--always',
        '--dirty',
        '--abbrev=40',
        '--exclude=*',
      ]
      result = subprocess.run(command, capture_output=True, text=True, check=False)
      if result.returncode == 0:
        return result.stdout.strip()
  return 'deepdive-lm ' + importlib.metadata.version('deepdive-lm')
