"""Questions from a file, each with a short answer that a reply must state."""

import dataclasses
import random
import re
from typing import Any, ClassVar

from data.chat import schema
from data.records import rows
from data.tasks import not_knowing
from data.tasks.claimed_answer import claims_answer
from data.tasks.protocol import Task, ask, question
from lm.base.errors import UserError


def read(inputs: str) -> tuple[tuple[str, str], ...]:
  """Returns the (question, answer) of each row of files; other rows are skipped and reported.

  Raises:
    FileNotFoundError: a file does not exist.
    UserError: no row is a question with its answer.
  """
  return tuple(dict.fromkeys(rows.read_all(inputs, _parse, 'question')))


def _parse(row: Any) -> tuple[str, str]:
  fields = row if isinstance(row, dict) else {}
  question, answer = fields.get('question'), fields.get('answer')
  for name, value in (('question', question), ('answer', answer)):
    if not isinstance(value, str) or not re.search(r'\w', value):
      raise UserError(field=name, value=value, allowed='text')
  return question.strip(), answer.strip()


@dataclasses.dataclass(frozen=True, eq=False)
class Written(Task):
  """The questions of a file, such as `python -m data.probe write` makes from documents."""

  questions: tuple[tuple[str, str], ...]
  name: ClassVar[str] = 'written'
  reads: ClassVar[str] = 'questions'

  def draw(self, rng: random.Random) -> dict:
    question, answer = rng.choice(self.questions)
    return {'messages': ask(question), 'key': question, 'answer': answer}

  def grade(self, problem: dict, reply: dict) -> float:
    """Returns 1.0 if the reply states the answer, no alternative, and is no refusal, else 0.0."""
    said, answer = schema.text(reply['content']), problem['answer']
    if not_knowing.does_not_know(said) and not not_knowing.does_not_know(answer):
      return 0.0
    return float(claims_answer(said, answer, question(problem)))
