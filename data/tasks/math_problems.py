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
from data.tasks import claims, problem_files
from data.tasks.claimed_number import claimed_number
from data.tasks.protocol import ask, question
from lm.base.errors import UserError, missing_package

MAX_CHARS = 2_000  # of the end of a reply that are read
MAX_DEPTH = 20  # of its braces and brackets
SECONDS = 5  # for reading an answer, and for comparing two
# What is left to compute in an expression, which is an answer only where the file's has it too.
_LEFT_TO_DO = re.compile(r'\\(?:sum|prod|int|lim|d?binom|times|cdot)|!|[0-9)}]\s*\*\s*[0-9(]')
_SUM = re.compile(r'[0-9)}]\s*[+-]\s*[0-9(]')
_PLUS_OR_MINUS = re.compile(r'(?<=[\w)}\]!])\s*[+-]')  # between two terms
_WORDS = re.compile(r'(?<![A-Za-z\\{])[A-Za-z]{2,}[\s:]')  # of a sentence, not of an expression

# The expressions of a sentence: between dollars or brackets of LaTeX, or written without either.
_BRACES = r'\{(?:[^{}\n]|\{(?:[^{}\n]|\{[^{}\n]*\})*\})*\}'
_COMMAND = (  # but those of numbers: \frac{1}{2}, 3 \times 4
  r'\\(?!(?:times|cdot|div|text\w*|math\w*|approx|q?quad)\b)'
  r'(?![dt]?frac\s*(?:[0-9]|\{[0-9]+\})\s*(?:[0-9]|\{[0-9]+\})(?!\w))'
  rf'[A-Za-z]+(?:\[[^\]\n]*\])?(?:\s*{_BRACES})*(?:(?<=[a-z]) ?[0-9]+)?'
)
_START = r'(?:(?<![0-9.])|(?![0-9.]))'  # not within a number
_DIGITS = r'(?:[0-9]+(?:\.[0-9]+)?)'
_POWER = rf'\^(?:{_BRACES}|-?\w+|\(\S+?\))'
_SYMBOLS = re.compile(  # 2\pi, x^2, 3x, sqrt(2), (3, 4]
  rf'{_START}(?:(?:[0-9.]|[A-Za-z]?\()*{_COMMAND}(?:{_POWER}|[\w)]|{_COMMAND})*'
  rf'|(?:{_DIGITS}?[A-Za-z]|\)){_POWER}(?:\w|{_POWER})*'
  rf'|{_DIGITS}?(?:(?:sqrt|log|ln|sin|cos|tan)\s*\(?{_DIGITS}\)?|√\(?{_DIGITS}\)?|(?:pi|[πi])\b)'
  rf'|{_DIGITS}(?:[a-fijnp-rt-z]|[a-cx-z]{{2,3}})\b'
  rf'|{_DIGITS}\s*[-+*/^]\s*[b-z]\b|\b[b-z]\s*[-+*/^]\s*{_DIGITS}'
  rf'|[(\[]\s*-?(?:{_DIGITS}|[a-z])(?:\s*,\s*-?(?:{_DIGITS}|[a-z]))+\s*[)\]])'
)
_ARITHMETIC = re.compile(r'[\d\s.,+*/()%=-]*')
_SPAN = re.compile(
  r'\$\$(.+?)\$\$|(?<!\\)\$([^$\n]+)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]', re.DOTALL
)
_FIRST = 0xE000  # the first of the private characters that stand for expressions
_NAME = '[\ue000-\uf8ff]'
_NAMED = re.compile(_NAME)
_COMPOUND = re.compile(  # 1 + \pi, with a name for \pi
  rf'{_START}-?(?:(?:{_DIGITS}(?![0-9.])|{_NAME})(?:\s*[-+*/^]\s*| ?))*{_NAME}'
  rf'(?:\s*[-+*/^]\s*(?:{_DIGITS}|{_NAME}))*'
)


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
  expression, and of sentences the number or expression is read that they claim. What only repeats
  a question, '37 \\times 49', is no answer. Demonstrations are the solutions of the file.
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
    found = found.rstrip('. ')
    if not found or _depth(found) > MAX_DEPTH or _is_left_to_do(found, answer):
      return 0.0
    return float(same(answer, found))


def _is_left_to_do(said: str, answer: str) -> bool:
  """Returns whether an expression has something to compute that the answer of the file has not.

  The terms of a sum may have another order.
  """
  if any(pattern.search(answer) for pattern in (_LEFT_TO_DO, _SUM)):
    return False
  if _LEFT_TO_DO.search(said):
    return True
  terms, own = (len(_PLUS_OR_MINUS.findall(text)) for text in (said, answer))
  return terms > own and _SUM.search(said) is not None


def _unboxed(said: str, asked: str) -> str:
  """Returns the answer of a reply without \\boxed{}, or '' if it claims none.

  Of sentences it is what they claim by the rules of `claimed_number`, a number or an expression.
  """
  if not _WORDS.search(said):
    whole = said.strip().strip('$.*').strip()
    return whole.rpartition('=')[2].strip() if _LEFT_TO_DO.search(whole) else whole
  names: dict[str, str] = {}
  said, asked = _with_names(said, names), _with_names(asked, names)
  claimed = claimed_number(said, asked, _NAMED)
  if not isinstance(claimed, str):
    return '' if claimed is None else str(claimed)
  text, expressions = claimed, {name: text for text, name in names.items()}
  while _NAMED.search(text):  # expressions in expressions
    text = _NAMED.sub(lambda match: expressions[match[0]], text)
  return text


def _with_names(text: str, names: dict[str, str]) -> str:
  """Returns a text with a private character in place of each expression that is not a number.

  Args:
    text: a reply or a question.
    names: the character of each expression, to which new ones are added.
  """

  def named(expression: str) -> str:
    return names.setdefault(expression.strip(), chr(_FIRST + len(names)))

  def span(match: re.Match) -> str:
    inside = next(filter(None, match.groups()))
    if _WORDS.search(inside):  # '$5 and $6' are sums of money
      return match[0]
    last = inside.rpartition('=')[2]
    if re.search(r'[0-9]\s+$', match.string[max(match.start() - 8, 0) : match.start()]):
      return ' such '  # '5 $x$ values'
    if not _ARITHMETIC.fullmatch(claims.plain(last)):
      return f' {named(last)} '
    return match[0] if _ARITHMETIC.fullmatch(claims.plain(inside)) else f' = {last} '

  text = _NAMED.sub(' ', text)
  text = _SYMBOLS.sub(lambda match: named(match[0]), _SPAN.sub(span, text))
  return _COMPOUND.sub(lambda m: m[0] if len(m[0]) == 1 else named(m[0]), text)


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
