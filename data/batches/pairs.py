"""Batches of pairs of answers to one prompt: the preferred one and the other.

data/preferences/comparison_rows.py says which forms of rows the input may have. The simplest is
{"prompt": ..., "chosen": ..., "rejected": ...}: a question and two texts.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data import tasks
from data.batches.item_loader import ItemLoader, ItemSource, Tokens, fill
from data.chat import chat_formats
from data.preferences import comparison_rows, gold
from data.preferences.comparison_rows import Comparison, Content
from data.records import jsonl, rows, split
from lm.base import files
from lm.base.errors import UserError

SIDES = ('chosen', 'rejected')
OTHER = 'other'  # A third answer of a row: one to another prompt.


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two conversations that differ in their last answer.

  Attributes:
    prompt: a digest of the conversation before the answer.
    start: number of its tokens.
    chosen, rejected: tokens of the whole conversations, in which the last answer is learned.
    margin: how much better the chosen one is, in the unit of its source.
  """

  prompt: str
  start: int
  chosen: Tokens
  rejected: Tokens
  margin: float


class PairLoader(ItemLoader):
  """Batches of pairs, a row each.

  A batch has {side}_inputs and {side}_targets, int32 [rows, seq_len], and {side}_weights, float32,
  1 on the tokens of the answer. The sides are `chosen` and `rejected`. With `others` there is also
  `other`: the same prompt with an answer to another one, by turns a chosen and a rejected one,
  which is cut off at the end of the row.
  """

  def __init__(self, items: Sequence[Pair], others: Sequence[Pair] = (), **options: Any):
    """Arranges pairs in rows.

    Args:
      items: the pairs.
      others: pairs whose answers are the third side.
      **options: of `ItemLoader`.
    """
    super().__init__(items, **options)
    self._others = others

  def _arrays(self, examples: list[int]) -> dict[str, np.ndarray]:
    pairs = [self._item(example) for example in examples]
    sides: dict[str, list[Tokens | None]] = {}
    for side in SIDES:
      sides[side] = [None if pair is None else getattr(pair, side) for pair in pairs]
    if self._others:
      sides[OTHER] = [
        None if pair is None else self._mismatched(pair, example)
        for pair, example in zip(pairs, examples, strict=True)
      ]
    fields = {}
    for side, tokens in sides.items():
      ids, mask = fill(tokens, self._seq_len + 1)
      fields[f'{side}_inputs'] = np.ascontiguousarray(ids[:, :-1])
      fields[f'{side}_targets'] = np.ascontiguousarray(ids[:, 1:])
      fields[f'{side}_weights'] = np.ascontiguousarray(mask[:, 1:])
    return fields

  def _mismatched(self, pair: Pair, example: int) -> Tokens:
    """Returns the tokens of a pair's prompt with an answer to another prompt."""
    epoch, place = divmod(example, len(self._others))
    following = (self._others[(place + i) % len(self._others)] for i in range(len(self._others)))
    other = next(candidate for candidate in following if candidate.prompt != pair.prompt)
    ids, mask = getattr(other, SIDES[(place + epoch) % 2])
    own, _ = pair.chosen
    return own[: pair.start] + ids[other.start :], [0] * pair.start + mask[other.start :]


def open_pairs(config: Any, chat_format: chat_formats.Format, folder: files.AnyPath) -> ItemSource:
  """Returns the training pairs and the held-out ones of a config (see `read`)."""
  del folder
  train, val = read(config, chat_format, max_tokens=config.seq_len + 1)
  others = train if config.preference.loss == 'kto' else []
  if len({pair.prompt for pair in others}) == 1:
    raise UserError(
      field='config.preference.loss',
      value='kto',
      allowed='another loss, since all pairs have the same prompt',
    )
  make = functools.partial(PairLoader, others=others, seq_len=config.seq_len, seed=config.seed)
  return ItemSource(
    train=make(train, batch_size=config.batch_size, train=True),
    val=make(val, batch_size=config.eval.batch_size, train=False) if val else None,
  )


def open_held_out(config: Any, chat_format: chat_formats.Format, folder: files.Path) -> PairLoader:
  """Returns the pairs of `config.data.val`, each once."""
  val = read_held_out(config, chat_format, max_tokens=config.seq_len + 1)
  options = {'seq_len': config.seq_len, 'seed': config.seed, 'batch_size': config.eval.batch_size}
  return PairLoader(val, train=False, **options)


def read_held_out(config: Any, chat_format: chat_formats.Format, *, max_tokens: int) -> list[Pair]:
  """Returns the pairs of `config.data.val`, with conversations of at most `max_tokens` tokens."""
  return from_files(config.data.val, functools.partial(_pairs, chat_format, max_tokens))


def read(
  config: Any, chat_format: chat_formats.Format, *, max_tokens: int, answers: int = 2
) -> tuple[list[Pair], list[Pair]]:
  """Returns the pairs of `config.data.train`, and those of `config.data.val`.

  If `train` is empty, `config.data.tasks` make the pairs, of `config.data.examples` problems, and
  `config.preference.gold` ranks them. Without `val`, the fraction `config.data.held_out` of the
  prompts is held out. Rows that cannot be used, those with an answer that is too long and those
  without an answer that is better than another are skipped and reported.

  Args:
    config: of a training run.
    chat_format: how conversations become tokens.
    max_tokens: longest conversation.
    answers: number of answers to a problem of a task.

  Raises:
    FileNotFoundError: an input file does not exist.
    UserError: there is no input, or no pair can be used.
  """
  data, parse = config.data, functools.partial(_pairs, chat_format, max_tokens)
  if data.train:
    train = from_files(data.train, parse)
  elif data.tasks:
    ranker = gold.Ranker(config.preference.gold, answers, config.preference.noise)
    skipped, made_by = jsonl.Skipped(), tasks.from_config(data, data.tasks)
    made = gold.compare_all(ranker, made_by, data.examples, parse, skipped)
    train = [pair for of_problem in made for pair in of_problem]
    if not train:
      raise skipped.nothing_left('pair of the tasks')
    skipped.report()
  else:
    raise UserError(
      field='config.data.train',
      value='',
      allowed='JSONL files of prompt, chosen and rejected; or config.data.tasks, which make pairs',
    )
  if data.val:
    return train, read_held_out(config, chat_format, max_tokens=max_tokens)
  hashes = [split.split_hash({'id': pair.prompt}) for pair in train]
  cutoff = split.cutoff(hashes, data.held_out)
  kept, val = [], []
  for pair, value in zip(train, hashes, strict=True):
    (val if value < cutoff else kept).append(pair)
  return kept, val


def from_files(inputs: str, parse: Callable[[Sequence[Comparison]], list[Pair]]) -> list[Pair]:
  """Returns the pairs of files. Raises UserError if no row can be used.

  Args:
    inputs: paths, URLs or globs.
    parse: comparisons -> pairs.
  """
  found = rows.read_all(inputs, lambda row: parse(comparison_rows.comparisons(row)), 'pair')
  return [pair for of_row in found for pair in of_row]


def _pairs(
  chat_format: chat_formats.Format, max_tokens: int, compared: Sequence[Comparison]
) -> list[Pair]:
  """Returns the pairs of comparisons of one prompt that are decided.

  Raises UserError if there are none, or an answer is malformed or too long.
  """
  decided = [comparison for comparison in compared if comparison.is_decided]
  if not decided:
    value = compared[0].winner if compared else ''
    raise UserError(field='winner', value=value, allowed='an answer that is better than another')
  return [_pair(comparison, chat_format, max_tokens) for comparison in decided]


def _pair(comparison: Comparison, chat_format: chat_formats.Format, max_tokens: int) -> Pair:
  messages = comparison.messages
  start = len(chat_format.render_prompt(messages))

  def tokens(content: Content, side: str) -> Tokens:
    ids, mask = chat_format.render(
      {'messages': [*messages, {'role': 'assistant', 'content': content}]}
    )
    if len(ids) > max_tokens:
      raise UserError(
        field=f'length of the conversation with {side!r}',
        value=len(ids),
        allowed=f'at most {max_tokens} tokens, by config.seq_len',
      )
    return ids, [0] * start + mask[start:]  # Earlier answers are the same in both.

  chosen, rejected = map(tokens, comparison.ordered(), SIDES)
  return Pair(comparison.prompt, start, chosen, rejected, comparison.margin)
