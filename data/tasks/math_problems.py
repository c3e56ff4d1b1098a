"""Problems from files in the format of MATH (Hendrycks et al. 2021, arXiv 2103.03874).

Each line is {"problem": str, "solution": str}; the answer is what the solution's last \\boxed{}
contains. "level" is read where a line has it. The package math-verify (extra `math`) compares
answers: 1/2, 0.5 and \\frac{1}{2} are one.
"""

import dataclasses
import functools
import logging
import re
import threading
import types
from typing import Any, ClassVar, NamedTuple

from data.chat import schema
from data.records import forms
from data.tasks import problem_files
from data.tasks.claimed_number import claimed_number
from data.tasks.protocol import ask, question
from lm.base.errors import UserError, missing_package

MAX_CHARS = 2_000  # of the end of a reply that are read
MAX_DEPTH = 20  # of its braces and brackets
SECONDS = 5  # for reading an answer, and for comparing two
# What is left to compute in an expression, which is an answer only where the file's has it too.
_LEFT_TO_DO = re.compile(r'\\(?:sum|prod|int|lim|d?binom|times|cdot)|!|[0-9)}]\s*[*+-]\s*[0-9(]')
_WORDS = re.compile(r'[A-Za-z]{2,}\s')  # of a sentence, in contrast to an expression


class MathProblem(NamedTuple):
  """A problem of a file, with the content of the solution's last \\boxed{}."""

  question: str
  solution: str
  answer: str
  level: str


def read(paths: str, test_paths: str = '') -> problem_files.Problems[MathProblem]:
  """Returns the problems of files (`problem_files.read`).

  Raises:
    UserError: math-verify is not installed, or no row is a problem with its solution.
  """
  _library()
  return problem_files.read('math', 'problem with its solution', parse, paths, test_paths)


def parse(row: Any) -> MathProblem:
  """Returns the problem of a row. Raises UserError if the row is not one."""
  fields = row if isinstance(row, dict) else {}
  problem = forms.require_text('problem', fields.get('problem')).strip()
  solution = forms.require_text('solution', fields.get('solution')).strip()
  answer = boxed(solution)
  if not problem or not answer:
    raise UserError(
      field='row', value=row, allowed='a problem, and a solution with its answer in \\boxed{}'
    )
  return MathProblem(problem, solution, answer, str(fields.get('level') or ''))


def boxed(text: str) -> str:
  """Returns the content of the last \\boxed{} of a text, or '' if there is none that ends."""
  start = text.rfind('\\boxed{')
  depth = 0
  for at in range(start + 6, len(text)) if start >= 0 else ():
    depth += {'{': 1, '}': -1}.get(text[at], 0)
    if not depth:
      return text[start + 7 : at].strip()
  return ''


@dataclasses.dataclass(frozen=True, eq=False)
class MathProblems(problem_files.FileTask):
  """Problems whose answer is a number or an expression; the group is the level of the file.

  The answer of a reply is its last \\boxed{}. A reply without one is the answer if it is only an
  expression, and of sentences the number is read that they claim. What only repeats a question,
  '37 \\times 49', is no answer. Demonstrations are the solutions of the file.
  """

  name: ClassVar[str] = 'math'
  reads: ClassVar[str] = 'math'

  def from_row(self, row: MathProblem) -> dict:
    group = {'group': row.level} if row.level else {}
    return {'messages': ask(row.question), 'answer': row.answer, 'worked': row.solution, **group}

  def reply(self, problem: dict, rng: Any) -> str:
    return problem['worked']

  def grade(self, problem: dict, reply: dict) -> float:
    said = schema.text(reply['content'])[-MAX_CHARS:]
    found, answer = boxed(said) or _unboxed(said, question(problem)), problem['answer']
    if _LEFT_TO_DO.search(found) and not _LEFT_TO_DO.search(answer):
      return 0.0
    return float(bool(found) and _depth(found) <= MAX_DEPTH and same(answer, found))


def _unboxed(said: str, asked: str) -> str:
  """Returns the answer of a reply without \\boxed{}, or '' if it claims none."""
  if not _WORDS.search(said):
    return said.strip().strip('$.').strip()
  number = claimed_number(said, asked)
  return '' if number is None else str(number)


def same(answer: str, said: str) -> bool:
  """Returns whether two expressions are the same answer, as math-verify reads both.

  What it cannot read, or not in SECONDS, is another answer. Only the main thread can stop it.
  """
  seconds = SECONDS if threading.current_thread() is threading.main_thread() else None
  library = _library()
  gold = library.parse(f'\\boxed{{{answer}}}', parsing_timeout=seconds)
  found = library.parse(f'\\boxed{{{said}}}', parsing_timeout=seconds)
  return bool(found) and library.verify(gold, found, timeout_seconds=seconds)


@functools.cache
def _library() -> types.ModuleType:
  """Returns the package math_verify. Raises UserError if it is not installed."""
  try:
    import math_verify
  except ImportError as error:
    raise missing_package('math-verify', 'math', 'The grader of the task math') from error
  logging.getLogger('math_verify').setLevel(logging.CRITICAL)  # it logs what it cannot read
  return math_verify


def _depth(text: str) -> int:
  """Returns how deep the brackets and braces of a text are nested at most."""
  depth = deepest = 0
  for character in text:
    depth += (character in '{([') - (character in '})]')
    deepest = max(deepest, depth)
  return deepest
