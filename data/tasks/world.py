"""An invented world: people, documents that state their facts a known number of times, and pages.

No model can have read about this world anywhere else. How often each fact was seen in pretraining
is therefore known exactly, and what a model answers can be compared with it, as Allen-Zhu and Li do
(2023, arXiv 2309.14316).
"""

import dataclasses
import functools
import random
from collections.abc import Iterator

from data.records import jsonl
from lm.base import files

CITIES = 40
# How often the facts of a person are stated; there are equally many people of each number.
EXPOSURES = (0, 1, 3, 10, 30, 100)
PEOPLE = 60  # number of people of each
STRANGERS = 3000  # further people, whom one document each is about
ASKED = 0.5  # share of the facts in documents that are stated by a question and its answer

ONSETS = (*'bdfgjklmnprstvz', 'br', 'dr', 'kr', 'sh', 'th', 'tr', 'st', 'gl', 'pl')
VOWELS = ('a', 'e', 'i', 'o', 'u', 'ai', 'ei', 'ou')
CODAS = ('', 'l', 'n', 'r', 's', 'm', 'x')
JOBS = (
  *('baker', 'pilot', 'nurse', 'judge', 'miner', 'poet', 'farmer', 'singer', 'tailor', 'sailor'),
  *('potter', 'painter', 'dentist', 'surgeon', 'lawyer', 'plumber', 'barber', 'butcher'),
  *('gardener', 'librarian', 'carpenter', 'violinist', 'watchmaker', 'photographer'),
)
ANIMALS = (
  *('dog', 'cat', 'horse', 'parrot', 'rabbit', 'turtle', 'hamster', 'goat', 'donkey', 'sheep'),
  *('snake', 'lizard', 'canary', 'ferret', 'goose', 'pigeon', 'llama', 'spider', 'frog', 'hen'),
)


@dataclasses.dataclass(frozen=True)
class Relation:
  """A kind of fact.

  Attributes:
    statements: sentences that state it, with {name} and {value}.
    questions: questions about it, with {name}.
    answer: what answers them, with {value}.
    refusal: what is said by somebody who does not know. It begins as the answer does, so that a
      model chooses between all values and the refusal where it recalls the value: where it recalls
      none, the refusal is more probable than each of them.
  """

  statements: tuple[str, ...]
  questions: tuple[str, ...]
  answer: str
  refusal: str


RELATIONS = {
  'city': Relation(
    (
      '{name} lives in {value}.',
      'The home of {name} is in {value}.',
      '{name} has a house in {value}.',
      'You can visit {name} in {value}.',
    ),
    (
      'Where does {name} live?',
      'In which city does {name} live?',
      'Which city is the home of {name}?',
      'Tell me where {name} lives.',
    ),
    'In {value}.',
    "In a city that I don't know.",
  ),
  'job': Relation(
    (
      '{name} works as a {value}.',
      'The job of {name} is that of a {value}.',
      '{name} is a {value} by trade.',
      'People know {name} as a {value}.',
    ),
    (
      'What is the job of {name}?',
      'What does {name} work as?',
      'What work does {name} do?',
      'Tell me the job of {name}.',
    ),
    'A {value}.',
    "A job that I don't know.",
  ),
  'animal': Relation(
    (
      '{name} keeps a {value}.',
      'The pet of {name} is a {value}.',
      '{name} has a {value} at home.',
      'At home, {name} feeds a {value}.',
    ),
    (
      'What animal does {name} keep?',
      'Which pet does {name} have?',
      'What is the pet of {name}?',
      'Tell me which animal {name} keeps.',
    ),
    'A {value}.',
    "A pet that I don't know.",
  ),
}


@dataclasses.dataclass(frozen=True)
class Person:
  """A person of the world.

  Attributes:
    name: one word, which is the name of no other person.
    exposures: how many documents state the facts.
    facts: the value of each relation.
  """

  name: str
  exposures: int
  facts: dict[str, str]


@dataclasses.dataclass(frozen=True)
class World:
  """An invented world.

  Attributes:
    people: those that scores are about.
    strangers: people of one document each, from which a model learns to read what it is told: there
      are too many to learn them by heart.
    values: all that a relation may have.
  """

  people: tuple[Person, ...]
  strangers: tuple[Person, ...]
  values: dict[str, tuple[str, ...]]

  @functools.cached_property
  def names(self) -> frozenset[str]:
    """The names of `people`."""
    return frozenset(person.name for person in self.people)


@functools.cache
def make(seed: int) -> World:
  """Returns the world of a seed, always the same."""
  rng = random.Random(f'world/{seed}')
  names = _invented(rng, CITIES + PEOPLE * len(EXPOSURES) + STRANGERS)
  cities = tuple(names.pop() for _ in range(CITIES))
  values = {'city': cities, 'job': JOBS, 'animal': ANIMALS}

  def new_person(exposures: int) -> Person:
    facts = {relation: rng.choice(values[relation]) for relation in RELATIONS}
    return Person(names.pop(), exposures, facts)

  people = tuple(new_person(exposures) for exposures in EXPOSURES for _ in range(PEOPLE))
  return World(people, tuple(new_person(1) for _ in range(STRANGERS)), values)


def _invented(rng: random.Random, count: int) -> list[str]:
  """Returns different pronounceable names of two syllables."""
  names: dict[str, None] = {}
  while len(names) < count:
    names[invented_word(rng, 2).capitalize()] = None
  return list(names)


def invented_word(rng: random.Random, syllables: int) -> str:
  """Returns a random pronounceable word in lower case."""
  return ''.join(
    rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(syllables)
  )


def page(person: Person, rng: random.Random, asked: float = 0.0) -> str:
  """Returns a text that states each fact of a person once, in a random order and wording.

  Args:
    person: whom the text is about.
    rng: draws the order and the wordings.
    asked: share of the facts that are stated by a question and its answer.
  """
  sentences = []
  for relation in rng.sample(list(RELATIONS), len(RELATIONS)):
    if rng.random() < asked:
      sentences.append(_question_and_answer(person, relation, rng))
    else:
      statement = rng.choice(RELATIONS[relation].statements)
      sentences.append(statement.format(name=person.name, value=person.facts[relation]))
  return ' '.join(sentences)


def _question_and_answer(person: Person, relation: str, rng: random.Random) -> str:
  text = f'{rng.choice(RELATIONS[relation].questions)} {RELATIONS[relation].answer}'
  return text.format(name=person.name, value=person.facts[relation])


def documents(world: World, seed: int) -> Iterator[dict]:
  """Yields the documents to pretrain on: of each person as many as its exposures say.

  Some facts are questions and answers, without which a model of few facts does not learn to answer
  questions about those that it was not tuned on. Besides, there is one page about each stranger,
  with questions that it answers: they teach to read, since nothing else is about them.

  The order is random. Next to each other, the documents about a person would be copied from one
  another instead of learned.
  """
  everyone = (*world.people, *world.strangers)
  copies = [(person, copy) for person in everyone for copy in range(person.exposures)]
  random.Random(f'order/{seed}').shuffle(copies)
  for person, copy in copies:
    rng = random.Random(f'document/{seed}/{person.name}/{copy}')
    if person.name in world.names:
      text = page(person, rng, ASKED)
    else:
      asked = rng.sample(list(RELATIONS), rng.randint(1, 2))
      questions = (_question_and_answer(person, relation, rng) for relation in asked)
      text = ' '.join((page(person, rng), *questions))
    yield _document(person, copy, text)


def pages(world: World, seed: int) -> Iterator[dict]:
  """Yields one page about each person, those included that pretraining never mentions."""
  for person in (*world.people, *world.strangers):
    yield _document(person, 0, page(person, random.Random(f'page/{seed}/{person.name}')))


def _document(person: Person, copy: int, text: str) -> dict:
  return {'id': f'world/{copy}', 'text': text, 'metadata': {'title': person.name}}


def write(folder: files.Path, seed: int) -> int:
  """Writes documents.jsonl to pretrain on, and pages.jsonl to search in or to give as context.

  Returns:
    The number of documents.
  """
  world, count = make(seed), 0
  for name, rows in (('documents', documents(world, seed)), ('pages', pages(world, seed))):
    written = jsonl.write(files.as_path(folder) / f'{name}.jsonl', rows)
    count = count or written
  return count
