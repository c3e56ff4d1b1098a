"""Problems with graders: `make(['arithmetic', 'identity'], seed=0)` gives the tasks of
`base.Task`.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from data.records import sources
from data.tasks import documents as documents_lib
from data.tasks import gsm8k as gsm8k_lib
from data.tasks.arithmetic import Arithmetic, Calculator, Comparison
from data.tasks.gsm8k import Gsm8k, Gsm8kCalculator
from data.tasks.identity import Identity
from data.tasks.letters import Counting, Spelling
from data.tasks.protocol import Task
from data.tasks.reading import Docs, Reading
from data.tasks.refusal import Refusal
from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError, unknown
from lm.base.files import Path

TASKS: dict[str, type[Task]] = {
  task.name: task
  for task in (
    Arithmetic,
    Calculator,
    Comparison,
    Counting,
    Docs,
    Gsm8k,
    Gsm8kCalculator,
    Identity,
    Reading,
    Refusal,
    Spelling,
  )
}


def make(
  names: Iterable[str],
  *,
  seed: int,
  documents: Path = '',
  held_out: float = 0.05,
  gsm8k: str = '',
  gsm8k_test: str = '',
  knobs: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Task]:
  """Tasks by name.

  Args:
    names: of TASKS.
    seed: of every problem; the train and the test split are the same whatever the seed.
    documents: the JSONL file of cleaned documents, for the tasks that read them; '': there is none.
    held_out: share of the documents held out from training, as `data.tokenize` was given it: what
      `reading` is tested on.
    gsm8k, gsm8k_test: files of word problems (`data.tasks.gsm8k.read`); without the second, some of
    the first are for tests.
    knobs: task name to fields of that task to set, as {'arithmetic': {'tool_share': 0.5}}.

  Raises:
    UserError: for a name or knob that does not exist, and where a task needs files and none are
      given.
  """
  names, knobs = list(names), dict(knobs or {})
  for name in (*names, *knobs):
    if name not in TASKS:
      raise unknown('task', name, TASKS)
  given_files = {'documents': documents, 'gsm8k': gsm8k}
  readers = {
    'documents': lambda: documents_lib.read(documents, held_out=held_out),
    'gsm8k': lambda: gsm8k_lib.read(gsm8k, gsm8k_test or None),
  }
  read: dict[str, Any] = {}
  tasks = []
  for name in names:
    cls, given = TASKS[name], dict(knobs.get(name, {}))
    allowed = [f.name for f in dataclasses.fields(cls)][2 if cls.reads else 1 :]
    for knob in given:
      if knob not in allowed:
        raise unknown(f'knob of task {name!r}', knob, allowed)
    contents = []
    if cls.reads:
      if not given_files[cls.reads]:
        raise UserError(
          f'task {name!r} is made from files, and config.data.{cls.reads} or --{cls.reads} names '
          'none'
        )
      if cls.reads not in read:
        read[cls.reads] = readers[cls.reads]()
      contents = [read[cls.reads]]
    tasks.append(cls(seed, *contents, **given))
  return tasks


def options(data: ConfigDict) -> dict[str, Any]:
  """The arguments of `make` and `fingerprint` that `config.data` gives."""
  return {
    'seed': data.task_seed,
    'documents': data.documents,
    'held_out': data.held_out,
    'gsm8k': data.gsm8k,
    'gsm8k_test': data.gsm8k_test,
  }


def from_config(data: ConfigDict, names: str) -> list[Task]:
  """Returns the tasks of a comma-separated field, made from the files of `config.data`."""
  return make(config_lib.names(names), **options(data))


def fingerprint(
  names: Iterable[str],
  *,
  seed: int,
  documents: Path = '',
  held_out: float,
  gsm8k: str = '',
  gsm8k_test: str = '',
) -> str:
  """SHA-256 (hex) of what decides the problems of tasks: their names, the seed, and the content of
  the files they read.

  Args: as of `make`.
  """
  names = list(names)
  read = {TASKS[name].reads for name in names if name in TASKS}
  made_from = {'names': names, 'seed': seed}
  if 'documents' in read:
    made_from |= {'documents': _digests(documents), 'held_out': held_out}
  if 'gsm8k' in read:
    made_from |= {'gsm8k': _digests(gsm8k), 'gsm8k_test': _digests(gsm8k_test)}
  return files.digest(made_from)


def _digests(inputs: Path) -> list[str]:
  return [sources.sha256(file) for file in sources.find(inputs)] if inputs else []
