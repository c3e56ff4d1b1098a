"""Grade-school word problems from files in the format of GSM8K (Cobbe et al. 2021, arXiv 2110.14168)."""

import dataclasses
import decimal
import functools
import json
import random
import re
from typing import ClassVar

from data import chat
from data.tasks.base import Task, ask, held_out, last_number
from data.tools import calculate
from lm.errors import UserError
from lm.files import Path

_CALL = re.compile(r'<<([^<>=]*)=([^<>]*)>>')  # 48/2 = <<48/2=24>>24
_FINAL = re.compile(r'####\s*(\S+)\s*\Z')


@dataclasses.dataclass(frozen=True)
class Problems:
  """The rows {question, answer, number} of each split."""

  train: tuple[dict, ...]
  test: tuple[dict, ...]


def read(train: Path, test: Path | None = None) -> Problems:
  """Reads JSONL files of {"question", "answer"}, whose answers end in '#### NUMBER'.

  Args:
    train: rows to practise; one in eight of them, by hash of the question, is for testing when there is no `test`.
    test: rows to test on, all of them.

  Raises:
    FileNotFoundError, UserError: a file that is not there, or the line and the field at fault.
  """
  rows = _rows(train)
  if test is not None:
    return Problems(rows, _rows(test))
  return Problems(*(tuple(row for row in rows if held_out(f'gsm8k/{row["question"]}') == held) for held in (False, True)))


def _rows(path: Path) -> tuple[dict, ...]:
  rows = []
  with open(path, encoding='utf-8') as lines:
    for number, line in enumerate(lines, 1):
      try:
        row = json.loads(line)
      except ValueError as error:
        raise UserError(f'{path}, line {number}: not JSON: {error}') from error
      if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ('question', 'answer')):
        raise UserError(f'{path}, line {number}: a row has the texts "question" and "answer"; found {line.strip()[:80]!r}')
      final = _FINAL.search(row['answer'])
      if not final or last_number(final[1]) is None:
        raise UserError(f"{path}, line {number}: answer must end in '#### NUMBER'; it ends in {row['answer'][-40:]!r}")
      rows.append({'question': row['question'], 'answer': row['answer'], 'number': str(last_number(final[1]))})
  if not rows:
    raise UserError(f'{path}: no rows')
  return tuple(rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Gsm8k(Task):
  """Word problems with a number for an answer. Each pass over the rows of a split is in an order of its own.

  Demonstrations are the file's solutions, one thought a line; their calculator annotations, `<<48/2=24>>`, become calls
  of the calculator in `tool_share` of them and are left out in the others.
  """

  problems: Problems
  tool_share: float = 1.0  # of demonstrations, from 0 to 1
  name: ClassVar[str] = 'gsm8k'
  reads: ClassVar[str] = 'gsm8k'

  def problem(self, index: int, split: str) -> dict:
    rows = {'train': self.problems.train, 'test': self.problems.test}[split]
    if not rows:
      raise UserError(f"task 'gsm8k' has no problems in its {split} split: the file has too few rows")
    turn, place = divmod(index, len(rows))
    row = rows[self._order(split, turn, len(rows))[place]]
    return {'task': self.name, 'messages': ask(row['question']), 'key': row['question'], 'answer': row['number'],
            'solution': row['answer']}

  @functools.lru_cache(maxsize=4)  # noqa: B019  a handful of tasks live as long as the process
  def _order(self, split: str, turn: int, count: int) -> list[int]:
    order = list(range(count))
    self.rng(split, turn).shuffle(order)
    return order

  def reply(self, problem: dict, rng: random.Random) -> str | list[dict]:
    solution = problem['solution']
    if rng.random() >= self.tool_share:
      return _CALL.sub('', solution)
    parts, text, done = [], '', 0
    for call in _CALL.finditer(solution):
      expression, result = call[1].strip(), calculate(call[1])
      text += solution[done:call.start()]
      done = call.end()
      if last_number(result) is None or last_number(result) != last_number(call[2]):
        continue  # the file says something else than the calculator: it stays plain text
      parts += [{'type': 'text', 'text': text}] if text else []
      parts += [{'type': 'python', 'text': expression}, {'type': 'output', 'text': result}]
      text = ''
    return [*parts, {'type': 'text', 'text': text + solution[done:]}] if parts else text + solution[done:]

  def grade(self, problem: dict, reply: dict) -> float:
    """1.0 if the number behind the last '####', or else the last number of all, is the answer."""
    said = chat.text(reply['content'])
    return float(last_number(said.rpartition('####')[2]) == decimal.Decimal(problem['answer']))
