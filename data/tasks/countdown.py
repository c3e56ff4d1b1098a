"""Countdown: make a number from given ones by + - * /, each used at most once."""

import ast
import collections
import dataclasses
import fractions
import random
import re
from typing import ClassVar

from data.chat import schema
from data.tasks import claims
from data.tasks.claimed_number import strongest
from data.tasks.protocol import Task, ask

MAX_CHARS = 200  # of an expression that is read
MAX_NUMBERS = 16  # in it
_OPERATIONS = {ast.Add: '+', ast.Sub: '-', ast.Mult: '*', ast.Div: '/'}
_EXPRESSION = re.compile(r'(?<![\w.])[(-]*[0-9][0-9 ()+*/-]*[0-9)](?!\w)')
_RESULT = re.compile(r'\s*=\s*\$?-?[0-9]+')  # what an expression is said to be equal to
_INSIDE = re.compile(r'[0-9)]\s*[-+*/]\s*[-(0-9]')


@dataclasses.dataclass(frozen=True, eq=False)
class Countdown(Task):
  """Numbers to reach a target with; the group is how many numbers are given.

  A reply gives an expression, alone or in a sentence: '6 * (9 - 5)', '6 * (9 - 5) = 24'. Several
  may be tried; the last one counts that is not taken back. Any expression counts that is worth the
  target and uses no number more often than it is given.
  """

  sizes: tuple[int, int] = (3, 4)  # fewest and most given numbers
  largest: int = 20  # given number
  target: tuple[int, int] = (10, 100)  # smallest and largest
  name: ClassVar[str] = 'countdown'
  questions: ClassVar[tuple[str, ...]] = (
    'Make {target} from {numbers} with + - * /, each number at most once.',
    'Use {numbers}, each at most once, and + - * / to reach {target}.',
  )

  def draw(self, rng: random.Random) -> dict:
    while True:
      numbers = [rng.randint(1, self.largest) for _ in range(rng.randint(*self.sizes))]
      value, solution = _combine(numbers, rng)
      if self.target[0] <= value <= self.target[1] and value not in numbers:
        break
    asked = rng.choice(self.questions)
    return {
      'messages': ask(asked.format(target=value, numbers=', '.join(map(str, numbers)))),
      'key': f'{value} from {sorted(numbers)}',
      'group': f'{len(numbers)} numbers',
      'numbers': numbers,
      'target': value,
      'answer': solution,
    }

  def grade(self, problem: dict, reply: dict) -> float:
    text = _plain(schema.text(reply['content']))
    said = strongest(text, _expressions(text))
    return float(
      said is not None
      and evaluate(said) == problem['target']
      and not used(said) - collections.Counter(problem['numbers'])
    )


def _combine(numbers: list[int], rng: random.Random) -> tuple[int, str]:
  """Returns a whole number that can be made of all the numbers, and how, without spare brackets."""
  parts = [(number, str(number), 3) for number in numbers]  # value, text, how strongly it binds
  while len(parts) > 1:
    rng.shuffle(parts)
    (a, x, p), (b, y, q) = parts.pop(), parts.pop()
    if a < b:
      (a, x, p), (b, y, q) = (b, y, q), (a, x, p)
    operators = ['+', '*', *['-'] * (a > b), *['/'] * (a % b == 0 and b > 1)]
    op = rng.choice(operators)
    binds = 2 if op in '*/' else 1
    left = f'({x})' if p < binds else x
    # The right side of - and / needs brackets around what binds no more strongly.
    right = f'({y})' if q < binds or (q == binds and op in '-/') else y
    value = {'+': a + b, '-': a - b, '*': a * b, '/': a // b}[op]
    parts.append((value, f'{left} {op} {right}', binds))
  return parts[0][:2]


def _plain(text: str) -> str:
  """Returns a text as `claims.plain` does, in which * is a product and fractions keep their sides.

  '6.0' becomes '6'.
  """
  text = re.sub(r'\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}', r'(\1)/(\2)', text)
  text = re.sub(r'(?<=[0-9)])\s*\*\s*(?=[-(0-9])', ' * ', text)
  return re.sub(r'(?<=[0-9])\.0+(?![0-9])', '', claims.plain(text))


def _expressions(text: str) -> list[claims.Mention]:
  """Returns the expressions of a text, written without spaces."""
  found = []
  for match in _EXPRESSION.finditer(text):
    said = re.sub(r'\s', '', match[0])
    while said.endswith(')') and said.count(')') > said.count('('):
      said = said[:-1]
    while said.startswith('(') and said.count('(') > said.count(')'):
      said = said[1:]
    if _INSIDE.search(said):
      result = _RESULT.match(text, match.end())
      found.append(claims.Mention(said, match.start(), result.end() if result else match.end()))
  return found


def evaluate(expression: str) -> fractions.Fraction | None:
  """Returns the exact value of an expression of whole numbers and + - * /, or None.

  None is returned for what is no such expression, is too long, or divides by 0.
  """
  tree = _parsed(expression)
  try:
    return tree and _value(tree.body)
  except (ZeroDivisionError, ValueError, RecursionError):
    return None


def used(expression: str) -> collections.Counter:
  """Returns how often each number is in an expression that `evaluate` has a value for."""
  tree = _parsed(expression)
  nodes = ast.walk(tree) if tree else ()
  return collections.Counter(node.value for node in nodes if isinstance(node, ast.Constant))


def _parsed(expression: str) -> ast.Expression | None:
  if len(expression) > MAX_CHARS or len(re.findall('[0-9]+', expression)) > MAX_NUMBERS:
    return None
  try:
    return ast.parse(expression.strip(), mode='eval')
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return None


def _value(node: ast.expr) -> fractions.Fraction:
  """Returns the value of a node. Raises ValueError for one that is not allowed."""
  if isinstance(node, ast.Constant) and type(node.value) is int:
    return fractions.Fraction(node.value)
  if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
    return -_value(node.operand)
  if not isinstance(node, ast.BinOp) or type(node.op) not in _OPERATIONS:
    raise ValueError(ast.dump(node))
  left, right = _value(node.left), _value(node.right)
  match _OPERATIONS[type(node.op)]:
    case '+':
      return left + right
    case '-':
      return left - right
    case '*':
      return left * right
    case _:
      return left / right
