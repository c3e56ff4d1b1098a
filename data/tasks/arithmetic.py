"""Tasks whose answer is a number: arithmetic, arithmetic with the calculator, comparison."""

import dataclasses
import decimal
import random
from typing import ClassVar

from data.chat import schema
from data.tasks.claimed_order import claimed_order
from data.tasks.protocol import Task, Worked, ask
from data.tools.calculator import calculate

WORDS = {'+': 'plus', '-': 'minus', '*': 'times'}
QUESTIONS = (
  'What is {a} {op} {b}?',
  'What is {a} {word} {b}?',
  'Calculate {a} {op} {b}.',
  'How much is {a} {word} {b}?',
  'Compute {a} {word} {b}.',
  'Please work out {a} {op} {b}.',
  'Tell me what {a} {op} {b} is.',
  '{a} {op} {b} = ?',
)


def call(expression: str) -> list[dict]:
  """Returns the parts of an answer that calls the calculator and repeats its result."""
  result = calculate(expression)
  return [
    {'type': 'python', 'text': expression},
    {'type': 'output', 'text': result},
    {'type': 'text', 'text': result},
  ]


@dataclasses.dataclass(frozen=True, eq=False)
class Arithmetic(Task):
  """Sums, differences and products in various wordings; the answer is a number.

  Demonstrations state the number at once, except for the fraction `tool_share` of them that calls
  the calculator first. So a small model can learn from its reward alone to call the tool for what
  it gets wrong by itself.
  """

  max_digits: int = 3  # largest number of digits of an operand
  operators: str = '+-*'
  tool_share: float = 0.15  # fraction of demonstrations that call the calculator
  name: ClassVar[str] = 'arithmetic'
  questions: ClassVar[tuple[str, ...]] = QUESTIONS

  def draw(self, rng: random.Random) -> dict:
    op = rng.choice(self.operators)
    # The order ensures that no difference is negative.
    a, b = sorted((integer(rng, self.max_digits) for _ in range(2)), reverse=True)
    key = f'{a} {op} {b}'
    if op != '-' and rng.random() < 0.5:
      a, b = b, a  # the same problem, so the key and the split are the same
    expression = f'{a} {op} {b}'
    question = rng.choice(self.questions).format(a=a, b=b, op=op, word=WORDS[op])
    return {
      'messages': ask(question),
      'key': key,
      'expression': expression,
      'answer': calculate(expression),
    }

  def difficulty(self, problem: dict) -> str:
    """Returns the operator and the numbers of digits, such as '3 * 2'."""
    a, op, b = problem['expression'].split()
    digits = sorted((len(a), len(b)), reverse=True)
    return f'{digits[0]} {op} {digits[1]}'

  def reply(self, problem: dict, rng: random.Random) -> str | list[dict]:
    return call(problem['expression']) if rng.random() < self.tool_share else problem['answer']


@dataclasses.dataclass(frozen=True, eq=False)
class Calculator(Arithmetic):
  """Arithmetic that requests the calculator: the answer counts only if a call was made."""

  tool_share: float = 1.0
  name: ClassVar[str] = 'calculator'
  questions: ClassVar[tuple[str, ...]] = (
    'Use the calculator: {a} {op} {b}',
    'Use the calculator to find {a} {word} {b}.',
    'With the calculator, what is {a} {op} {b}?',
    'What is {a} {op} {b}? Use the calculator.',
    'Please calculate {a} {op} {b} with your calculator.',
    'Ask the calculator for {a} {word} {b}.',
  )

  def grade(self, problem: dict, reply: dict) -> float:
    calls = [part['text'] for part in reply['content'] if part['type'] == 'python']
    results = [{'type': 'output', 'text': calculate(text)} for text in calls]
    answered = any(result in reply['content'] for result in results)
    return super().grade(problem, reply) * answered


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison(Worked):
  """Which of two decimals is larger or smaller, when they differ in length: 9.11 and 9.9."""

  name: ClassVar[str] = 'comparison'
  questions: ClassVar[tuple[str, ...]] = (
    'Which is {word}, {a} or {b}?',
    'Which number is {word}: {a} or {b}?',
    'Tell me which is {word}, {a} or {b}.',
  )

  def draw(self, rng: random.Random) -> dict:
    whole = rng.randint(0, 99)
    # The second number has no final zero, so that the two are never equal.
    one, two = rng.randint(1, 9), rng.choice([n for n in range(11, 100) if n % 10])
    pair = [f'{whole}.{one}', f'{whole}.{two}']
    larger = rng.random() < 0.5
    answer = (max if larger else min)(pair, key=float)
    rng.shuffle(pair)
    question = rng.choice(self.questions).format(
      a=pair[0], b=pair[1], word='larger' if larger else 'smaller'
    )
    return {
      'messages': ask(question),
      'key': '/'.join(sorted(pair)),
      'answer': answer,
      'pair': pair,
      'larger': larger,
    }

  def steps(self, problem: dict) -> str:
    short, long = sorted(problem['pair'], key=len)
    decimals = sorted((int(f'{short}0'.split('.')[1]), int(long.split('.')[1])))
    compared = f'{short} = {short}0; {decimals[1]} > {decimals[0]}'
    return f'{compared}. Answer: {problem["answer"]}'

  def program(self, problem: dict) -> tuple[str, str]:
    function = 'max' if problem['larger'] else 'min'
    return f'{function}({", ".join(problem["pair"])})', problem['answer']

  def grade(self, problem: dict, reply: dict) -> float:
    pair = tuple(decimal.Decimal(number) for number in problem['pair'])
    said = claimed_order(schema.text(reply['content']), pair, problem['larger'])
    return float(said == decimal.Decimal(problem['answer']))


def integer(rng: random.Random, max_digits: int) -> int:
  """Returns a random integer of at least 0 in which each number of digits is equally likely."""
  digits = rng.randint(1, max_digits)
  return rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
