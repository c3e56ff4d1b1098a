"""Training problems of tasks, as questions to practise on, and the grades of answers."""

from collections.abc import Sequence
from typing import Any

from data import tasks as tasks_lib
from data.chat import chat_formats
from data.preferences import gold
from data.tasks.protocol import Task
from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError


class Questions:
  """Problems of several tasks in turn; the number of a question alone determines its task.

  Attributes:
    fingerprint: a digest of what determines the problems.
    num_tasks: number of tasks that take turns.
    val: None, because no tokens are held out.
  """

  val = None

  def __init__(
    self,
    tasks: Sequence[Task],
    chat_format: chat_formats.Format,
    fingerprint: str,
    gold_reward: str = 'grade',
  ):
    self._tasks, self._chat_format = tasks, chat_format
    self._gold = gold.named(gold_reward)
    self.fingerprint, self.num_tasks = fingerprint, len(tasks)

  def place(self, index: int) -> tuple[str, int]:
    """Returns the name of the task of question `index`, and the number of its problem."""
    return self._task(index).name, index // self.num_tasks

  def draw(self, index: int, number: int, split: str = 'train') -> tuple[dict[str, Any], list[int]]:
    """Returns problem `number` of the task of question `index`, and its prompt as token ids."""
    problem = self._task(index).problem(number, split)
    return problem, self._chat_format.render_prompt(problem['messages'])

  def difficulty(self, index: int, problem: dict[str, Any]) -> str:
    """Returns the label of problems that are about as hard as a problem of question `index`."""
    task = self._task(index)
    return f'{task.name}/{task.difficulty(problem)}'

  def grade(self, index: int, problem: dict[str, Any], tokens: list[int]) -> tuple[float, float]:
    """Returns the grades of an answer, for content and for chat format, each from 0 to 1."""
    reply = self._chat_format.parse(tokens)
    return self._task(index).grade(problem, reply), chat_formats.grade_format(reply)

  def gold(self, index: int, problem: dict[str, Any], tokens: list[int]) -> float:
    """Returns the gold reward of an answer (`data.preferences.gold`)."""
    content = self._chat_format.parse(tokens)['content']
    return self._gold.reward(self._task(index), problem, content)

  def _task(self, index: int) -> Task:
    return self._tasks[index % self.num_tasks]


def open_questions(
  config: Any, chat_format: chat_formats.Format, folder: files.AnyPath
) -> Questions:
  """Returns the questions of `config.data.tasks`. Raises UserError if there are none."""
  del folder
  names = config_lib.names(config.data.tasks)
  if not names:
    raise UserError(
      field='config.data.tasks',
      value=config.data.tasks,
      allowed='names of tasks',
      message=f'Stage {config.stage} practises them.',
    )
  options = tasks_lib.options(config.data)
  tasks, fingerprint = tasks_lib.make(names, **options), tasks_lib.fingerprint(names, **options)
  return Questions(tasks, chat_format, fingerprint, config.rl.gold)
