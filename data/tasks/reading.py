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
  """Which function of a passage does what the question says. Test passages are of held-out documents."""

  documents: Documents
  max_entries: int = 3  # functions described in a passage
  name: ClassVar[str] = 'docs'
  reads_documents: ClassVar[bool] = True
  questions: ClassVar[tuple[str, ...]] = (
    'Which function does this: {summary}', 'Which of these is it: {summary}', 'Find the function: {summary}',
    'What is the name of this function: {summary}',
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
    others = {other.name: other for other in self._siblings[split, entry.module] if other.summary != entry.summary}
    others.pop(entry.name, None)
    passage = [entry, *rng.sample(list(others.values()), min(len(others), rng.randint(1, self.max_entries - 1)))]
    rng.shuffle(passage)
    described = '\n'.join(f'{e.name}: {e.summary}' for e in passage)
    question = rng.choice(self.questions).format(summary=entry.summary)
    text = f'From the documentation of {entry.module}:\n{described}\n{question}'
    return {'task': self.name, 'messages': ask(text), 'key': f'{entry.name}: {entry.summary}', 'answer': entry.name,
            'others': sorted(e.name for e in passage if e is not entry)}

  def grade(self, problem: dict, reply: dict) -> float:
    """1.0 if the reply names the function, and no other of the passage."""
    named = set(re.findall(r'\w+', chat.text(reply['content'])))
    return float(problem['answer'] in named and not named & set(problem['others']))
