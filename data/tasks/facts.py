"""Questions about people of an invented world (world.py): from memory, from a page, by search."""

import dataclasses
import random
from collections.abc import Callable
from typing import ClassVar

from data.chat import schema
from data.tasks import world as world_lib
from data.tasks.claimed_name import claims_name
from data.tasks.protocol import Task, ask, held_out
from data.tools import toolbox

FAMOUS = 30  # exposures from which on a fact counts as well known
READ = 0.7  # share of strangers in training problems that are answered by reading


@dataclasses.dataclass(frozen=True, eq=False)
class Facts(Task):
  """Facts about people, from memory; a third of the people are in the test split, and no stranger.

  The group of a problem is how often pretraining stated the fact.
  """

  name: ClassVar[str] = 'facts'
  fewest: ClassVar[int] = 0  # exposures of the people that are asked about
  strangers: ClassVar[float] = 0.0  # share of the training problems that are about strangers

  @property
  def world(self) -> world_lib.World:
    return world_lib.make(self.seed)

  def in_test(self, key: str) -> bool:
    """Returns whether a person is in the test split, for every task about facts."""
    return key in self.world.names and held_out(f'facts/{key}', one_in=3)

  def draw(self, rng: random.Random) -> dict:
    if rng.random() < self.strangers:
      people = self.world.strangers
    else:
      people = [person for person in self.world.people if person.exposures >= self.fewest]
    person, relation = rng.choice(people), rng.choice(list(world_lib.RELATIONS))
    question = rng.choice(world_lib.RELATIONS[relation].questions).format(name=person.name)
    return {
      'messages': ask(self.given(person, rng) + question),
      'key': person.name,
      'relation': relation,
      'answer': person.facts[relation],
      'group': str(person.exposures),
    }

  def given(self, person: world_lib.Person, rng: random.Random) -> str:
    """Returns what stands before the question."""
    del person, rng
    return ''

  def reply(self, problem: dict, rng: random.Random) -> str | list[dict]:
    return world_lib.RELATIONS[problem['relation']].answer.format(value=problem['answer'])

  def refusal(self, problem: dict, rng: random.Random) -> str:
    del rng
    return world_lib.RELATIONS[problem['relation']].refusal

  def grade(self, problem: dict, reply: dict) -> float:
    said, values = schema.text(reply['content']), self.world.values[problem['relation']]
    return float(claims_name(said, problem['answer'], values))


@dataclasses.dataclass(frozen=True, eq=False)
class Famous(Facts):
  """Facts about people that pretraining stated often, which demonstrate answers from memory."""

  name: ClassVar[str] = 'famous'
  fewest: ClassVar[int] = FAMOUS


@dataclasses.dataclass(frozen=True, eq=False)
class FactsPage(Facts):
  """The same questions, with a page about the person before them."""

  name: ClassVar[str] = 'facts_page'
  strangers: ClassVar[float] = READ

  def given(self, person: world_lib.Person, rng: random.Random) -> str:
    return f'{world_lib.page(person, rng)}\n'


@dataclasses.dataclass(frozen=True, eq=False)
class FactsSearch(Facts):
  """The same questions, answered by searching in the pages of the world."""

  search: Callable[[str], str]
  name: ClassVar[str] = 'facts_search'
  strangers: ClassVar[float] = READ
  reads: ClassVar[str] = 'index'

  def given(self, person: world_lib.Person, rng: random.Random) -> str:
    del person, rng
    return 'Search: '

  def reply(self, problem: dict, rng: random.Random) -> str | list[dict]:
    return [
      {'type': 'python', 'text': toolbox.write_call('search', problem['key'])},
      {'type': 'output', 'text': self.search(problem['key'])},
      {'type': 'text', 'text': super().reply(problem, rng)},
    ]
