"""Tasks: families of problems with demonstrations and a grader, one file for each family.

`make(['arithmetic', 'identity'], seed=0)` creates tasks by name. This room may import data.records,
data.tokenizers, data.chat, data.tools and lm.base. Start reading at `protocol.Task`. To add a task,
write a subclass of `Task` with its grader in a file of its own, and list it in `TASKS` below.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from data.records import sources
from data.tasks import coding as coding_lib
from data.tasks import documents as documents_lib
from data.tasks import gsm8k as gsm8k_lib
from data.tasks import math_problems as math_problems_lib
from data.tasks import persona as persona_lib
from data.tasks import probed as probed_lib
from data.tasks import written as written_lib
from data.tasks.arithmetic import Arithmetic, Calculator, Comparison
from data.tasks.bases import Bases
from data.tasks.coding import Programs
from data.tasks.countdown import Countdown
from data.tasks.facts import Facts, FactsPage, FactsSearch, Famous
from data.tasks.gsm8k import Gsm8k, Gsm8kCalculator
from data.tasks.identity import Identity
from data.tasks.json_objects import JsonObjects
from data.tasks.letters import Counting, Spelling
from data.tasks.math_problems import MathProblems
from data.tasks.probed import Probed
from data.tasks.protocol import Task
from data.tasks.reading import Docs, Reading
from data.tasks.refusal import Refusal
from data.tasks.sorting import Sorting
from data.tasks.sums import Sums
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
    Bases,
    Calculator,
    Comparison,
    Countdown,
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
    JsonObjects,
    MathProblems,
    Probed,
    Programs,
    Reading,
    Refusal,
    Sorting,
    Spelling,
    Sums,
    WithPython,
    Written,
  )
}


@dataclasses.dataclass(frozen=True)
class Input:
  """A kind of input that tasks may read, which `Task.reads` names.

  Its name is also that of a field of config.data and of a flag of commands.

  Attributes:
    about: the flag's help.
    read: converts the input to what a task holds, given its path and `options` of `make`.
    options: the names of those options, each a field of config.data.
    is_optional: whether a task may do without it.
    files: the files of an input, for the fingerprint; {} is the input.
  """

  about: str
  read: Callable[..., Any]
  options: tuple[str, ...] = ()
  is_optional: bool = False
  files: str = '{}'


INPUTS = {
  'documents': Input(
    'JSONL of clean documents, for tasks about documents',
    lambda path, held_out: documents_lib.read(path, held_out=held_out),
    ('held_out',),
  ),
  'gsm8k': Input(
    'JSONL of word problems (question, answer), for gsm8k', gsm8k_lib.read, ('gsm8k_test',)
  ),
  'math': Input(
    'JSONL of problems (problem, solution with \\boxed{}), for math',
    math_problems_lib.read,
    ('math_test',),
  ),
  'programs': Input(
    'JSONL of programs to write, with unit tests, for programs',
    coding_lib.read,
    ('programs_test',),
  ),
  'persona': Input(
    'YAML card (name, maker, knowledge_end), for identity', persona_lib.read, is_optional=True
  ),
  'probe': Input('report of a probed model, for probed', probed_lib.read),
  'index': Input(
    'index of documents, for facts_search',
    lambda path: corpus_search.Index(path).search,
    files='{}/*',
  ),
  'questions': Input('JSONL or Parquet of question and answer, for written', written_lib.read),
}


@dataclasses.dataclass(frozen=True)
class Option:
  """An option of an input, which is also a field of config.data and a flag of commands.

  Attributes:
    default: its value where none is given.
    about: the flag's help.
  """

  default: str | float
  about: str


OPTIONS = {
  'held_out': Option(0.05, 'fraction of the documents that data.tokenize held out'),
  'gsm8k_test': Option('', 'test problems of gsm8k; without them, some of --gsm8k'),
  'math_test': Option('', 'test problems of math; without them, some of --math'),
  'programs_test': Option('', 'test problems of programs; without them, some of --programs'),
}


def make(
  names: Iterable[str],
  *,
  seed: int,
  knobs: Mapping[str, Mapping[str, Any]] | None = None,
  **given: Any,
) -> list[Task]:
  """Returns tasks by name.

  Args:
    names: names in TASKS.
    seed: seed of every problem; which problems belong to the train and test splits does not depend
      on it.
    knobs: fields of tasks to set, by task name, such as {'arithmetic': {'tool_share': 0.5}}.
    **given: paths by names of INPUTS, '' for none, and values by names of OPTIONS: `held_out`, the
      fraction of the documents that `data.tokenize` held out from training, on which `reading` is
      tested; and `NAME_test`, files of test problems, without which some of those of NAME are.

  Raises:
    UserError: a name or a knob does not exist, or a task needs files and none are given.
  """
  names, knobs = list(names), dict(knobs or {})
  for name in (*names, *knobs):
    if name not in TASKS:
      raise unknown('task', name, TASKS)
  given = _complete(given)
  read: dict[str, Any] = {}
  tasks = []
  for name in names:
    cls, own = TASKS[name], dict(knobs.get(name, {}))
    # The first fields are the seed and, if the task reads files, their content.
    fields = [field.name for field in dataclasses.fields(cls)]
    allowed = fields[2 if cls.reads else 1 :]
    for knob in own:
      if knob not in allowed:
        raise unknown(f'knob of task {name!r}', knob, allowed)
    contents = []
    if cls.reads and not given[cls.reads] and not INPUTS[cls.reads].is_optional:
      raise UserError(
        field=f'config.data.{cls.reads}',
        value=given[cls.reads],
        allowed='files that can be read',
        message=f'Task {name!r} needs them; commands have the flag --{cls.reads}.',
      )
    if cls.reads and given[cls.reads]:
      if cls.reads not in read:
        kind = INPUTS[cls.reads]
        read[cls.reads] = kind.read(given[cls.reads], *(given[option] for option in kind.options))
      contents = [read[cls.reads]]
    tasks.append(cls(seed, *contents, **own))
  return tasks


def _complete(given: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a value for every input and option. Raises UserError for a name that is neither."""
  defaults = dict.fromkeys(INPUTS, '') | {name: each.default for name, each in OPTIONS.items()}
  for name in given:
    if name not in defaults:
      raise unknown('input of tasks', name, defaults)
  return defaults | dict(given)


def options(data: ConfigDict) -> dict[str, Any]:
  """Returns the arguments of `make` and `fingerprint` that `config.data` contains."""
  return {'seed': data.task_seed} | {name: getattr(data, name) for name in (*INPUTS, *OPTIONS)}


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of all that tasks read, as of `from_flags`, to a command."""
  for name, kind in INPUTS.items():
    parser.add_argument(f'--{name}', default='', help=kind.about)
  for name, option in OPTIONS.items():
    parser.add_argument(
      f'--{name.replace("_", "-")}',
      type=type(option.default),
      default=option.default,
      help=option.about,
    )


def from_flags(args: argparse.Namespace, names: Iterable[str]) -> list[Task]:
  """Returns tasks by name, made from the flags of `add_flags` and from `args.seed`."""
  given = {name: getattr(args, name) for name in (*INPUTS, *OPTIONS)}
  return make(names, seed=args.seed, **given)


def from_config(data: ConfigDict, names: str) -> list[Task]:
  """Returns the tasks named in a comma-separated field, made from the files of `config.data`."""
  return make(config_lib.names(names), **options(data))


def of_evaluation(config: ConfigDict) -> tuple[list[Task], list[Task]]:
  """Returns the tasks of `config.eval.tasks` and those of `config.eval.probe`."""
  return from_config(config.data, config.eval.tasks), from_config(config.data, config.eval.probe)


def fingerprint(names: Iterable[str], *, seed: int, **given: Any) -> str:
  """Returns the SHA-256 (hex) of what determines the problems of tasks.

  That is their names, the seed, and the content of the files that they read. The arguments are
  those of `make`.
  """
  names, given = list(names), _complete(given)
  made_from: dict[str, Any] = {'names': names, 'seed': seed}
  for name in sorted({TASKS[each].reads for each in names if each in TASKS} - {''}):
    kind = INPUTS[name]
    made_from[name] = _digests(given[name] and kind.files.format(given[name]))
    for option in kind.options:
      value = given[option]
      made_from[option] = _digests(value) if option.endswith('_test') else value
  return files.digest(made_from)


def _digests(inputs: Path) -> list[str]:
  return [sources.sha256(file) for file in sources.find(inputs)] if inputs else []
