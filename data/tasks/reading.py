"""Questions about the crawled documentation, with the passage that answers them at hand."""

import collections
import dataclasses
import re
from typing import ClassVar

from data import chat
from data.tasks.base import Task, ask
from data.tasks.documents import Documents
from lm.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Docs(Task):
  """What a function does, to be told in the words of the passage. Test passages are of held-out documents."""

  documents: Documents
  max_entries: int = 3  # functions described in a passage
  name: ClassVar[str] = 'docs'
  reads_documents: ClassVar[bool] = True
  questions: ClassVar[tuple[str, ...]] = (
    'What does {name} do?', 'What is {name} for?', 'According to this, what does {name} do?',
    'Tell me what {name} does.',
  )

  def __post_init__(self) -> None:
    siblings = collections.defaultdict(list)  # of each split apart: a passage is of one split
    for split in ('train', 'test'):
      for entry in getattr(self.documents, split):
        siblings[split, entry.module].append(entry)
    if not self.documents.test:
      raise UserError(f'task {self.name!r}: held-out documents describe no function that others do not; hold out more')
    object.__setattr__(self, '_siblings', siblings)

  def problem(self, index: int, split: str) -> dict:
    rng = self.rng(split, index)
    entry = rng.choice(getattr(self.documents, split))
    others = [other for other in self._siblings[split, entry.module] if other.name != entry.name]
    passage = [entry, *rng.sample(others, min(len(others), rng.randint(1, self.max_entries - 1)))]
    rng.shuffle(passage)
    described = '\n'.join(f'{e.name}: {e.summary}' for e in passage)
    question = rng.choice(self.questions).format(name=entry.name)
    text = f'From the documentation of {entry.module}:\n{described}\n{question}'
    return {'task': self.name, 'messages': ask(text), 'key': f'{entry.name}: {entry.summary}', 'answer': entry.summary}

  def grade(self, problem: dict, reply: dict) -> float:
    return float(normalised(chat.text(reply['content'])) == normalised(problem['answer']))


def normalised(text: str) -> list[str]:
  """Words and numbers of a text, without case, spacing and punctuation."""
  return re.findall(r'\w+', text.casefold())
