"""The training problems of tasks as questions to practise on, and the grades of answers."""

from collections.abc import Sequence
from typing import Any

from data import tasks as tasks_lib
from data.chat import chat_formats
from data.tasks.protocol import Task
from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError


class Questions:
  """Problems of several tasks in turn; which one has which number depends on the number alone.

  Attributes:
    fingerprint: a digest of what decides the problems.
    num_tasks: how many tasks take turns.
    val: None, as no tokens are held out.
  """

  val = None

  def __init__(self, tasks: Sequence[Task], chat_format: chat_formats.Format, fingerprint: str):
    self._tasks, self._chat_format = tasks, chat_format
    self.fingerprint, self.num_tasks = fingerprint, len(tasks)

  def place(self, index: int) -> tuple[str, int]:
    """Returns the task of question `index`, by name, and the number of its problem."""
    return self._task(index).name, index // self.num_tasks

  def draw(self, index: int, number: int) -> tuple[dict[str, Any], list[int]]:
    """Returns problem `number` of the task of question `index`, and its prompt as token ids."""
    problem = self._task(index).problem(number, 'train')
    return problem, self._chat_format.render_prompt(problem['messages'])

  def grade(self, index: int, problem: dict[str, Any], tokens: list[int]) -> tuple[float, float]:
    """Returns how right an answer is, and how well it keeps the chat format, each from 0 to 1."""
    reply = self._chat_format.parse(tokens)
    return self._task(index).grade(problem, reply), chat_formats.grade_format(reply)

  def _task(self, index: int) -> Task:
    return self._tasks[index % self.num_tasks]


def open_questions(
  config: Any, chat_format: chat_formats.Format, folder: files.AnyPath
) -> Questions:
  """Returns the questions of `config.data.tasks`. Raises UserError if it names none."""
  del folder
  names = config_lib.names(config.data.tasks)
  if not names:
    raise UserError(f"config.data.tasks is ''; stage {config.stage} needs tasks to practise")
  options = tasks_lib.options(config.data)
  return Questions(
    tasks_lib.make(names, **options), chat_format, tasks_lib.fingerprint(names, **options)
  )
