"""Word problems from files in GSM8K's format (Cobbe et al. 2021, arXiv 2110.14168).

Each line is {"question": str, "answer": str}. The answer is derived over some lines and ends with
`#### NUMBER`; `<<48/2=24>>` before a number is the call of a calculator that gave it.
"""

import dataclasses
import decimal
import functools
import random
import re
from typing import Any, ClassVar

from data.chat import schema
from data.records import rows
from data.tasks import claims
from data.tasks.claimed_number import claimed_number, numbers
from data.tasks.protocol import Task, ask, held_out, question
from data.tools.calculator import calculate
from lm.base.errors import UserError

_CALL = re.compile(r'<<([^<>=]*)=([^<>=]*)>>')
_MARK = '####'


@dataclasses.dataclass(frozen=True)
class Problems:
  """The (question, answer) of each problem, in the order of the files."""

  train: tuple[tuple[str, str], ...]
  test: tuple[tuple[str, str], ...]


def read(paths: str, test_paths: str | None = None) -> Problems:
  """Returns the problems of files. Lines in another format are skipped and reported.

  Args:
    paths: paths, URLs or globs of the files, separated by commas.
    test_paths: those of the test split. With None, one in eight questions of `paths` is in the test
      split, chosen by hash.

  Raises:
    FileNotFoundError: a file does not exist.
    UserError: no line has this format.
  """
  found = rows.read_all(paths, parse, 'word problem')
  if test_paths:
    test = rows.read_all(test_paths, parse, 'word problem')
    asked = {question for question, _ in test}
  else:
    asked = {question for question, _ in found if held_out(f'gsm8k/{question}')}
    test = [row for row in found if row[0] in asked]
  return Problems(tuple(row for row in found if row[0] not in asked), tuple(test))


def parse(row: Any) -> tuple[str, str]:
  """Returns (question, answer) of a row. Raises UserError if the row is not a word problem."""
  fields = row if isinstance(row, dict) else {}
  question, answer = fields.get('question'), fields.get('answer')
  if not isinstance(question, str) or not isinstance(answer, str) or _marked(answer) is None:
    raise UserError(
      field='row',
      value=row,
      allowed='{"question": text, "answer": text that ends with #### and a number}',
    )
  return question.strip(), answer.strip()


def _marked(text: str) -> decimal.Decimal | None:
  """Returns the number after the last ####, or None if there is none."""
  _, mark, said = text.rpartition(_MARK)
  found = numbers(claims.plain(said)) if mark else []
  return found[0].value if found else None


def in_steps(worked: str) -> str:
  """Returns an answer of a file without its calls."""
  return _CALL.sub('', worked)


def with_calls(worked: str) -> list[dict]:
  """Returns an answer of a file as parts, with a call of the calculator where the file has one.

  A call whose result is not the one that the file states is left out.
  """
  parts, done = [], 0
  for match in _CALL.finditer(worked):
    expression = match[1].strip()
    result = calculate(expression)
    if claimed_number(result) == claimed_number(match[2]):
      text = in_steps(worked[done : match.start()])
      parts += [{'type': 'text', 'text': text}] * bool(text)
      parts += [{'type': 'python', 'text': expression}, {'type': 'output', 'text': result}]
      done = match.end()
  return [*parts, {'type': 'text', 'text': in_steps(worked[done:])}]


@dataclasses.dataclass(frozen=True, eq=False)
class Gsm8k(Task):
  """Word problems whose answer is a number, after #### or else the last one of the reply.

  Demonstrations are the file's answers without the calls. Test problems have the order of the file,
  each once.
  """

  problems: Problems
  name: ClassVar[str] = 'gsm8k'
  reads: ClassVar[str] = 'gsm8k'

  def problem(self, index: int, split: str) -> dict:
    lines = getattr(self.problems, split)
    if not lines:
      raise UserError(field=f'problem of task {self.name!r} in its {split} split')
    if split == 'test' and index >= len(lines):
      raise UserError(
        field=f'number of test problems of task {self.name!r} that are asked',
        value=index + 1,
        allowed=f'at most {len(lines)}',
      )
    asked, answer = lines[self._order[index % len(lines)] if split == 'train' else index]
    return {
      'task': self.name,
      'messages': ask(asked),
      'key': asked,
      'answer': str(_marked(answer)),
      'worked': answer,
    }

  @functools.cached_property
  def _order(self) -> list[int]:
    order = list(range(len(self.problems.train)))
    self.rng('order').shuffle(order)
    return order

  def reply(self, problem: dict, rng: random.Random) -> str | list[dict]:
    return in_steps(problem['worked'])

  def grade(self, problem: dict, reply: dict) -> float:
    said = claimed_number(schema.text(reply['content']), question(problem))
    return float(said == decimal.Decimal(problem['answer']))


@dataclasses.dataclass(frozen=True, eq=False)
class Gsm8kCalculator(Gsm8k):
  """The same problems; demonstrations call the calculator where the files do."""

  name: ClassVar[str] = 'gsm8k_calculator'

  def reply(self, problem: dict, rng: random.Random) -> str | list[dict]:
    return with_calls(problem['worked'])
