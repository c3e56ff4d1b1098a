"""The calculator that a model may call while it answers.

It is safe by construction: Python never evaluates the expression.
"""

import ast
import math
import operator
import re

MAX_CHARACTERS = 200
LIMIT = 10**50  # of every intermediate result, so that time and memory are bounded

# Only these tokens reach the parser. The quantifiers are possessive, so that a mismatch is found in
# linear time.
_LEXER = re.compile(
  r'(?:[0-9]++(?:\.[0-9]*+)?(?:e[-+]?[0-9]++)?|\.[0-9]++|[-+*/%(),\s]|round|abs|min|max)*+'
)
_FUNCTIONS = {'round': round, 'abs': abs, 'min': min, 'max': max}
_UNARY = {ast.UAdd: operator.pos, ast.USub: operator.neg}


class _Refused(ArithmeticError):
  """The calculator does not do this; the model sees the message."""


def calculate(expression: str) -> str:
  """Returns the value of an arithmetic expression as text, or 'error: ...' if it has none.

  It supports numbers, + - * / // % **, parentheses, round, abs, min and max. Whole results are
  printed as integers ('3' for 6/2), others with up to 12 significant digits. It never raises, and
  its time is bounded for any text.
  """
  try:
    return _format(_value(_parse(expression)))
  except ZeroDivisionError:  # Python's message differs between int, float and **
    return 'error: division by zero'
  except OverflowError:
    return 'error: number too large'
  except _Refused as error:
    return f'error: {error}'


def _parse(expression: str) -> ast.expr:
  if len(expression) > MAX_CHARACTERS:
    raise _Refused(f'longer than {MAX_CHARACTERS} characters')
  if not _LEXER.fullmatch(expression):
    raise _Refused('not arithmetic')
  try:
    return ast.parse(' '.join(expression.split()), mode='eval').body
  # MemoryError and RecursionError mean that the expression is too deep for the parser's stack.
  except (SyntaxError, MemoryError, RecursionError) as error:
    raise _Refused('not arithmetic') from error


def _value(node: ast.expr) -> int | float:
  match node:
    case ast.Constant(value=int() | float() as value):
      result = value
    case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
      result = _UNARY[type(op)](_value(operand))
    case ast.BinOp(left=left, op=op, right=right):
      result = _binary(type(op), _value(left), _value(right))
    case ast.Call(func=ast.Name(id=name), args=[_, *_] as args, keywords=[]) if name in _FUNCTIONS:
      result = _call(name, [_value(arg) for arg in args])
    case _:
      raise _Refused('not arithmetic')
  if isinstance(result, complex) or result != result:
    raise _Refused('not a real number')
  if abs(result) > LIMIT:
    raise OverflowError
  return result


def _binary(op: type, a: int | float, b: int | float) -> int | float:
  if op is ast.Pow:
    # The size of an integer power is known before it is computed.
    integers = isinstance(a, int) and isinstance(b, int)
    if integers and abs(a) > 1 and b * math.log(abs(a)) > math.log(LIMIT) + 1:
      raise OverflowError
    return a**b
  if op is ast.Div and isinstance(a, int) and isinstance(b, int) and b and a % b == 0:
    return a // b  # exact, unlike the float quotient of large integers
  operations = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
  }
  return operations[op](a, b)  # the lexer rejects all other operators


def _call(name: str, args: list[int | float]) -> int | float:
  if name == 'round':
    digits = args[1:]
    if len(digits) > 1 or not all(isinstance(n, int) and abs(n) <= 50 for n in digits):
      raise _Refused('round takes a number and a count of digits')
    return round(*args)
  if name == 'abs' and len(args) > 1:
    raise _Refused('abs takes one number')
  return _FUNCTIONS[name](*args) if len(args) > 1 or name == 'abs' else args[0]


def _format(value: int | float) -> str:
  if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
    value = int(value)  # this turns -0.0 into 0
  return str(value) if isinstance(value, int) else format(value, '.12g')
