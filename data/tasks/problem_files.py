"""Tasks whose problems are the rows of files, some of which may be files of test problems."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from data.records import rows
from data.tasks.protocol import Task, held_out
from lm.base.errors import UserError


class Row(Protocol):
  """A row of a file.

  Attributes:
    question: the text that is asked, which tells rows apart.
  """

  @property
  def question(self) -> str: ...


R = TypeVar('R', bound=Row)


@dataclasses.dataclass(frozen=True)
class Problems(Generic[R]):
  """The problems of files, in the order of the files."""

  train: tuple[R, ...]
  test: tuple[R, ...]


def read(
  name: str, what: str, parse: Callable[[Any], R], paths: str, test_paths: str = ''
) -> Problems[R]:
  """Returns the problems of files. Rows in another format are skipped and reported.

  Args:
    name: of the task; it enters the hash of questions.
    what: what a row is, for errors.
    parse: converts a row. It raises UserError with the cause to skip the row.
    paths: paths, URLs or globs of the files, separated by commas.
    test_paths: those of the test split. Without any, one in eight questions of `paths` is in the
      test split, chosen by hash.

  Raises:
    FileNotFoundError: a file does not exist.
    UserError: no row has this format.
  """
  found = rows.read_all(paths, parse, what)
  if test_paths:
    test = rows.read_all(test_paths, parse, what)
    asked = {row.question for row in test}
  else:
    asked = {row.question for row in found if held_out(f'{name}/{row.question}')}
    test = [row for row in found if row.question in asked]
  return Problems(tuple(row for row in found if row.question not in asked), tuple(test))


@dataclasses.dataclass(frozen=True, eq=False)
class FileTask(Task):
  """A task whose problems are rows of files; a subclass defines `from_row`.

  Training problems are asked in an order that the seed determines, and begin again after the last
  one. Test problems have the order of the file, each once.
  """

  problems: Problems
  reads: ClassVar[str]

  def problem(self, index: int, split: str) -> dict:
    found = getattr(self.problems, split)
    if not found:
      raise UserError(field=f'problem of task {self.name!r} in its {split} split')
    if split == 'test' and index >= len(found):
      raise UserError(
        field=f'number of test problems of task {self.name!r} that are asked',
        value=index + 1,
        allowed=f'at most {len(found)}',
      )
    row = found[self._order[index % len(found)] if split == 'train' else index]
    return {'task': self.name, 'key': row.question, **self.from_row(row)}

  def from_row(self, row: Any) -> dict:
    """Returns the messages, the answer and the other fields of a problem."""
    raise NotImplementedError

  def difficulty(self, problem: dict) -> str:
    """Returns the group of a problem; without groups, every problem is as hard as itself alone."""
    return problem.get('group') or problem['key']

  @functools.cached_property
  def _order(self) -> list[int]:
    order = list(range(len(self.problems.train)))
    self.rng('order').shuffle(order)
    return order
