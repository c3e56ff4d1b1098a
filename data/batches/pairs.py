"""Batches of pairs of answers to one prompt: the preferred one and the other.

The input has {"prompt": ..., "chosen": ..., "rejected": ...} on each line. The prompt is a string,
or the messages of a conversation before the answer; the answers are strings.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data import tasks
from data.chat import chat_formats
from data.records import jsonl, rows, split
from data.shards.loader import host_examples, permute, read_ahead
from data.tasks.protocol import Task
from lm.base import files
from lm.base.errors import UserError

SIDES = ('chosen', 'rejected')


@dataclasses.dataclass(frozen=True)
class Pair:
  """Token ids and mask of two conversations that differ in their last answer."""

  chosen: tuple[list[int], list[int]]
  rejected: tuple[list[int], list[int]]


@dataclasses.dataclass(frozen=True)
class PairSource:
  """Training batches of pairs, and held-out ones (None if nothing is held out)."""

  train: 'PairLoader'
  val: 'PairLoader | None'

  @property
  def fingerprint(self) -> str:
    """A digest of the training data."""
    return self.train.fingerprint


class PairLoader:
  """Batches of pairs as a pure function of the step.

  Attributes:
    rows: number of pairs.
    fingerprint: SHA-256 (hex) of the pairs, the seed and the length of a row.
    steps_per_epoch: number of batches with every pair once, the last filled up with empty rows.
  """

  def __init__(self, pairs: list[Pair], *, seq_len: int, batch_size: int, seed: int, train: bool):
    """Arranges pairs in rows.

    Args:
      pairs: one pair or more.
      seq_len: tokens in a row.
      batch_size: number of pairs in the batch of all hosts together.
      seed: seed of the order in training.
      train: whether pairs are shuffled without end; else each comes once, in order.
    """
    self._pairs, self._seq_len, self._batch_size = pairs, seq_len, batch_size
    self._seed, self._train = seed, train
    self.rows = len(pairs)
    self.steps_per_epoch = -(-self.rows // batch_size)
    self.fingerprint = files.digest([[dataclasses.astuple(p) for p in pairs], seq_len, seed])

  def batch(self, step: int, index: int = 0, count: int = 1, parts: int = 1) -> dict[str, Any]:
    """Returns host `index`'s rows of a step, of `count` hosts (see `data.shards.loader.Loader`).

    Returns:
      chosen_inputs, chosen_targets, rejected_inputs, rejected_targets: int32 [rows, seq_len].
      chosen_weights, rejected_weights: float32, 1 on the tokens of the answer.
    """
    examples = host_examples(step, self._batch_size, index, count, parts)
    return self._rows_of([self._pair(example) for example in examples.tolist()])

  def iterate(
    self, start: int, stop: int, index: int = 0, count: int = 1, parts: int = 1
  ) -> Iterator[dict[str, Any]]:
    """Returns an iterator over the batches of steps `start` to `stop` - 1, which reads ahead."""
    return read_ahead(lambda step: self.batch(step, index, count, parts), start, stop)

  def epoch(self, steps: int) -> float:
    """Returns how many times this many steps read the pairs."""
    return steps * self._batch_size / self.rows

  def _pair(self, example: int) -> Pair | None:
    """Returns the pair of an example, or None past the end of held-out pairs."""
    if not self._train:
      return self._pairs[example] if example < self.rows else None
    epoch, index = divmod(example, self.rows)
    (place,) = permute(np.array([index]), self.rows, f'{self._seed}/pairs/{epoch}')
    return self._pairs[int(place)]

  def _rows_of(self, pairs: list[Pair | None]) -> dict[str, Any]:
    fields = {}
    for side in SIDES:
      tokens = np.zeros((len(pairs), self._seq_len + 1), np.int32)
      mask = np.zeros(tokens.shape, np.float32)
      for row, pair in enumerate(pairs):
        if pair is not None:
          ids, learned = getattr(pair, side)
          tokens[row, : len(ids)], mask[row, : len(ids)] = ids, learned
      fields[f'{side}_inputs'] = np.ascontiguousarray(tokens[:, :-1])
      fields[f'{side}_targets'] = np.ascontiguousarray(tokens[:, 1:])
      fields[f'{side}_weights'] = np.ascontiguousarray(mask[:, 1:])
    return fields


def open_pairs(config: Any, chat_format: chat_formats.Format, folder: files.AnyPath) -> PairSource:
  """Returns the pairs of `config.data.train`, and those of `config.data.val`.

  If `train` is empty, `config.data.tasks` make the pairs, `config.data.examples` of them.
  Without `val`, the fraction `config.data.held_out` of the prompts is held out. Rows that cannot be
  used, and pairs that are longer than `config.seq_len`, are skipped and reported.

  Raises:
    FileNotFoundError: an input file does not exist.
    UserError: there is no input, or no pair can be used.
  """
  del folder
  data = config.data
  if data.train:
    train = read(data.train, chat_format, config.seq_len)
  elif data.tasks:
    train = demonstrate(
      tasks.from_config(data, data.tasks), data.examples, chat_format, config.seq_len
    )
  else:
    raise UserError(
      field='config.data.train',
      value='',
      allowed='JSONL files of prompt, chosen and rejected; or config.data.tasks, which make pairs',
    )
  if data.val:
    val = read(data.val, chat_format, config.seq_len)
  else:
    cutoff = split.cutoff([split_hash for split_hash, _ in train], data.held_out)
    val = [row for row in train if row[0] < cutoff]
    train = [row for row in train if row[0] >= cutoff]

  def loader(rows, batch_size, train):
    pairs = [pair for _, pair in rows]
    options = {'seq_len': config.seq_len, 'batch_size': batch_size, 'seed': config.seed}
    return PairLoader(pairs, train=train, **options)

  return PairSource(
    train=loader(train, config.batch_size, train=True),
    val=loader(val, config.eval.batch_size, train=False) if val else None,
  )


def read(inputs: str, chat_format: chat_formats.Format, seq_len: int) -> list[tuple[float, Pair]]:
  """Returns the pairs of files, each with the split hash of its prompt.

  Raises UserError if no row can be used.
  """
  return rows.read_all(inputs, lambda row: _parse(row, chat_format, seq_len), 'pair')


def demonstrate(
  made_by: Sequence[Task], count: int, chat_format: chat_formats.Format, seq_len: int
) -> list[tuple[float, Pair]]:
  """Returns pairs of the right answer to a problem and the right answer to another one.

  Args:
    made_by: the tasks, which take turns.
    count: number of problems. Those whose pair is longer than a row are skipped and reported.
    chat_format: the tokenizer and its format of conversations.
    seq_len: tokens in a row.

  Raises UserError if there is no pair.
  """
  skipped, pairs = jsonl.Skipped(), []
  for i in range(count):
    task, number = made_by[i % len(made_by)], i // len(made_by)
    *messages, right = task.demo(number)['messages']
    others = (task.demo(number + 1 + n)['messages'][-1] for n in range(100))
    wrong = next((other for other in others if other != right), None)
    try:
      if wrong is None:
        message = '100 other problems have the same.'
        raise UserError(field=f'another answer of task {task.name!r}', message=message)
      pairs.append(_pair(messages, [right['content'], wrong['content']], chat_format, seq_len))
    except UserError as error:
      skipped.add(f'task {task.name}, training problem {number}', error)
  if not pairs:
    raise skipped.nothing_left('pair of the tasks')
  skipped.report()
  return pairs


def _parse(row: Any, chat_format: chat_formats.Format, seq_len: int) -> tuple[float, Pair]:
  """Returns the split hash and the tokens of a row. Raises UserError if it cannot be used."""
  if not isinstance(row, dict):
    raise UserError(
      field='row', value=row, allowed='an object with "prompt", "chosen" and "rejected"'
    )
  for name in SIDES:
    if not isinstance(row.get(name), str):
      raise UserError(field=name, value=row.get(name), allowed='a string')
  prompt = row.get('prompt')
  messages = [{'role': 'user', 'content': prompt}] if isinstance(prompt, str) else prompt
  if not isinstance(messages, list):
    raise UserError(field='prompt', value=prompt, allowed='a string or a list of messages')
  return _pair(messages, [row[name] for name in SIDES], chat_format, seq_len)


def _pair(
  messages: list[dict],
  answers: Sequence[str | list[dict]],
  chat_format: chat_formats.Format,
  seq_len: int,
) -> tuple[float, Pair]:
  """Returns the split hash and the tokens of a prompt and its answers, one for each of SIDES.

  Raises UserError if a conversation is malformed or longer than a row.
  """
  sides = []
  for name, content in zip(SIDES, answers, strict=True):
    answer = {'role': 'assistant', 'content': content}
    ids, mask = chat_format.render({'messages': [*messages, answer]})
    start = len(chat_format.render_prompt(messages))
    sides.append((ids, [0] * start + mask[start:]))  # earlier answers are the same in both
    if len(ids) > seq_len + 1:
      raise UserError(
        field=f'length of the conversation with {name!r}',
        value=len(ids),
        allowed=f'at most {seq_len + 1} tokens, config.seq_len + 1',
      )
  return split.split_hash({'id': files.digest(messages)}), Pair(*sides)
