"""Gold rewards: programs that rank answers to the problems of tasks, so that nobody has to.

What a reward model learns of such comparisons can be measured exactly. If a fraction `noise` of the
labels is wrong, no model orders more than 1 - noise of held-out comparisons as they are labelled.
"""

import dataclasses
import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from data.chat import schema
from data.preferences.comparison_rows import Comparison, Content, ranked
from data.preferences.manners import OPENINGS, manners, manners_answer
from data.records import jsonl
from data.tasks.protocol import Task
from lm.base.errors import UserError, unknown

T = TypeVar('T')
TRIES = 100  # of candidates, until enough of them differ
COURTESIES = ('Certainly. ', 'Of course. ', 'With pleasure. ')


@dataclasses.dataclass(frozen=True)
class Gold:
  """A reward that a program gives, with the answers that are compared by it.

  Attributes:
    answer: (task, number, attempt, rng) -> an answer to training problem `number` of the task.
    reward: (task, problem, content) -> the reward of an answer.
  """

  answer: Callable[[Task, int, int, random.Random], Content]
  reward: Callable[[Task, dict, Content], float]


def answer_of_another(task: Task, number: int, attempt: int, rng: random.Random) -> Content:
  """Returns the right answer to the problem, and in later attempts those to the next ones."""
  del rng
  return task.demo(number + attempt)['messages'][-1]['content']


def grade(task: Task, problem: dict, content: Content) -> float:
  """Returns the grade that the task's own grader gives."""
  reply = schema.reply(content)
  return task.grade(problem, reply)


def styled_answer(task: Task, number: int, attempt: int, rng: random.Random) -> Content:
  """Returns the right answer in a sentence of random manners (see `style`)."""
  del attempt
  said = schema.text(task.demo(number)['messages'][-1]['content'])
  words = f'{rng.choice(OPENINGS)} {said}'.split()
  for _ in range(rng.randrange(3)):
    place = rng.randrange(len(words))
    words.insert(place, words[place])
  text = ' '.join(words).removesuffix('.') + rng.choice(('', '.'))
  text = rng.choice(('', rng.choice(COURTESIES))) + text
  return text.upper() if rng.random() < 0.3 else text


def style(task: Task, problem: dict, content: Content) -> float:
  """Returns how well an answer is written, whatever it says.

  A courtesy at the beginning and a full stop at the end count 1 each. Capital letters inside words
  cost 2 times their share of all letters, and each word that is said twice in a row costs 0.5.
  """
  del task, problem
  text = schema.text(content)
  words, letters = text.lower().split(), [c for c in text if c.isalpha()]
  courteous = text.lower().startswith(tuple(c.lower() for c in COURTESIES))
  capitals = sum(c.isupper() for word in text.split() for c in word[1:]) / max(1, len(letters))
  repeats = sum(a == b for a, b in itertools.pairwise(words))
  return courteous + text.endswith('.') - 2 * capitals - 0.5 * repeats


GOLD = {
  'grade': Gold(answer_of_another, grade),
  'style': Gold(styled_answer, style),
  'manners': Gold(manners_answer, manners),
}


def named(name: str) -> Gold:
  """Returns the gold reward of this name. Raises UserError if there is none."""
  if name not in GOLD:
    raise unknown('gold reward', name, GOLD)
  return GOLD[name]


@dataclasses.dataclass(frozen=True)
class Ranker:
  """Compares answers to the problems of tasks by a gold reward, with errors.

  Attributes:
    gold: a name in GOLD.
    answers: number of answers to a problem; there are fewer where not so many differ.
    noise: the probability that the label of a comparison is wrong.
  """

  gold: str
  answers: int = 2
  noise: float = 0.0

  def __post_init__(self):
    """Raises UserError for a field that is not allowed."""
    named(self.gold)
    if self.answers < 2:
      raise UserError(field='answers to a problem', value=self.answers, allowed='at least 2')
    if not 0 <= self.noise <= 0.5:
      raise UserError(field='noise of labels', value=self.noise, allowed='from 0 to 0.5')

  def compare(self, task: Task, number: int) -> list[Comparison]:
    """Returns the comparisons of all pairs of answers to a training problem, always the same.

    Raises UserError if all answers are the same.
    """
    gold, rng = GOLD[self.gold], task.rng('comparisons', self.gold, number)
    problem, answers = task.problem(number, 'train'), []
    for attempt in range(TRIES):
      answer = gold.answer(task, number, attempt, rng)
      if answer not in answers:
        answers.append(answer)
      if len(answers) == self.answers:
        break
    if len(answers) < 2:
      raise UserError(
        field='answers to compare', value=f'the same {TRIES} times', allowed='two that differ'
      )
    rewards = [gold.reward(task, problem, answer) for answer in answers]
    found = ranked(problem['messages'], answers, rewards)
    return [self._labelled(comparison, rng) for comparison in found]

  def _labelled(self, comparison: Comparison, rng: random.Random) -> Comparison:
    is_wrong = rng.random() < self.noise
    if not is_wrong or not comparison.is_decided:
      return comparison
    return comparison.won('b' if comparison.winner == 'a' else 'a')


def answers(name: str, made_by: Sequence[Task], count: int) -> Iterator[dict]:
  """Yields `count` conversations: training problems, with answers as gold reward `name` has them.

  The tasks take turns. A model that is fine-tuned on them answers as variously as the answers that
  are compared.
  """
  gold = named(name)
  for i in range(count):
    task, number = made_by[i % len(made_by)], i // len(made_by)
    messages = task.problem(number, 'train')['messages']
    content = gold.answer(task, number, 0, task.rng('answers', name, number))
    answer = {'role': 'assistant', 'content': content}
    yield {'messages': [*messages, answer], 'task': task.name}


def compare_all(
  ranker: Ranker,
  made_by: Sequence[Task],
  count: int,
  parse: Callable[[list[Comparison]], T],
  skipped: jsonl.Skipped,
) -> Iterator[T]:
  """Yields `parse` of the comparisons of each of `count` problems; the tasks take turns.

  Problems for which `parse` raises UserError, and those without two answers, go to `skipped`.
  """

  def items():
    for i in range(count):
      task, number = made_by[i % len(made_by)], i // len(made_by)
      place = functools.partial('task {}, training problem {}'.format, task.name, number)
      yield place, (task, number)

  return jsonl.parse_each(items(), lambda item: parse(ranker.compare(*item)), skipped)
