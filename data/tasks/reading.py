"""Questions about the crawled documentation: from memory, and with the passage that answers them at
hand.
"""

import collections
import dataclasses
import random
from typing import ClassVar

from data.chat import chat_formats
from data.tasks import answers
from data.tasks.documents import Documents
from data.tasks.protocol import Task, ask
from lm.base.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Docs(Task):
  """Which module a function is of, from memory: pretraining has read its page, the question was
  never trained on.

  Asked are functions that the documents of the train split describe in one module alone.
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
    known = sorted(
      (name, modules[0]) for name, modules in self.documents.modules_of.items() if len(modules) == 1
    )
    if not known:
      raise UserError(f'task {self.name!r}: the documents describe no function in one module alone')
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
    """1.0 if the reply names the module, and no other of the documents by its full name."""
    module, said = problem['answer'], chat_formats.text(reply['content'])
    return float(
      answers.claims_name(
        said, module, self.documents.modules, also=(f'{module}.{problem["key"]}',)
      )
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Reading(Task):
  """Which function of a passage does what the question says. Test passages are of held-out
  documents.
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
    siblings = collections.defaultdict(list)  # of each split apart: a passage is of one split
    for split in ('train', 'test'):
      for entry in getattr(self.documents, split):
        siblings[split, entry.module].append(entry)
    if not self.documents.test:
      raise UserError(
        f'task {self.name!r}: held-out documents describe no function that others do not; hold out '
        'more'
      )
    object.__setattr__(self, '_siblings', siblings)

  def problem(self, index: int, split: str) -> dict:
    rng = self.rng(split, index)
    entry = rng.choice(getattr(self.documents, split))
    others = {
      other.name: other
      for other in self._siblings[split, entry.module]
      if other.summary != entry.summary
    }
    others.pop(entry.name, None)
    passage = [
      entry,
      *rng.sample(list(others.values()), min(len(others), rng.randint(1, self.max_entries - 1))),
    ]
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
    """1.0 if the reply names the function, and no other of the passage."""
    return float(
      answers.claims_name(
        chat_formats.text(reply['content']), problem['answer'], problem['others'], qualified=True
      )
    )
