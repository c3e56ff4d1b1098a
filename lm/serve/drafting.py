"""Answers as they are written: plain ones, and ones that are held to JSON.

A `Draft` is one answer. Its request waits for the engine as soon as it is created, and `close`
cancels what is unfinished, so that a row of the engine is never left to a client that went away.
"""

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Sequence

import numpy as np

from lm.infer.requests import Piece, Request, Top
from lm.serve.answer_parts import tag_ids
from lm.serve.api_errors import ApiError
from lm.serve.handling import submit
from lm.serve.json_grammar import State, TokenMasks
from lm.serve.service import ServedModel

RETRY_SECONDS = 0.05  # until a part of an answer that found the queue full is submitted again


def seed_of(seed: int, index: int) -> np.ndarray:
  """Returns the data of the random key of choice `index`, uint32 [2].

  A request's seed may be any integer; equal ones give equal answers.
  """
  digest = hashlib.sha256(f'{seed} {index}'.encode()).digest()
  return np.frombuffer(digest[:8], '<u4').astype(np.uint32)


class Draft:
  """An answer that the engine writes.

  Attributes:
    end: why it ended, as in `lm.infer.requests.Completion`; '' until then.
    num_tokens: how many tokens were drawn.
    reused: how many tokens of the prompt were in the cache.
    log_prob: sum over the drawn tokens, under the distribution that they were drawn from.
  """

  def __init__(self, model: ServedModel, request: Request):
    """Submits the request.

    Raises:
      ApiError, UserError: as `lm.serve.handling.submit`.
    """
    self.end = ''
    self.num_tokens = self.reused = 0
    self.log_prob = 0.0
    self._model, self._request = model, request
    self._answer = submit(model, request)

  @property
  def prompt_tops(self) -> list[Top]:
    """Returns reports of the prompt's tokens from the second on, if they were asked for.

    They are complete with the first piece.
    """
    return self._answer.completion.prompt_tops

  async def pieces(self) -> AsyncIterator[Piece]:
    """Yields the pieces of the answer as they come."""
    async for piece in self._answer:
      self._count(piece)
      yield piece
    completion = self._answer.completion
    self.end, self.reused = completion.end, completion.reused

  def stop(self) -> None:
    """Ends the answer at a stop string."""
    self.end, self.reused = 'string', self._answer.completion.reused
    self.close()

  def close(self) -> None:
    """Ends the answer, if it has not ended."""
    if not self._answer.done:
      self._answer.cancel()

  def _count(self, piece: Piece) -> None:
    if piece.sampled:
      self.num_tokens += len(piece.tokens)
      self.log_prob += sum(piece.log_probs)


class JsonDraft(Draft):
  """An answer that is one JSON object.

  The model draws as it likes. A token that breaks the grammar is replaced by one that is drawn
  among those that keep it, so that each token has the distribution of the model restricted to the
  tokens that may follow. When only as many tokens are left as it takes to complete the object, it
  is completed. The object may follow a thought.
  """

  def __init__(self, model: ServedModel, request: Request, masks: TokenMasks, in_thought: bool):
    """Submits the first part.

    Args:
      masks: of the model's vocabulary.
      in_thought: whether the prompt has opened a thought.
    """
    self._masks, self._state, self._in_thought = masks, State(), in_thought
    self._thought_tags = tag_ids(model.chat_format, 'think')
    self._written: list[int] = []
    room = model.context - 1 - len(request.prompt)
    self._left = min(request.max_new_tokens, room)
    super().__init__(model, request)
    self.reused = -1  # until the first part tells

  async def pieces(self) -> AsyncIterator[Piece]:
    """Yields the pieces of the answer as they come."""
    while self._goes_on():
      refused = False
      async for piece in self._answer:
        kept = self._keep(piece.tokens)
        if kept:
          yield self._cut(piece, kept)
        if refused := kept < len(piece.tokens) or self._state.is_done:
          self._answer.cancel()
          break
      if self.reused < 0:
        self.reused = self._answer.completion.reused
      if not refused or not self._goes_on():
        break
      piece = await self._draw_allowed()
      if piece is None:
        break
      yield piece
      if self._goes_on():
        await self._submit(self._request)
    self.end = 'stop' if self._state.is_done else 'length'
    closing = self._closing(self._state, self._in_thought)
    if closing and len(closing) <= self._left:
      self.num_tokens += len(closing)
      yield Piece(closing, [0.0] * len(closing), True, [])

  def _goes_on(self) -> bool:
    """Returns whether the model may draw another token."""
    closing = self._closing(self._state, self._in_thought)
    return not self._state.is_done and len(closing) < self._left

  async def _draw_allowed(self) -> Piece | None:
    """Returns one token, drawn among those that may follow; None if there are none."""
    request = self._request
    allowed = await asyncio.to_thread(self._allowed)
    if not allowed.any():
      return None
    sampling = dataclasses.replace(request.sampling, banned_ids=np.flatnonzero(~allowed))
    # The draw that was refused had its random number; this one needs another.
    data = np.asarray(request.key_data())
    seed = seed_of(int(data[0]) << 32 | int(data[1]), len(self._written))
    one = dataclasses.replace(request, sampling=sampling, max_new_tokens=1, seed=seed)
    await self._submit(one)
    async for piece in self._answer:
      if self._keep(piece.tokens):
        return self._cut(piece, 1)
    return None

  def _allowed(self) -> np.ndarray:
    """Returns a bool [V], True for the tokens that may follow and leave room for the rest."""
    size, V = self._model.chat_format.tokenizer.vocab_size, self._model.config.vocab_size
    allowed = np.zeros(V, bool)
    if self._in_thought:
      allowed[:size] = True
      allowed[[i for i in self._masks.without_bytes if i not in self._thought_tags[1:]]] = False
    else:
      allowed[:size] = self._masks.allowed(self._state)
      if self._may_think():
        allowed[self._thought_tags[0]] = True
    allowed[list(self._request.sampling.banned_ids)] = False
    return allowed

  async def _submit(self, request: Request) -> None:
    """Submits a part of the answer, behind what is written; waits where the queue is full."""
    prompt = [*self._request.prompt, *self._written]
    request = dataclasses.replace(
      request, prompt=prompt, max_new_tokens=min(request.max_new_tokens, self._left)
    )
    while True:
      try:
        self._answer = submit(self._model, request)
        return
      except ApiError as error:
        if error.status != 429:
          raise
      await asyncio.sleep(RETRY_SECONDS)

  def _keep(self, tokens: Sequence[int]) -> int:
    """Reads tokens as long as the grammar and the room allow, and returns how many those are."""
    for i, token in enumerate(tokens):
      if not self._read(token):
        return i
      if self._state.is_done:
        return i + 1
    return len(tokens)

  def _read(self, token: int) -> bool:
    """Reads a token of the answer; returns False if it may not follow."""
    state, in_thought = self._state, self._in_thought
    if in_thought:
      if token in self._masks.without_bytes and token not in self._thought_tags:
        return False
      in_thought = token not in self._thought_tags[1:]
    elif self._may_think() and token == self._thought_tags[0]:
      in_thought = True
    else:
      data = self._model.chat_format.tokenizer.token_bytes(token)
      state = state.read(data) if data else None
    if state is None or len(self._closing(state, in_thought)) >= self._left:
      return False
    self._state, self._in_thought = state, in_thought
    self._left -= 1
    self._written.append(token)
    return True

  def _may_think(self) -> bool:
    return bool(self._thought_tags) and not self._written

  def _closing(self, state: State, in_thought: bool) -> list[int]:
    """Returns the tokens of the shortest text that ends a thought and completes the object."""
    if state.is_done:
      return []
    tokens = self._model.chat_format.tokenizer.encode_inside(state.closing().decode())
    return [*self._thought_tags[1:], *tokens] if in_thought else tokens

  def _cut(self, piece: Piece, count: int) -> Piece:
    """Returns the first tokens of a piece, counted."""
    cut = Piece(piece.tokens[:count], piece.log_probs[:count], True, piece.tops[:count])
    self._count(cut)
    return cut
