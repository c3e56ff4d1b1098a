"""Questions that a model was probed with: it keeps what it knows, and refuses what it does not.

This is the recipe of Llama 3 (2024, arXiv 2407.21783, section 4.3.6): several answers to a question
are sampled and graded; where the model is wrong with confidence, a refusal becomes its answer.
"""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any, ClassVar

from data.chat import schema
from data.tasks import not_knowing
from data.tasks.claimed_answer import claims_answer
from data.tasks.claimed_name import claims_name, is_name
from data.tasks.protocol import VERDICTS, Task, question
from lm.base import files
from lm.base.errors import UserError

KNOWN = 0.6  # smallest share of right answers to a question whose answer the model knows
UNKNOWN = 0.2  # largest share to one whose answer it does not know; those between are left out
# Of the questions that are asked again. With as many of either kind, a model also refuses much of
# what it knows.
KNOWN_SHARE = 0.85


def read(path: files.Path) -> tuple[dict, ...]:
  """Returns the questions of a report with `probe`, each with `known`; uncertain ones are left out.

  Args:
    path: a JSON file with {"probe": [row, ...]}, as train.py and eval.py write it. A row
      has the `messages` of a question, its `key` and `answer`, `reply`, which is a good answer,
      `verdicts`, those of the sampled answers, and maybe `refusal`, what is said instead.

  Raises:
    FileNotFoundError: there is no such file.
    UserError: the file is not such a report, or all of its questions are left out.
  """
  report = files.read_json(path)
  rows = report.get('probe') if isinstance(report, dict) else None
  if not isinstance(rows, list) or not rows:
    raise UserError(field=f'probe of {path}', value=rows, allowed='a list of probed questions')
  questions = []
  for number, row in enumerate(rows):
    share = _share_right(row, f'{path}: probe[{number}]')
    if share >= KNOWN or share <= UNKNOWN:
      questions.append({**row, 'known': share >= KNOWN})
  if not questions:
    raise UserError(
      field=f'probe of {path}',
      value=f'{len(rows)} questions, of which each was answered rightly only sometimes',
      allowed='questions that the model knows or does not know',
    )
  return tuple(questions)


def _share_right(row: Any, where: str) -> float:
  fields = ('messages', 'key', 'answer', 'reply', 'verdicts')
  if not isinstance(row, dict) or not all(name in row for name in fields):
    raise UserError(field=where, value=row, allowed=f'an object with {", ".join(fields)}')
  schema.checked(row, last='user')
  verdicts = row['verdicts']
  if not isinstance(verdicts, list) or not verdicts or not set(verdicts) <= set(VERDICTS):
    raise UserError(field=f'{where}.verdicts', value=verdicts, allowed=VERDICTS)
  return verdicts.count('right') / len(verdicts)


@dataclasses.dataclass(frozen=True, eq=False)
class Probed(Task):
  """Questions that a model was probed with: it knew KNOWN_SHARE of them, and refuses the rest.

  If it knew all or none of them, all are of that kind.
  """

  questions: Sequence[dict]
  name: ClassVar[str] = 'probed'
  reads: ClassVar[str] = 'probe'

  def draw(self, rng: random.Random) -> dict:
    known = rng.random() < KNOWN_SHARE
    some = [each for each in self.questions if each['known'] == known]
    question = rng.choice(some or self.questions)
    fields = ('messages', 'key', 'answer', 'reply', 'refusal', 'known')
    group = 'known' if question['known'] else 'unknown'
    return {name: question[name] for name in fields if name in question} | {'group': group}

  def reply(self, problem: dict, rng: random.Random) -> str | list[dict]:
    return problem['reply'] if problem['known'] else self.refusal(problem, rng)

  def refusal(self, problem: dict, rng: random.Random) -> str:
    return problem['refusal'] if 'refusal' in problem else super().refusal(problem, rng)

  def grade(self, problem: dict, reply: dict) -> float:
    """Returns 1.0 if what the model knew is answered, or what it did not know is refused."""
    said, answer = schema.text(reply['content']), str(problem['answer'])
    refused = not_knowing.refuses(said)
    if not problem['known']:
      return float(refused)
    if is_name(answer):
      others = {str(question['answer']) for question in self.questions}
      return float(not refused and claims_name(said, answer, others))
    return float(not refused and claims_answer(said, answer, question(problem)))
