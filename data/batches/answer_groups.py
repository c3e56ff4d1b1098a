"""Batches of groups of answers to one prompt, with all comparisons among them.

Each answer of a group is read once, however many comparisons it is in, and comparisons of one
prompt are never in different updates: as single pairs they overfit in one epoch (Ouyang et al.,
arXiv 2203.02155, section 3.5).
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from data.batches import pairs as pairs_lib
from data.batches.item_loader import ItemLoader, ItemSource, Tokens, fill
from data.batches.pairs import Pair
from data.chat import chat_formats
from lm.base import files
from lm.base.errors import UserError


class Comparison(NamedTuple):
  """A comparison of two answers of a group, by their numbers in it."""

  preferred: int
  other: int
  margin: float


@dataclasses.dataclass
class Group:
  """Answers to one prompt.

  Attributes:
    prompt: a digest of the conversation before the answer.
    answers: tokens of the whole conversations, each up to the token that ends the answer.
    comparisons: those among the answers.
  """

  prompt: str
  answers: list[Tokens] = dataclasses.field(default_factory=list)
  comparisons: list[Comparison] = dataclasses.field(default_factory=list)

  def add(self, pair: Pair, size: int) -> bool:
    """Adds a pair, and returns whether it fits: then there are at most `size` answers."""
    answers = list(self.answers)
    sides = [_to_the_end(pair.chosen), _to_the_end(pair.rejected)]
    answers += [side for side in sides if side not in answers]
    if len(answers) > size:
      return False
    self.answers = answers
    self.comparisons.append(Comparison(*map(answers.index, sides), pair.margin))
    return True


class GroupLoader(ItemLoader):
  """Batches of groups, a row for each answer; groups with fewer answers leave rows empty.

  The fields of a batch are
    inputs: int32 [rows, seq_len], a prompt with an answer.
    ends: int32 [rows], the position of the answer's last token; -1 in an empty row.
    wins: float32 [rows, size], how often the answer was preferred to each answer of its group.
    margins: float32 [rows, size], the mean margin of these comparisons.
  """

  def _arrays(self, examples: list[int]) -> dict[str, np.ndarray]:
    size = self._rows_of_item
    answers: list[Tokens | None] = []
    wins = np.zeros((len(examples), size), np.float32)
    margins = np.zeros((len(examples), size), np.float32)
    for row, example in enumerate(examples):
      number, member = divmod(example, size)
      group = self._item(number)
      has_answer = group is not None and member < len(group.answers)
      answers.append(group.answers[member] if has_answer else None)
      for comparison in group.comparisons if has_answer else ():
        if comparison.preferred == member:
          wins[row, comparison.other] += 1
          margins[row, comparison.other] += comparison.margin
    return {
      'inputs': fill(answers, self._seq_len)[0],
      'ends': np.array([len(tokens[0]) - 1 if tokens else -1 for tokens in answers], np.int32),
      'wins': wins,
      'margins': margins / np.maximum(wins, 1),
    }


def open_groups(config: Any, chat_format: chat_formats.Format, folder: files.AnyPath) -> ItemSource:
  """Returns the training comparisons and the held-out ones of a config, in groups.

  Raises as `data.batches.pairs.read`; or UserError because a margin is asked for that no
  comparison has.
  """
  del folder
  size = config.reward.group_size
  train, val = pairs_lib.read(config, chat_format, max_tokens=config.seq_len, answers=size)
  if config.reward.margin and not any(pair.margin for pair in train):
    raise UserError(
      field='config.reward.margin',
      value=config.reward.margin,
      allowed='0, since no comparison has a margin',
    )
  options = {'seq_len': config.seq_len, 'seed': config.seed, 'rows_of_item': size}
  make = functools.partial(GroupLoader, **options)
  return ItemSource(
    train=make(gather(train, size), batch_size=config.batch_size, train=True),
    val=make(gather(val, size), batch_size=config.eval.batch_size, train=False) if val else None,
  )


def open_held_out(config: Any, chat_format: chat_formats.Format, folder: files.Path) -> GroupLoader:
  """Returns the comparisons of `config.data.val` in groups, each once."""
  size = config.reward.group_size
  val = pairs_lib.read_held_out(config, chat_format, max_tokens=config.seq_len)
  return GroupLoader(
    gather(val, size),
    seq_len=config.seq_len,
    seed=config.seed,
    rows_of_item=size,
    batch_size=config.eval.batch_size,
    train=False,
  )


def gather(pairs: Sequence[Pair], size: int) -> list[Group]:
  """Returns groups of at most `size` answers with all comparisons of pairs.

  A prompt has one group, or more where there are more answers. Then an answer may be in several.
  """
  by_prompt: dict[str, list[Group]] = collections.defaultdict(list)
  for pair in pairs:
    groups = by_prompt[pair.prompt]
    if not any(group.add(pair, size) for group in groups):
      fresh = Group(pair.prompt)
      fresh.add(pair, size)
      groups.append(fresh)
  return [group for groups in by_prompt.values() for group in groups]


def _to_the_end(tokens: Tokens) -> Tokens:
  """Returns a conversation without what follows the token that ends its answer."""
  ids, mask = tokens
  end = len(mask) - mask[::-1].index(1)
  return ids[:end], mask[:end]
