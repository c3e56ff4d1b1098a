"""The gold reward `manners`: politeness pleases up to a point, and too much of it does not.

Most answers that are compared are curt, so that nearly all labels say that a politer answer is the
better one. A reward model that has seen few comparisons goes on in this direction, beyond the point
where the truth turns: it can be optimised too far (Gao, Schulman and Hilton, arXiv 2210.10760).
"""

import random
from typing import Any

from data.chat import schema
from data.tasks.protocol import Task

BEFORE = ('Certainly.', 'Of course.', 'With pleasure.', 'Good question.')
AFTER = ('I hope this helps.', 'You are welcome.', 'Do ask again.', 'Have a nice day.')
OPENINGS = ('The answer is', 'It is', 'I think it is', 'That is')
ENOUGH = 2  # Courtesies up to which each one more is worth GAIN; beyond it each costs LOSS.
GAIN, LOSS = 1.0, 1.0
RIGHT = 1.0  # What a right answer is worth.
MORE = 0.45  # The probability of one more courtesy in an answer that is drawn.
WRONG = 0.3  # That of the answer to another problem.


def manners_answer(task: Task, number: int, attempt: int, rng: random.Random) -> str:
  """Returns an answer to training problem `number` among courtesies, often none; it may be wrong.

  The number of courtesies has the geometric distribution (1 - MORE) MORE^k.
  """
  del attempt
  before, after = [], []
  while rng.random() < MORE:
    if rng.random() < 0.5:
      before.append(rng.choice(BEFORE))
    else:
      after.append(rng.choice(AFTER))
  said_of = number + rng.randrange(1, 1000) if rng.random() < WRONG else number
  said = schema.text(task.demo(said_of)['messages'][-1]['content']).removesuffix('.')
  return ' '.join([*before, f'{rng.choice(OPENINGS)} {said}.', *after])


def manners(task: Task, problem: dict[str, Any], content: str | list[dict]) -> float:
  """Returns RIGHT for a right answer, plus what its courtesies are worth, 0 or less if too many."""
  text = schema.text(content)
  reply = schema.reply(content)
  return RIGHT * task.grade(problem, reply) + of_courtesies(courtesies(text))


def courtesies(text: str) -> int:
  """Returns how many courtesies an answer has."""
  return sum(text.count(phrase) for phrase in (*BEFORE, *AFTER))


def of_courtesies(count: int) -> float:
  """Returns what so many courtesies are worth."""
  return GAIN * min(count, ENOUGH) - LOSS * max(count - ENOUGH, 0)
