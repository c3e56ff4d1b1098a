"""The one loop of answers that may call tools: it draws, answers calls and forces results in.

Chat, evaluation and reinforcement learning all run it: `lm.infer.engine.generate` for a batch of
rows at a time, `lm.serve.chat_session.Session` for one row, a few tokens at a time.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from lm.infer.sampling import Sampling, token_set


@dataclasses.dataclass(frozen=True)
class Drawn:
  """The tokens that a row drew in one call, and their log-probabilities when they were drawn."""

  tokens: list[int]
  log_probs: list[float]


@dataclasses.dataclass(frozen=True)
class Piece:
  """The next part of a row's answer: tokens that were forced in, then tokens that were drawn."""

  forced: list[int]
  drawn: list[int]
  log_probs: list[float]  # Of `drawn`.


class Source(Protocol):
  """The rows that tokens are drawn from, such as `lm.infer.engine.Rows`."""

  capacity: int  # The number of tokens that a row can hold.
  lengths: list[int]  # The number of tokens that each row has read, forced or drawn.

  def draw(
    self,
    sampling: Sampling,
    ends_V: np.ndarray,
    max_new: int,
    budgets: Sequence[int],
    forced: Sequence[Sequence[int]],
  ) -> list[Drawn]: ...


class ToolLoop:
  """Iterates over the answers of all rows, piece by piece: each item has one piece for each row.

  An iteration may be abandoned at any piece: the rows then hold what was yielded so far.

  Attributes:
    ends: why each row ended. 'stop' means a stop token; 'call' means a call that got no result, or
      more calls than are allowed; 'length' means that `max_new_tokens` were drawn; 'full' means
      that there is no room for more, or for the result of a call. It is '' while the row continues.
  """

  def __init__(
    self,
    rows: Source,
    sampling: Sampling,
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    pause_ids: Sequence[int] = (),
    tool: Callable[[list[int]], list[int]] | None = None,
    max_calls: int | None = None,
    piece: int | None = None,
  ):
    """Prepares the loop; nothing is drawn yet.

    Args:
      rows: rows that have read their prompts.
      sampling: how to draw, with an entry for each row; its forced tokens begin the answers.
      max_new_tokens: the most tokens that a row draws, forced ones not counted.
      pause_ids: tokens after which `tool` is called with the row's answer so far, forced tokens
        included; it returns the tokens to force in, none if there is no result.
      max_calls: the most calls of a row; None means no limit.
      piece: the most tokens that a row draws in one piece; None means `max_new_tokens`.
    """
    self._rows, self._sampling, self._tool = rows, sampling, tool
    self._stop_ids, self._pause_ids = frozenset(stop_ids), frozenset(pause_ids)
    self._max_calls, self._max_new = max_calls, piece or max_new_tokens
    self._ends_V = token_set([*self._stop_ids, *self._pause_ids], sampling.banned_BV.shape[-1])
    count = len(rows.lengths)
    self._answers: list[list[int]] = [[] for _ in range(count)]
    self._left, self._calls = [max_new_tokens] * count, [0] * count
    self._forced = [
      tokens[:n].tolist()
      for tokens, n in zip(sampling.forced_BF, sampling.num_forced_B, strict=True)
    ]
    self.ends = [''] * count

  def __iter__(self) -> Iterator[list[Piece]]:
    while not all(self.ends):
      budgets = [
        0 if end else min(left, self._max_new)
        for end, left in zip(self.ends, self._left, strict=True)
      ]
      forced = self._forced
      drawn = self._rows.draw(self._sampling, self._ends_V, self._max_new, budgets, forced)
      pieces = [
        Piece(tokens, one.tokens, one.log_probs) for tokens, one in zip(forced, drawn, strict=True)
      ]
      for row, piece in enumerate(pieces):
        self._answers[row] += [*piece.forced, *piece.drawn]
        self._left[row] -= len(piece.drawn)
      yield pieces
      self._forced = [[] for _ in pieces]
      for row, piece in enumerate(pieces):
        if not self.ends[row]:
          self._go_on(row, piece)

  def _go_on(self, row: int, piece: Piece) -> None:
    """Decides whether a row ends after a piece, or which tokens are forced into it."""
    room = self._rows.capacity - self._rows.lengths[row]
    last = piece.drawn[-1] if piece.drawn else None
    if last in self._stop_ids:
      self.ends[row] = 'stop'
    elif not self._left[row]:
      self.ends[row] = 'length'
    elif not room:
      self.ends[row] = 'full'
    elif last in self._pause_ids:
      self._forced[row], self.ends[row] = self._answer_call(row, room)

  def _answer_call(self, row: int, room: int) -> tuple[list[int], str]:
    """Returns (the tokens of a call's result, '') or ([], why the row ends instead)."""
    if self._tool is None or self._calls[row] == self._max_calls:
      return [], 'call'
    self._calls[row] += 1
    result = self._tool(list(self._answers[row]))
    if not result:
      return [], 'call'
    return (result, '') if len(result) < room else ([], 'full')
