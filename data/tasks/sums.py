"""Sums and differences of whole numbers of several digits, and how to find them digit by digit."""

import dataclasses
import random
from typing import ClassVar

from data.tasks.protocol import Worked, ask


@dataclasses.dataclass(frozen=True, eq=False)
class Sums(Worked):
  """Sums and differences; the group of a problem is the number of digits of its larger number."""

  max_digits: int = 4  # each number of digits is equally likely
  name: ClassVar[str] = 'sums'
  questions: ClassVar[tuple[str, ...]] = ('What is {a} {op} {b}?', 'Compute {a} {op} {b}.')

  def draw(self, rng: random.Random) -> dict:
    digits, op = rng.randint(1, self.max_digits), rng.choice('+-')
    a = rng.randrange(10 ** (digits - 1), 10**digits)
    b = rng.randint(0, a)  # so that no difference is negative
    key = f'{a} {op} {b}'
    if op == '+' and rng.random() < 0.5:
      a, b = b, a  # the same problem, so the key and the split are the same
    return {
      'messages': ask(rng.choice(self.questions).format(a=a, b=b, op=op)),
      'key': key,
      'group': f'sums of {digits} digits' if digits > 1 else 'sums of 1 digit',
      'numbers': [a, b],
      'op': op,
      'answer': str(a + b if op == '+' else a - b),
    }

  def steps(self, problem: dict) -> str:
    """Returns the columns from the right, each with the carry, and the result so far."""
    (a, b), op = problem['numbers'], problem['op']
    width = len(str(max(a, b)))
    columns = zip(*(map(int, f'{number:0{width}}'[::-1]) for number in (a, b)), strict=True)
    steps, result, carry = [], '', 0
    for place, (x, y) in enumerate(columns, 1):
      carried = f'{op}1' if carry else ''
      if op == '+':
        value = x + y + carry
        carry, digit = divmod(value, 10) if place < width else (0, value)
      else:
        borrowed = x < y + carry
        x += 10 * borrowed
        value = digit = x - y - carry
        carry = borrowed
      result = f'{digit}{result}'
      steps.append(f'{x}{op}{y}{carried}={value}: {result}')
    return f'{"; ".join(steps)}. Answer: {problem["answer"]}'

  def program(self, problem: dict) -> tuple[str, str]:
    a, b = problem['numbers']
    return f'{a} {problem["op"]} {b}', problem['answer']
