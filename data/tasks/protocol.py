"""The interface of tasks: problems, demonstrations and a grader.

Each is a pure function of (seed, split, index).
"""

import dataclasses
import decimal
import hashlib
import random
from typing import Any, ClassVar

from data.chat import schema
from data.tasks import not_knowing
from data.tasks.claimed_number import claimed_number
from lm.base.errors import UserError

SPLITS = ('train', 'test')
VERDICTS = ('right', 'wrong', 'refused')


def held_out(key: str, one_in: int = 8) -> bool:
  """Returns whether `key` is in the test split: one in `one_in` is, by hash, whatever the seed."""
  return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), 'big') % one_in == 0


@dataclasses.dataclass(frozen=True)
class Task:
  """A family of problems. Subclasses define `name`, `draw` and, if needed, `reply` and `grade`.

  A problem is a JSON-able {"task": name, "messages": [...], "key": str, "answer": ..., ...}. Its
  "group", if it has one, is what scores are also given apart for, and how hard it is.
  Problems of the two splits differ by construction: a problem is in the test split if and only if
  `held_out` is true of its key. Fields of a subclass are its knobs.
  """

  seed: int
  name: ClassVar[str]
  # The argument of `tasks.make` that names the files to read; their content is the second field.
  reads: ClassVar[str] = ''

  def problem(self, index: int, split: str) -> dict:
    """Returns problem `index` (>= 0) of 'train' or 'test', always the same."""
    if split not in SPLITS:
      raise ValueError(f'split is {split!r}; allowed: {SPLITS}')
    rng = self.rng(split, index)
    for _ in range(10_000):
      problem = self.draw(rng)
      if self.in_test(problem['key']) == (split == 'test'):
        return {'task': self.name, **problem}
    raise UserError(
      field=f'problem of task {self.name!r} in its {split} split',
      message='The task needs more documents or other knobs.',
    )

  def demo(self, index: int, split: str = 'train') -> dict:
    """Returns a conversation that answers a problem well: {"messages": [...], "task": name}."""
    problem = self.problem(index, split)
    reply = {'role': 'assistant', 'content': self.reply(problem, self.rng('demo', split, index))}
    return {'messages': [*problem['messages'], reply], 'task': self.name}

  def probe_row(self, index: int) -> tuple[dict, dict]:
    """Returns training problem `index`, and what a report says of it when a model was asked it.

    That is {task, messages, key, group, answer, reply, refusal, replies, verdicts}, with a good
    answer as `reply`, and no sampled `replies` yet.
    """
    problem, rng = self.problem(index, 'train'), self.rng('demo', 'train', index)
    return problem, {
      'task': self.name,
      'messages': problem['messages'],
      'key': problem['key'],
      'group': problem.get('group', ''),
      'answer': problem['answer'],
      'reply': self.reply(problem, rng),
      'refusal': self.refusal(problem, rng),
      'replies': [],
      'verdicts': [],
    }

  def rng(self, *where: Any) -> random.Random:
    """Returns a random generator that belongs to one place of use."""
    return random.Random('/'.join(map(str, (self.name, self.seed, *where))))

  def in_test(self, key: str) -> bool:
    """Returns whether the problem with this key is in the test split."""
    return held_out(f'{self.name}/{key}')

  def draw(self, rng: random.Random) -> dict:
    """Returns a random problem of either split."""
    raise NotImplementedError

  def reply(self, problem: dict, rng: random.Random) -> str | list[dict]:
    """Returns the content of a good answer, for demonstrations."""
    return str(problem['answer'])

  def refusal(self, problem: dict, rng: random.Random) -> str:
    """Returns a reply that says that its author does not know the answer."""
    del problem
    return rng.choice(not_knowing.REFUSALS)

  def grade(self, problem: dict, reply: dict) -> float:
    """Returns 1.0 if `reply`, a result of `Format.parse`, answers the problem, else 0.0."""
    said = claimed_number(schema.text(reply['content']), question(problem))
    return float(said == decimal.Decimal(problem['answer']))

  def difficulty(self, problem: dict) -> str:
    """Returns the label of problems that are about as hard as this one, for a curriculum."""
    return problem.get('group', '')

  def verdict(self, reply: dict, grade: float) -> str:
    """Returns what a reply with this grade is: 'right', or else 'refused' or 'wrong'."""
    if grade >= 0.5:
      return 'right'
    return 'refused' if self.is_refused(schema.text(reply['content'])) else 'wrong'

  def is_refused(self, said: str) -> bool:
    """Returns whether the text of a wrong reply says that its author does not know."""
    return not_knowing.does_not_know(said)


class Worked(Task):
  """A family of problems whose answer can be worked out, in steps or by a Python program."""

  def steps(self, problem: dict) -> str:
    """Returns a reply that derives the answer in steps; it ends with the answer."""
    raise NotImplementedError

  def program(self, problem: dict) -> tuple[str, str]:
    """Returns a Python program that finds the answer, and what it prints."""
    raise NotImplementedError


def ask(text: str) -> list[dict]:
  """Returns the messages of a single question."""
  return [{'role': 'user', 'content': text}]


def question(problem: dict) -> str:
  """Returns the question of a problem: its last message."""
  return schema.text(problem['messages'][-1]['content'])
