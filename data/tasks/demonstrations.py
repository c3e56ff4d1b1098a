"""Writes conversations for fine-tuning as JSONL, from tasks and from files in public formats.

Each line of the result is {"messages": [...], "task": "NAME,..."}: the task of each question, or
the name of the file that the conversation is from.
"""

import collections
import functools
import pathlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from data.records import jsonl, rows
from data.tasks import conversation_rows
from data.tasks.protocol import Task
from lm.base import config as config_lib
from lm.base import errors, files, progress
from lm.base.errors import UserError


def write(
  path: files.Path,
  made_by: Iterable[Task],
  *,
  examples: int,
  turns: int,
  seed: int,
  split: str = 'train',
  weights: Mapping[str, float] | None = None,
  inputs: Iterable[files.Path] = (),
  calls: str = conversation_rows.CALLS[0],
) -> dict[str, int]:
  """Writes conversations to a file, all or none.

  Args:
    path: the JSONL file.
    made_by: the tasks that demonstrate. Demonstrations 0, 1, ... of a task are used, in an order
      that `seed` determines.
    examples: number of demonstrations by all tasks together, divided by weight.
    turns: largest number of questions in one conversation, at least 1. Successive demonstrations
      are joined, 1 to `turns` of them, each number equally likely.
    seed: seed of the order, and of how many questions each conversation has.
    split: split of the problems to demonstrate; 'test' for a file to validate on.
    weights: relative weight by task name; 1 for tasks without an entry.
    inputs: files of conversations to copy after the demonstrations.
    calls: as of `read`.

  Returns:
    The number of demonstrations by task name, and of conversations by stem of the input file.

  Raises:
    UserError: the weights or turns are not allowed, an input has no conversation, or there is
      nothing to write.
  """
  by_name = {task.name: task for task in made_by}
  order = []
  for name, count in _shares(by_name, examples, weights or {}).items():
    order += [name] * count
  if turns < 1:
    raise UserError(field='turns', value=turns, allowed='at least 1')
  rng = random.Random(seed)
  rng.shuffle(order)
  groups, counts = list(_groups(order, turns, rng)), collections.Counter()
  bar = progress.bar(groups, desc='conversations', unit='conversation', disable=not groups)
  with files.atomic_path(path) as temporary, open(temporary, 'w', encoding='utf-8') as out:
    for names in bar:
      messages = []
      for name in names:
        messages += by_name[name].demo(counts[name], split)['messages']
        counts[name] += 1
      conversation = {'messages': messages, 'task': ','.join(names)}
      out.write(jsonl.line(conversation))
    for source in inputs:
      name, skipped, before = pathlib.Path(source).stem, jsonl.Skipped(), counts.total()
      for conversation in progress.bar(
        read(source, skipped, calls), desc=name, unit='conversation'
      ):
        out.write(jsonl.line({**conversation, 'task': name}))
        counts[name] += 1
      if counts.total() == before:
        raise skipped.nothing_left(f'conversation in {source}')
      skipped.report()
    if not counts:
      raise UserError(
        field=f'conversation to write to {path}', message='There are no tasks and no inputs.'
      )
  return dict(counts)


def read(
  path: files.Path, skipped: jsonl.Skipped, calls: str = conversation_rows.CALLS[0]
) -> Iterator[dict]:
  """Yields the conversations of a file of rows, one {"messages": [...]} per row.

  The rows may have any of `conversation_rows.FORMS`. A row that cannot be read is added to
  `skipped`, with its line and the field that is wrong.

  Args:
    calls: what the notes of word problems become, one of `conversation_rows.CALLS`.
  """
  read_row = functools.partial(conversation_rows.conversation, calls=calls)
  return rows.read(path, read_row, skipped)


def _groups(items: Sequence[str], most: int, rng: random.Random) -> Iterator[Sequence[str]]:
  """Yields the items in order in groups of 1 to `most`, equally likely; the last has the rest."""
  start = 0
  while start < len(items):
    stop = start + rng.randint(1, most)
    yield items[start:stop]
    start = stop


def _shares(names: Iterable[str], examples: int, weights: Mapping[str, float]) -> dict[str, int]:
  """Returns the numbers of examples by weight, rounded by largest remainders.

  They sum to `examples`.
  """
  names = list(names)
  for name, weight in weights.items():
    if name not in names:
      raise errors.unknown('task with a weight', name, names)
    if not 0 <= weight < float('inf'):
      raise UserError(
        field=f'weight of task {name!r}', value=weight, allowed='a finite number, 0 or more'
      )
  total = sum(weights.get(name, 1) for name in names)
  if not names or not examples:
    return {}
  if examples < 0:
    raise UserError(field='examples', value=examples, allowed='0 or more')
  if not total:
    raise UserError(field='sum of the weights of tasks', value=total, allowed='above 0')
  exact = {name: examples * weights.get(name, 1) / total for name in names}
  counts = {name: int(share) for name, share in exact.items()}
  by_remainder = sorted(names, key=lambda name: counts[name] - exact[name])
  for name in by_remainder[: examples - sum(counts.values())]:
    counts[name] += 1
  return counts


def weighted(names: str) -> dict[str, float]:
  """Returns the weights by task name of 'NAME,NAME:WEIGHT,...'; 1 where none is given."""
  weights = {}
  for item in config_lib.names(names):
    name, _, weight = item.partition(':')
    try:
      weights[name] = float(weight or 1)
    except ValueError as error:
      raise UserError(field='tasks', value=item, allowed='NAME or NAME:WEIGHT') from error
  return weights
