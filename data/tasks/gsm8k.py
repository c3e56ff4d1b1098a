"""Word problems from files in GSM8K's format (Cobbe et al. 2021, arXiv 2110.14168).

Each line is {"question": str, "answer": str}. The answer is derived over some lines and ends with
`#### NUMBER`, such as 1,000, 3/4, 2 1/2 or 1.5 million; `<<48/2=24>>` before a number is the call
of a calculator that gave it.
"""

import dataclasses
import decimal
import random
import re
from typing import Any, ClassVar, NamedTuple

from data.chat import schema
from data.tasks import problem_files
from data.tasks.claimed_number import claimed_number, only_number
from data.tasks.protocol import ask, question
from data.tools.calculator import calculate
from lm.base.errors import UserError

_CALL = re.compile(r'<<([^<>=]*)=([^<>=]*)>>')
_MARK = '####'


class WordProblem(NamedTuple):
  """A problem, and the answer of the file with its derivation."""

  question: str
  answer: str


def read(paths: str, test_paths: str = '') -> problem_files.Problems[WordProblem]:
  """Returns the problems of files (`problem_files.read`)."""
  return problem_files.read('gsm8k', 'word problem', parse, paths, test_paths)


def parse(row: Any) -> WordProblem:
  """Returns the problem of a row. Raises UserError if the row is not a word problem."""
  fields = row if isinstance(row, dict) else {}
  question, answer = fields.get('question'), fields.get('answer')
  if not isinstance(question, str) or not isinstance(answer, str) or _marked(answer) is None:
    raise UserError(
      field='row',
      value=row,
      allowed='{"question": text, "answer": text that ends with #### and a number}',
    )
  return WordProblem(question.strip(), answer.strip())


def _marked(text: str) -> decimal.Decimal | None:
  """Returns the number after the last ####, or None if it is not one number, as '2^3' is not."""
  _, mark, said = text.rpartition(_MARK)
  return only_number(said) if mark else None


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
class Gsm8k(problem_files.FileTask):
  """Word problems whose answer is a number, after #### or else the last one of the reply.

  Demonstrations are the file's answers without the calls.
  """

  name: ClassVar[str] = 'gsm8k'
  reads: ClassVar[str] = 'gsm8k'

  def from_row(self, row: WordProblem) -> dict:
    return {
      'messages': ask(row.question),
      'answer': str(_marked(row.answer)),
      'worked': row.answer,
    }

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
