"""Questions about the crawled documentation: from memory, and about a given passage."""

import collections
import dataclasses
import random
from typing import ClassVar

from data.chat import schema
from data.tasks.claimed_name import claims_name
from data.tasks.documents import Documents
from data.tasks.protocol import Task, ask
from lm.base.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Docs(Task):
  """Which module a function belongs to, from memory.

  Pretraining has read the function's page, but the question was never trained on. Questions are
  about functions that the train documents describe in one module alone.
  """

  documents: Documents
  name: ClassVar[str] = 'docs'
  reads: ClassVar[str] = 'documents'
  questions: ClassVar[tuple[str, ...]] = (
    'Which module has the function {name}?',
    'In which module is {name}?',
    'Where do I find the function {name}?',
    'What module is {name} in?',
  )

  def __post_init__(self) -> None:
    modules_of = self.documents.modules_of
    known = sorted((name, found[0]) for name, found in modules_of.items() if len(found) == 1)
    if not known:
      raise UserError(
        field=f'problem of task {self.name!r}',
        message='The documents describe no function in one module alone.',
      )
    object.__setattr__(self, '_known', known)

  def draw(self, rng: random.Random) -> dict:
    name, module = rng.choice(self._known)
    return {
      'messages': ask(rng.choice(self.questions).format(name=name)),
      'key': name,
      'answer': module,
    }

  def reply(self, problem: dict, rng: random.Random) -> str:
    return f'In the module {problem["answer"]}.'

  def grade(self, problem: dict, reply: dict) -> float:
    """Returns 1.0 if the reply names the module and no other module of the documents, else 0.0."""
    module, said = problem['answer'], schema.text(reply['content'])
    qualified = f'{module}.{problem["key"]}'
    return float(claims_name(said, module, self.documents.modules, also=(qualified,)))


@dataclasses.dataclass(frozen=True, eq=False)
class Reading(Task):
  """Which function of a passage does what the question says.

  Test passages are from held-out documents.
  """

  documents: Documents
  max_entries: int = 3  # functions described in a passage
  name: ClassVar[str] = 'reading'
  reads: ClassVar[str] = 'documents'
  questions: ClassVar[tuple[str, ...]] = (
    'Which function does this: {summary}',
    'Which of these is it: {summary}',
    'Find the function: {summary}',
    'What is the name of this function: {summary}',
  )

  def __post_init__(self) -> None:
    siblings = collections.defaultdict(list)  # {(split, module): entries}
    for split in ('train', 'test'):
      for entry in getattr(self.documents, split):
        siblings[split, entry.module].append(entry)
    if not self.documents.test:
      raise UserError(
        field=f'test problem of task {self.name!r}',
        message='Held-out documents describe no function that the others do not: '
        'config.data.held_out or --held-out must be larger.',
      )
    object.__setattr__(self, '_siblings', siblings)

  def problem(self, index: int, split: str) -> dict:
    rng = self.rng(split, index)
    entry = rng.choice(getattr(self.documents, split))
    others = {}
    for other in self._siblings[split, entry.module]:
      if other.summary != entry.summary and other.name != entry.name:
        others[other.name] = other
    count = min(len(others), rng.randint(1, self.max_entries - 1))
    passage = [entry, *rng.sample(list(others.values()), count)]
    rng.shuffle(passage)
    described = '\n'.join(f'{e.name}: {e.summary}' for e in passage)
    question = rng.choice(self.questions).format(summary=entry.summary)
    text = f'From the documentation of {entry.module}:\n{described}\n{question}'
    return {
      'task': self.name,
      'messages': ask(text),
      'key': f'{entry.name}: {entry.summary}',
      'answer': entry.name,
      'others': sorted(e.name for e in passage if e is not entry),
    }

  def grade(self, problem: dict, reply: dict) -> float:
    """Returns 1.0 if the reply names the function and no other of the passage, else 0.0."""
    said, others = schema.text(reply['content']), problem['others']
    return float(claims_name(said, problem['answer'], others, qualified=True))
