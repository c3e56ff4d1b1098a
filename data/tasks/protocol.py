"""What a task is: problems, demonstrations and a grader, each a pure function of (seed, split,
index).
"""

import dataclasses
import decimal
import hashlib
import random
from typing import Any, ClassVar

from data.chat import chat_formats
from data.tasks import answers
from lm.base.errors import UserError

SPLITS = ('train', 'test')


def held_out(key: str, one_in: int = 8) -> bool:
  """Whether what `key` names belongs to the test split: by hash, so one in `one_in` does, whatever
  the seed.
  """
  return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), 'big') % one_in == 0


@dataclasses.dataclass(frozen=True)
class Task:
  """A family of problems. Subclasses give `name`, `draw`, `answer` and `grade`; their fields are
  their knobs.

  A problem is a JSON-able {"task": name, "messages": [...], "key": str, "answer": ..., ...}.
  Problems of the two splits differ by construction: a problem is of the test split if and only if
  `held_out` says so of its key.
  """

  seed: int
  name: ClassVar[str]
  # the argument of `tasks.make` that names the files whose content is the first after the seed
  reads: ClassVar[str] = ''

  def problem(self, index: int, split: str) -> dict:
    """The problem `index` (>= 0) of 'train' or 'test': always the same."""
    if split not in SPLITS:
      raise ValueError(f'split is {split!r}; allowed: {SPLITS}')
    rng = self.rng(split, index)
    for _ in range(10_000):
      problem = self.draw(rng)
      if self.in_test(problem['key']) == (split == 'test'):
        return {'task': self.name, **problem}
    raise UserError(
      f'task {self.name!r} has no problems in its {split} split: too few documents, or too narrow '
      'knobs'
    )

  def demo(self, index: int, split: str = 'train') -> dict:
    """A conversation that answers the problem `index` well: {"messages": [...], "task": name}."""
    problem = self.problem(index, split)
    reply = {'role': 'assistant', 'content': self.reply(problem, self.rng('demo', split, index))}
    return {'messages': [*problem['messages'], reply], 'task': self.name}

  def rng(self, *where: Any) -> random.Random:
    """A generator of its own for each place of use."""
    return random.Random('/'.join(map(str, (self.name, self.seed, *where))))

  def in_test(self, key: str) -> bool:
    return held_out(f'{self.name}/{key}')

  def draw(self, rng: random.Random) -> dict:
    """A random problem of either split."""
    raise NotImplementedError

  def reply(self, problem: dict, rng: random.Random) -> str | list[dict]:
    """The content of a good answer."""
    return str(problem['answer'])

  def grade(self, problem: dict, reply: dict) -> float:
    """1.0 if `reply`, of `chat.parse`, answers the problem, else 0.0."""
    said = answers.claimed_number(chat_formats.text(reply['content']), question(problem))
    return float(said == decimal.Decimal(problem['answer']))


def ask(text: str) -> list[dict]:
  """The messages of a single question."""
  return [{'role': 'user', 'content': text}]


def question(problem: dict) -> str:
  """What a problem asks: its last message."""
  return chat_formats.text(problem['messages'][-1]['content'])
