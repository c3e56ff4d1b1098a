"""Sums of whole numbers of several digits, and how to find them digit by digit."""

import dataclasses
import random
from typing import ClassVar

from data.tasks.protocol import Worked, ask


@dataclasses.dataclass(frozen=True, eq=False)
class Sums(Worked):
  """Sums of two numbers; the group of a problem is the number of digits of the larger one.

  As a task of its own, demonstrations state the sum at once, except for a fraction that derives it
  column by column, which takes more tokens and is more often right.
  """

  steps_share: float = 0.25  # fraction of demonstrations that derive the sum
  digits: tuple[int, int] = (2, 4)  # fewest and most; each number of digits is equally likely
  name: ClassVar[str] = 'sums'
  questions: ClassVar[tuple[str, ...]] = ('What is {a} + {b}?', 'Compute {a} + {b}.')

  def draw(self, rng: random.Random) -> dict:
    digits = rng.randint(*self.digits)
    numbers = [rng.randrange(10 ** (digits - 1), 10**digits)]
    numbers.append(rng.randint(1, numbers[0]))
    a, b = rng.sample(numbers, 2)
    return {
      'messages': ask(rng.choice(self.questions).format(a=a, b=b)),
      'key': '{} + {}'.format(*sorted(numbers)),  # the same in either order
      'group': f'sums of {digits} digits',
      'numbers': [a, b],
      'answer': str(a + b),
    }

  def reply(self, problem: dict, rng: random.Random) -> str:
    return self.steps(problem) if rng.random() < self.steps_share else problem['answer']

  def steps(self, problem: dict) -> str:
    """Returns the columns from the right, each with the carry, and the result so far."""
    width = len(str(max(problem['numbers'])))
    columns = zip(*(f'{number:0{width}}'[::-1] for number in problem['numbers']), strict=True)
    steps, result, carry = [], '', 0
    for place, (x, y) in enumerate(columns, 1):
      total = int(x) + int(y) + carry
      result = f'{total % 10 if place < width else total}{result}'
      steps.append(f'{x}+{y}{"+1" * carry}={total}: {result}')
      carry = total // 10
    return f'{"; ".join(steps)}. Answer: {problem["answer"]}'

  def program(self, problem: dict) -> tuple[str, str]:
    a, b = problem['numbers']
    return f'{a} + {b}', problem['answer']
