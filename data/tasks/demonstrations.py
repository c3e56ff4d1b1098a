"""Conversations to fine-tune on, as JSONL: made by tasks, read from files in the public formats, or
both.

  python -m data.conversations --tasks=identity,arithmetic:3 --documents=FILE --examples=N --seed=S
  --out=FILE.jsonl

Each line of the result is {"messages": [...], "task": "NAME,..."}, a name for each question, or the
name of the file that the conversation is from; `data.chat.chat_formats` says what a message is.
"""

import collections
import json
import pathlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from data.chat import chat_formats
from data.records import jsonl
from data.tasks.protocol import Task
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
) -> dict[str, int]:
  """Writes conversations, whole or not at all.

  Args:
    path: the JSONL file.
    made_by: the tasks that demonstrate; a task's demonstrations 0, 1, ... are used, in an order
      mixed by `seed`.
    examples: how many demonstrations the tasks make together, shared out by weight.
    turns: most questions in one conversation, at least 1. Demonstrations that follow one another in
      the mixed order are joined, 1 to `turns` of them, each number equally likely.
    seed: of the order, and of how many questions each conversation has.
    split: of the problems demonstrated; 'test' for a file to validate on.
    weights: relative share by task name; 1 where a task is not named.
    inputs: files of conversations to copy after those.

  Returns:
    Demonstrations written, by task name; the conversations of an input file go by its stem.

  Raises:
    UserError: for weights that share out nothing, no turns, an input without a conversation, or
      where there is nothing to write.
  """
  by_name = {task.name: task for task in made_by}
  order = [
    name for name, count in _shares(by_name, examples, weights or {}).items() for _ in range(count)
  ]
  if turns < 1:
    raise UserError(f'most questions in a conversation is {turns}; it must be at least 1')
  rng = random.Random(seed)
  rng.shuffle(order)
  groups, counts = list(_groups(order, turns, rng)), collections.Counter()
  with files.atomic_path(path) as temporary, open(temporary, 'w', encoding='utf-8') as out:
    for names in progress.bar(
      groups, desc='conversations', unit='conversation', disable=not groups
    ):
      messages = []
      for name in names:
        messages += by_name[name].demo(counts[name], split)['messages']
        counts[name] += 1
      conversation = {'messages': messages, 'task': ','.join(names)}
      out.write(json.dumps(conversation, ensure_ascii=False) + '\n')
    for source in inputs:
      name, skipped, before = pathlib.Path(source).stem, jsonl.Skipped(), counts.total()
      for conversation in progress.bar(read(source, skipped), desc=name, unit='conversation'):
        out.write(json.dumps({**conversation, 'task': name}, ensure_ascii=False) + '\n')
        counts[name] += 1
      if counts.total() == before:
        raise skipped.nothing_left(f'no conversations in {source}')
      skipped.report()
    if not counts:
      raise UserError(f'no conversations to write to {path}: no tasks and no rows in the inputs')
  return dict(counts)


def read(path: files.Path, skipped: jsonl.Skipped) -> Iterator[dict]:
  """Conversations of a JSONL file, one {"messages": [...]} a row.

  Rows are {"messages": [{"role", "content"}, ...]} (ours, UltraChat-200k) or {"id", "data": [user,
  assistant, ...]} (UltraChat, Ding et al. 2023); other fields are left out, and so is a last
  question without an answer. A row that is neither is added to `skipped`, with its line and the
  field at fault.
  """
  return jsonl.read(path, _conversation, skipped)


def _conversation(row: Any) -> dict:
  if not isinstance(row, dict) or len({'messages', 'data'} & row.keys()) != 1:
    raise UserError(f'a row has "messages" or "data"; found {json.dumps(row):.80}')
  messages = from_ultrachat(row['data']) if 'data' in row else row['messages']
  if isinstance(messages, list) and len(messages) > 1 and isinstance(messages[-1], dict):
    messages = messages[:-1] if messages[-1].get('role') == 'user' else messages
  chat_formats.check({'messages': messages})
  return {
    'messages': [{'role': message['role'], 'content': message['content']} for message in messages]
  }


def from_ultrachat(turns: list[str]) -> list[dict]:
  """Messages of the "data" field of UltraChat: what the user and the assistant said, by turns."""
  if not isinstance(turns, list):
    raise UserError(f'data must be a list of what was said; found {turns!r:.80}')
  for i, turn in enumerate(turns):
    if not isinstance(turn, str):
      raise UserError(f'data[{i}] must be text; found {turn!r:.80}')
  return [{'role': ('user', 'assistant')[i % 2], 'content': turn} for i, turn in enumerate(turns)]


def _groups(items: Sequence[str], most: int, rng: random.Random) -> Iterator[Sequence[str]]:
  """Items in order in groups of 1 to `most`, equally likely; the last has what is left."""
  start = 0
  while start < len(items):
    stop = start + rng.randint(1, most)
    yield items[start:stop]
    start = stop


def _shares(names: Iterable[str], examples: int, weights: Mapping[str, float]) -> dict[str, int]:
  """Splits `examples` by weight; the counts are exact to one and sum to `examples` (largest
  remainders).
  """
  names = list(names)
  for name, weight in weights.items():
    if name not in names:
      raise errors.unknown('task to weigh', name, names)
    if not 0 <= weight < float('inf'):
      raise UserError(
        f'the weight of task {name!r} is {weight}; it must be a finite number, 0 or more'
      )
  total = sum(weights.get(name, 1) for name in names)
  if not names or not examples:
    return {}
  if examples < 0 or not total:
    raise UserError(f'cannot share out {examples} examples over weights that sum to {total}')
  exact = {name: examples * weights.get(name, 1) / total for name in names}
  counts = {name: int(share) for name, share in exact.items()}
  for name in sorted(names, key=lambda name: counts[name] - exact[name])[
    : examples - sum(counts.values())
  ]:
    counts[name] += 1
  return counts


def weighted(names: str) -> dict[str, float]:
  """Weights by task name of 'NAME,NAME:WEIGHT,...'; 1 where none is given."""
  weights = {}
  for item in filter(None, names.split(',')):
    name, _, weight = item.partition(':')
    try:
      weights[name] = float(weight or 1)
    except ValueError as error:
      raise UserError(f'tasks: {item!r} is not NAME or NAME:WEIGHT') from error
  return weights
