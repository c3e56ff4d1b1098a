"""Problems with graders: `make(['arithmetic', 'identity'], seed=0)` gives the tasks of `base.Task`."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from data.tasks import documents as documents_lib
from data.tasks.base import Task
from data.tasks.identity import Identity
from data.tasks.numbers import Arithmetic, Calculator, Comparison
from data.tasks.reading import Docs, Reading
from data.tasks.refusal import Refusal
from data.tasks.words import Counting, Spelling
from lm.errors import UserError, unknown
from lm.files import Path

TASKS: dict[str, type[Task]] = {
  task.name: task
  for task in (Arithmetic, Calculator, Comparison, Counting, Docs, Identity, Reading, Refusal, Spelling)}


def make(names: Iterable[str], *, seed: int, documents: Path | None = None, held_out: float = 0.05,
         knobs: Mapping[str, Mapping[str, Any]] | None = None) -> list[Task]:
  """Tasks by name.

  Args:
    names: of TASKS.
    seed: of every problem; the train and the test split are the same whatever the seed.
    documents: the JSONL file of cleaned documents, for the tasks that read them.
    held_out: share of the documents held out from training, as `data.tokenize` was given it: what `reading` is tested on.
    knobs: task name to fields of that task to set, as {'arithmetic': {'tool_share': 0.5}}.

  Raises:
    UserError: for a name or knob that does not exist, and where a task needs documents and none are given.
  """
  names, knobs = list(names), dict(knobs or {})
  for name in (*names, *knobs):
    if name not in TASKS:
      raise unknown('task', name, TASKS)
  read = None
  tasks = []
  for name in names:
    cls, given = TASKS[name], dict(knobs.get(name, {}))
    allowed = [f.name for f in dataclasses.fields(cls) if f.name not in ('seed', 'documents')]
    for knob in given:
      if knob not in allowed:
        raise unknown(f'knob of task {name!r}', knob, allowed)
    if cls.reads_documents:
      if documents is None:
        raise UserError(f'task {name!r} is about documents: give the JSONL file of cleaned documents')
      read = read or documents_lib.read(documents, held_out=held_out)
      given['documents'] = read
    tasks.append(cls(seed=seed, **given))
  return tasks
