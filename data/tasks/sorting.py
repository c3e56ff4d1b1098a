"""Short lists of numbers to sort, and how to sort them by insertion."""

import bisect
import dataclasses
import decimal
import random
import re
from typing import ClassVar

from data.chat import schema
from data.tasks import claims
from data.tasks.claimed_number import numbers, strongest
from data.tasks.protocol import Worked, ask, question

MAX_REPLY = 4_000  # characters of the end of a reply that are read
_MARKS = r'[ \t"\'`]*'
# What may stand between two numbers of a list.
_JOINT = re.compile(
  rf'{_MARKS}(?:,(?:\s*\n)?|[|&]|<=?|≤|->|→)?{_MARKS}(?:\b(?:and|then)\b)?{_MARKS}', re.IGNORECASE
)
# The same in a text without commas, whose lists may have a number on each line.
_WIDE_JOINT = re.compile(rf'{_JOINT.pattern}(?:;?[ \t]*\n\s*[-*•]?|;)?{_MARKS}', re.IGNORECASE)

# The number of a line, as 2 is of '2. 31' and '2) 31'.
_LINE_NUMBER = re.compile(r'^[ \t]*([0-9]{1,3})[.)][ \t]+(?=-?[0-9.]+[ \t.,;]*$)', re.MULTILINE)


@dataclasses.dataclass(frozen=True, eq=False)
class Sorting(Worked):
  """Lists of different numbers below 100, to sort from the smallest to the largest."""

  sizes: tuple[int, int] = (3, 5)  # fewest and most numbers of a list
  name: ClassVar[str] = 'sorting'
  questions: ClassVar[tuple[str, ...]] = (
    'Sort {numbers}.',
    'Put {numbers} in ascending order.',
  )

  def draw(self, rng: random.Random) -> dict:
    numbers = rng.sample(range(100), rng.randint(*self.sizes))
    return {
      'messages': ask(rng.choice(self.questions).format(numbers=listed(numbers))),
      'key': listed(sorted(numbers)),
      'group': self.name,
      'numbers': numbers,
      'answer': listed(sorted(numbers)),
    }

  def steps(self, problem: dict) -> str:
    """Returns the sorted list after each number is put into its place."""
    done, lists = [], []
    for number in problem['numbers']:
      bisect.insort(done, number)
      lists.append(listed(done))
    return f'{"; ".join(lists)}. Answer: {problem["answer"]}'

  def program(self, problem: dict) -> tuple[str, str]:
    return f'sorted([{listed(problem["numbers"])}])', f'[{problem["answer"]}]'

  def difficulty(self, problem: dict) -> str:
    """Returns how many numbers there are to sort."""
    return f'{len(problem["numbers"])} numbers'

  def grade(self, problem: dict, reply: dict) -> float:
    said = claimed_list(schema.text(reply['content'])[-MAX_REPLY:], question(problem))
    return float(said == tuple(map(decimal.Decimal, sorted(problem['numbers']))))


def listed(numbers: list[int]) -> str:
  """Returns numbers as text: '7, 31, 52'."""
  return ', '.join(map(str, numbers))


def claimed_list(text: str, asked: str = '') -> tuple[decimal.Decimal, ...] | None:
  """Returns the list of numbers that a reply claims as the answer, or None.

  Args:
    text: the reply.
    asked: the question. Its own list is no claim where the reply only repeats it.
  """
  text = _without_line_numbers(claims.plain(text))
  echoes = {mention.value for mention in _lists(claims.plain(asked))}
  return strongest(text, _lists(text), echoes)


def _without_line_numbers(text: str) -> str:
  """Returns a text without the numbers 1, 2, ... of a list whose lines have a number each."""
  heads = list(_LINE_NUMBER.finditer(text))
  if [int(head[1]) for head in heads] != list(range(1, len(heads) + 1)):
    return text
  return _LINE_NUMBER.sub('', text)


def _lists(text: str) -> list[claims.Mention]:
  """Returns the lists of two or more numbers in a text, each as a tuple."""
  runs: list[list[claims.Mention]] = []
  joint = _JOINT if ',' in text else _WIDE_JOINT
  for number in numbers(text):
    if runs and joint.fullmatch(text[runs[-1][-1].end : number.start]):
      runs[-1].append(number)
    else:
      runs.append([number])
  return [
    claims.Mention(tuple(number.value for number in run), run[0].start, run[-1].end)
    for run in runs
    if len(run) > 1
  ]
