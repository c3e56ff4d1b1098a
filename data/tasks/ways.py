"""The same problems answered in three ways: at once, in steps, and by a Python program.

A model computes a fixed amount for each token, so that more tokens are more thought. The first
words of a question say which way is wanted.
"""

import dataclasses
import functools
import random
from typing import Any, ClassVar

from data.tasks.arithmetic import Comparison
from data.tasks.dates import Dates
from data.tasks.letters import Letters
from data.tasks.protocol import Task, Worked, ask, held_out, question
from data.tasks.sorting import Sorting
from data.tasks.sums import Sums
from data.tools import toolbox

FAMILIES: tuple[type[Worked], ...] = (Sums, Letters, Comparison, Sorting, Dates)


@dataclasses.dataclass(frozen=True, eq=False)
class AtOnce(Task):
  """Problems of all families, equally many of each; the reply is the answer alone.

  Problem N is the same for every way, and is in the same split.
  """

  name: ClassVar[str] = 'at_once'
  wanted: ClassVar[str] = 'At once'  # the first words of a question

  @functools.cached_property
  def families(self) -> dict[str, Worked]:
    return {family.name: family(self.seed) for family in FAMILIES}

  def rng(self, *where: Any) -> random.Random:
    return random.Random('/'.join(map(str, ('ways', self.seed, *where))))

  def in_test(self, key: str) -> bool:
    return held_out(f'ways/{key}')

  def draw(self, rng: random.Random) -> dict:
    family = self.families[rng.choice(list(self.families))]
    problem = {'group': family.name, **family.draw(rng)}
    return problem | {
      'messages': ask(f'{self.wanted}: {question(problem)}'),
      'key': f'{family.name}/{problem["key"]}',
      'family': family.name,
    }

  def reply(self, problem: dict, rng: random.Random) -> str | list[dict]:
    return str(problem['answer'])

  def grade(self, problem: dict, reply: dict) -> float:
    return self.families[problem['family']].grade(problem, reply)


@dataclasses.dataclass(frozen=True, eq=False)
class InSteps(AtOnce):
  """The same problems; the reply derives the answer in steps."""

  name: ClassVar[str] = 'in_steps'
  wanted: ClassVar[str] = 'In steps'

  def reply(self, problem: dict, rng: random.Random) -> str | list[dict]:
    return self.families[problem['family']].steps(problem)


@dataclasses.dataclass(frozen=True, eq=False)
class WithPython(AtOnce):
  """The same problems; the reply calls Python and repeats what it prints.

  Demonstrations state what a program prints without running it.
  """

  name: ClassVar[str] = 'with_python'
  wanted: ClassVar[str] = 'With Python'

  def reply(self, problem: dict, rng: random.Random) -> str | list[dict]:
    program, printed = self.families[problem['family']].program(problem)
    return [
      {'type': 'python', 'text': toolbox.write_call('python', program)},
      {'type': 'output', 'text': printed},
      {'type': 'text', 'text': str(problem['answer'])},
    ]
