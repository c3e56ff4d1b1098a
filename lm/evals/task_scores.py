"""Accuracy on the test problems of tasks, as single questions and as turns of conversations."""

import math
import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from lm.base.errors import UserError
from lm.evals import scoring
from lm.evals.context import Context
from lm.infer import replies
from lm.infer.requests import Completion
from lm.parallel import keys
from lm.train.evaluators import Result

EXAMPLES = 4  # The number of replies of each task that the report shows.


class TaskScores:
  """Scores greedy replies to the test problems of `config.eval.tasks`."""

  name = 'tasks'
  at_start = False

  def __init__(self, context: Context):
    config = context.config
    self._context, self.every = context, config.eval.tasks_every
    self._generate = replies.make_generate(
      context.model_config,
      context.chat_format,
      context.call_tool,
      temperature=0.0,
      max_new_tokens=config.eval.max_new_tokens,
      max_len=config.seq_len,
    )

  @classmethod
  def open(cls, context: Context) -> 'TaskScores | None':
    """Returns the evaluator, or None if the config names no tasks.

    Raises:
      UserError: a field is wrong, or a task has fewer test problems than `config.eval.examples`.
    """
    settings = context.config.eval
    if settings.turns < 1:
      raise UserError(field='config.eval.turns', value=settings.turns, allowed='at least 1')
    if not all(0 < limit < settings.max_new_tokens for limit in settings.limits):
      raise UserError(
        field='config.eval.limits',
        value=settings.limits,
        allowed=f'numbers from 1 to {settings.max_new_tokens - 1}, so that a reply and its stop '
        'token are within config.eval.max_new_tokens',
      )
    scoring.require_problems(context.tasks, settings.examples)
    return cls(context) if context.tasks else None

  def run(self, params: Any) -> Result:
    """Returns the scores of all tasks, and of turns if the config asks for several."""
    scores, samples, records = score_tasks(self._context, self._generate, params)
    sums = {
      f'eval/{name}/accuracy': (score['accuracy'] * score['n'], score['n'])
      for name, score in scores.items()
    }
    return Result(sums, report={'scores': scores, 'samples': samples, 'records': records})


def score_tasks(
  context: Context, generate: replies.Generate, params: Any
) -> tuple[dict[str, dict], list[dict], list[dict]]:
  """Returns the accuracy on the test problems of each task, some replies, and all of them.

  A prompt of `config.seq_len` tokens or more leaves no room for a reply: it counts as wrong, and
  `too_long` says how many did.

  Returns:
    scores: {task: {accuracy, low, high, n, too_long, refused, groups, within}}, where `refused` is
      the share of replies that say that they do not know, `groups` has the numbers of right, wrong
      and refused replies of each group of problems, and `within` is `within_limits`; `format`, the
      share of all problems whose reply keeps the chat format; and the scores of `score_turns`.
    samples: a few {task, prompt, reply, grade}.
    records: what the scores are made from, {task, turn, key, group, question, reply, verdict} of
      each reply; `turn` is 0 for single questions.
  """
  config, chat_format = context.config, context.chat_format
  scores, samples, records, format_grades, asked = {}, [], [], [], []
  for number, task in enumerate(context.tasks):
    problems = [task.problem(i, 'test') for i in range(config.eval.examples)]
    prompts = [chat_format.render_prompt(p['messages']) for p in problems]
    shown, verdicts, lengths = [], [], []

    def grade(problem, completion, task=task, shown=shown, verdicts=verdicts, lengths=lengths):
      lengths.append(answer_length(completion))
      if completion is None:
        format_grades.append(0.0)
        verdicts.append('wrong')
        records.append(_record(task, 0, problem, '', 'wrong'))
        return 0.0
      reply = chat_format.parse(completion.tokens)
      format_grades.append(context.grade_format(reply))
      value = task.grade(problem, reply)
      verdicts.append(task.verdict(reply, value))
      said = chat_format.tokenizer.decode(completion.tokens)
      records.append(_record(task, 0, problem, said, verdicts[-1]))
      if len(shown) < EXAMPLES:
        shown.append(
          {
            'task': task.name,
            'prompt': problem['messages'][-1]['content'],
            'reply': said,
            'grade': value,
          }
        )
      return value

    draw = _make_draw(generate, params, config.seed, number)
    grades = scoring.score(problems, prompts, draw, grade, config.eval.batch_size, config.seq_len)
    names = [(task.name, p['key']) for p in problems]
    too_long = sum(len(p) >= config.seq_len for p in prompts)
    scores[task.name] = scoring.summary(grades, names) | {
      'too_long': too_long,
      'refused': verdicts.count('refused') / len(verdicts),
      'groups': _by_group(problems, verdicts),
      'within': within_limits(config.eval.limits, problems, grades, lengths),
    }
    asked += names
    samples += shown
  scores['format'] = scoring.summary(format_grades, asked)
  if config.eval.turns > 1:
    turns, more, asked_later = score_turns(context, generate, params)
    scores, samples, records = scores | turns, samples + more, records + asked_later
  return scores, samples, records


def score_turns(
  context: Context, generate: replies.Generate, params: Any
) -> tuple[dict[str, dict], list[dict], list[dict]]:
  """Returns the accuracy on the first, second, ... question of conversations.

  Every turn asks the same test problems, equally many of each task, in another order, after the
  model's own replies: the turns differ only in the conversation before them. The tokens are those
  of `lm.chat`.

  Returns:
    scores, samples, records: as of `score_tasks`; the scores are {'turn_1': {..., 'tasks': {task:
      summary}}, ...}, and the samples a few last questions, whose prompt is the whole conversation.
  """
  config, chat_format, tasks = context.config, context.chat_format, context.tasks
  decode = chat_format.tokenizer.decode
  each = math.ceil(config.eval.examples / len(tasks))
  problems = [(task, task.problem(i, 'test')) for task in tasks for i in range(each)]
  random.Random(config.seed).shuffle(problems)
  scores, samples, records = {}, [], []
  conversations: list[list[int]] = [[] for _ in problems]  # The tokens of each.
  for turn in range(config.eval.turns):
    asked = [problems[(i + turn) % len(problems)] for i in range(len(problems))]
    for tokens, (_, problem) in zip(conversations, asked, strict=True):
      if tokens:
        question, stopped = problem['messages'][-1]['content'], tokens[-1] in chat_format.stops
        tokens += chat_format.render_next(question, stopped)
      else:
        tokens += chat_format.render_prompt(problem['messages'])
    answers: list[list[int]] = []

    def grade(asked, completion, answers=answers, turn=turn):
      task, problem = asked
      answers.append(completion.tokens if completion else [])
      reply = chat_format.parse(answers[-1])
      value = task.grade(problem, reply)
      said, verdict = decode(answers[-1]), task.verdict(reply, value)
      records.append(_record(task, turn + 1, problem, said, verdict))
      return value

    name = f'turn_{turn + 1}'
    draw = _make_draw(generate, params, config.seed, len(tasks) + turn)
    grades = scoring.score(
      asked, conversations, draw, grade, config.eval.batch_size, config.seq_len
    )
    too_long = sum(len(tokens) >= config.seq_len for tokens in conversations)
    names = [(task.name, problem['key']) for task, problem in asked]
    by_task = {
      task.name: [i for i, (other, _) in enumerate(asked) if other is task] for task in tasks
    }
    scores[name] = scoring.summary(grades, names) | {
      'too_long': too_long,
      'tasks': _summaries(by_task, grades, names),
    }
    samples = [
      {'task': name, 'prompt': decode(tokens), 'reply': decode(answer), 'grade': value}
      for tokens, answer, value in zip(conversations[:EXAMPLES], answers, grades, strict=False)
    ]
    for tokens, answer in zip(conversations, answers, strict=True):
      tokens += answer
  return scores, samples, records


def _record(task: Any, turn: int, problem: dict, reply: str, verdict: str) -> dict[str, Any]:
  """Returns what is kept of one reply."""
  return {
    'task': task.name,
    'turn': turn,
    'key': problem['key'],
    'group': problem.get('group', ''),
    'question': problem['messages'][-1]['content'],
    'reply': reply,
    'verdict': verdict,
  }


def answer_length(completion: Completion | None) -> float:
  """Returns the number of tokens that a model drew for a reply, without the one that stops it.

  Results of tools are not drawn. A reply that does not end has no length that is enough: infinity.
  """
  if completion is None or not completion.finished:
    return math.inf
  return sum(completion.sampled) - 1


def within_limits(
  limits: Sequence[int],
  problems: Sequence[dict],
  grades: Sequence[float],
  lengths: Sequence[float],
) -> dict[str, dict[str, dict[str, float]]]:
  """Returns the scores that a limit on the tokens of a reply would give.

  A reply that the limit would cut off counts as wrong, whatever it had said. A greedy reply is the
  same up to there under any limit, so that one evaluation serves for all.

  Args:
    limits: numbers of tokens.
    problems, grades, lengths: each problem, and the grade and the `answer_length` of its reply.

  Returns:
    {limit: {group: summary}}, with the group 'all' and those of the problems.
  """
  places = {'all': range(len(problems))} | _places(problems)
  scores: dict[str, dict[str, dict[str, float]]] = {}
  for limit in limits:
    kept = [grade * (length <= limit) for grade, length in zip(grades, lengths, strict=True)]
    scores[str(limit)] = _summaries(places, kept, [problem['key'] for problem in problems])
  return scores


def _summaries(
  places: Mapping[str, Sequence[int]], grades: Sequence[float], keys: Sequence[Hashable]
) -> dict[str, dict[str, float]]:
  """Returns the summary of the grades at the places of each name."""
  return {
    name: scoring.summary([grades[i] for i in mine], [keys[i] for i in mine])
    for name, mine in places.items()
  }


def _by_group(problems: Sequence[dict], verdicts: Sequence[str]) -> dict[str, dict[str, int]]:
  """Returns {group: {verdict: number of problems}} of the problems that have a group."""
  return {
    group: {name: sum(verdicts[i] == name for i in mine) for name in ('right', 'wrong', 'refused')}
    for group, mine in _places(problems).items()
  }


def _places(problems: Sequence[dict]) -> dict[str, Sequence[int]]:
  """Returns {group: places of its problems} of the problems that have a group."""
  places: dict[str, list[int]] = {}
  for i, problem in enumerate(problems):
    if 'group' in problem:
      places.setdefault(problem['group'], []).append(i)
  return places


def _make_draw(
  generate: replies.Generate, params: Any, seed: int, number: int
) -> Callable[[Sequence[list[int]], int], list]:
  """Returns `draw(rows, batch)`, whose key follows from evaluation `number` and the batch."""

  def draw(rows, batch):
    return generate(params, rows, keys.derive(seed, 'evaluation', number, batch))

  return draw
