"""Tasks: families of problems with demonstrations and a grader, one file for each family.

`make(['arithmetic', 'identity'], seed=0)` creates tasks by name. This room may import data.records,
data.tokenizers, data.chat, data.tools and lm.base. Start reading at `protocol.Task`. To add a task,
write a subclass of `Task` with its grader in a file of its own, and list it in `TASKS` below.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from data.records import sources
from data.tasks import documents as documents_lib
from data.tasks import gsm8k as gsm8k_lib
from data.tasks import persona as persona_lib
from data.tasks import probed as probed_lib
from data.tasks import written as written_lib
from data.tasks.arithmetic import Arithmetic, Calculator, Comparison
from data.tasks.facts import Facts, FactsPage, FactsSearch, Famous
from data.tasks.gsm8k import Gsm8k, Gsm8kCalculator
from data.tasks.identity import Identity
from data.tasks.letters import Counting, Spelling
from data.tasks.probed import Probed
from data.tasks.protocol import Task
from data.tasks.reading import Docs, Reading
from data.tasks.refusal import Refusal
from data.tasks.ways import AtOnce, InSteps, WithPython
from data.tasks.written import Written
from data.tools import corpus_search
from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError, unknown
from lm.base.files import Path

TASKS: dict[str, type[Task]] = {
  task.name: task
  for task in (
    Arithmetic,
    AtOnce,
    Calculator,
    Comparison,
    Counting,
    Docs,
    Facts,
    FactsPage,
    FactsSearch,
    Famous,
    Gsm8k,
    Gsm8kCalculator,
    Identity,
    InSteps,
    Probed,
    Reading,
    Refusal,
    Spelling,
    WithPython,
    Written,
  )
}

# What a task may read (`Task.reads`): the name of an argument of `make`, of a field of config.data
# and of a flag of commands, with the flag's help.
READABLE = {
  'documents': 'JSONL of clean documents, for tasks about documents',
  'gsm8k': 'JSONL of word problems (question, answer), for gsm8k',
  'persona': 'YAML card (name, maker, knowledge_end), for identity',
  'probe': 'report of a probed model, for probed',
  'index': 'index of documents, for facts_search',
  'questions': 'JSONL or Parquet of question and answer, for written',
}
OPTIONAL = ('persona',)  # what a task may read, but need not


def make(
  names: Iterable[str],
  *,
  seed: int,
  documents: Path = '',
  held_out: float = 0.05,
  gsm8k: str = '',
  gsm8k_test: str = '',
  probe: Path = '',
  persona: Path = '',
  questions: str = '',
  index: Path = '',
  knobs: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Task]:
  """Returns tasks by name.

  Args:
    names: names in TASKS.
    seed: seed of every problem; which problems belong to the train and test splits does not depend
      on it.
    documents: JSONL file of clean documents, for the tasks that read them; '' if there is none.
    held_out: fraction of the documents that `data.tokenize` held out from training, on which
      `reading` is tested.
    gsm8k, gsm8k_test: files of word problems (see gsm8k.read). Without the second, some problems of
      the first are for tests.
    probe: report of a model that was probed, for the task `probed`.
    persona: card (YAML) of what the model says of itself, for `identity`; '' for the default.
    questions: files of {question, answer}, for `written`.
    index: folder of an index of documents, for `facts_search`.
    knobs: fields of tasks to set, by task name, such as {'arithmetic': {'tool_share': 0.5}}.

  Raises:
    UserError: a name or a knob does not exist, or a task needs files and none are given.
  """
  names, knobs = list(names), dict(knobs or {})
  for name in (*names, *knobs):
    if name not in TASKS:
      raise unknown('task', name, TASKS)
  given_files = {
    'documents': documents,
    'gsm8k': gsm8k,
    'probe': probe,
    'persona': persona,
    'questions': questions,
    'index': index,
  }
  readers = {
    'documents': lambda: documents_lib.read(documents, held_out=held_out),
    'gsm8k': lambda: gsm8k_lib.read(gsm8k, gsm8k_test or None),
    'probe': lambda: probed_lib.read(probe),
    'persona': lambda: persona_lib.read(persona),
    'questions': lambda: written_lib.read(questions),
    'index': lambda: corpus_search.Index(index).search,
  }
  read: dict[str, Any] = {}
  tasks = []
  for name in names:
    cls, given = TASKS[name], dict(knobs.get(name, {}))
    # The first fields are the seed and, if the task reads files, their content.
    fields = [field.name for field in dataclasses.fields(cls)]
    allowed = fields[2 if cls.reads else 1 :]
    for knob in given:
      if knob not in allowed:
        raise unknown(f'knob of task {name!r}', knob, allowed)
    contents = []
    if cls.reads and not given_files[cls.reads] and cls.reads not in OPTIONAL:
      raise UserError(
        field=f'config.data.{cls.reads}',
        value=given_files[cls.reads],
        allowed='files that can be read',
        message=f'Task {name!r} needs them; commands have the flag --{cls.reads}.',
      )
    if cls.reads and given_files[cls.reads]:
      if cls.reads not in read:
        read[cls.reads] = readers[cls.reads]()
      contents = [read[cls.reads]]
    tasks.append(cls(seed, *contents, **given))
  return tasks


def options(data: ConfigDict) -> dict[str, Any]:
  """Returns the arguments of `make` and `fingerprint` that `config.data` contains."""
  return {
    'seed': data.task_seed,
    'held_out': data.held_out,
    'gsm8k_test': data.gsm8k_test,
    **{name: getattr(data, name) for name in READABLE},
  }


def from_config(data: ConfigDict, names: str) -> list[Task]:
  """Returns the tasks named in a comma-separated field, made from the files of `config.data`."""
  return make(config_lib.names(names), **options(data))


def of_evaluation(config: ConfigDict) -> tuple[list[Task], list[Task]]:
  """Returns the tasks of `config.eval.tasks` and those of `config.eval.probe`."""
  return from_config(config.data, config.eval.tasks), from_config(config.data, config.eval.probe)


def fingerprint(
  names: Iterable[str],
  *,
  seed: int,
  documents: Path = '',
  held_out: float,
  gsm8k: str = '',
  gsm8k_test: str = '',
  probe: Path = '',
  persona: Path = '',
  questions: str = '',
  index: Path = '',
) -> str:
  """Returns the SHA-256 (hex) of what determines the problems of tasks.

  That is their names, the seed, and the content of the files that they read. The arguments are
  those of `make`.
  """
  names = list(names)
  read = {TASKS[name].reads for name in names if name in TASKS}
  made_from = {'names': names, 'seed': seed}
  if 'documents' in read:
    made_from |= {'documents': _digests(documents), 'held_out': held_out}
  if 'gsm8k' in read:
    made_from |= {'gsm8k': _digests(gsm8k), 'gsm8k_test': _digests(gsm8k_test)}
  others = {
    'probe': probe,
    'persona': persona,
    'questions': questions,
    'index': index and f'{index}/*',
  }
  made_from |= {name: _digests(inputs) for name, inputs in others.items() if name in read}
  return files.digest(made_from)


def _digests(inputs: Path) -> list[str]:
  return [sources.sha256(file) for file in sources.find(inputs)] if inputs else []
