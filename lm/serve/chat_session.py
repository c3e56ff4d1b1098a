"""A conversation in the terminal: its turns, and the engine's row that remembers them."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from lm.base import files
from lm.base.errors import UserError
from lm.infer.engine import Engine
from lm.infer.requests import Request
from lm.infer.sampling import Sampling
from lm.parallel import keys
from lm.serve.answer_parts import AnswerParts, Part, opens_thought

DRAW = 4  # The tokens that one step draws; text is shown, and Ctrl-C is handled, this often.
RESERVE = 4  # Room for a reply is kept: max_new_tokens, or this part of the context if it is less.
# What is shown for the tags around a part of each kind.
MARKS = {'think': ('[think: ', ']'), 'python': ('[python: ', ''), 'output': (' -> ', ']')}


@dataclasses.dataclass
class Exchange:
  """A message of the user's and the reply to it.

  Attributes:
    question: the message.
    reply: the tokens of the reply, results of tools included.
  """

  question: str
  reply: list[int] = dataclasses.field(default_factory=list)


class Session:
  """A conversation whose past stays in the key/value cache, so that a turn costs its own tokens.

  Attributes:
    system: text of the system turn, '' for none.
    sampling: how replies are drawn.
    thinking: how thoughts are shown: as they come, folded until `/thought` asks for the last, as
      their length, or not at all.
    exchanges: the turns that the model still knows.
    ids: every token of them.
    dropped: how many of the oldest exchanges gave way since the last reset.
    fed: how many tokens were read in since the start or the last reset (the others were drawn).
    reused: how many tokens of the conversation the last turn found in the cache.
    thought: the last thought, for `/thought`; '' where thoughts are withheld.
  """

  def __init__(
    self,
    config: FrozenConfigDict,
    params: Any,
    chat_format: Any,
    sampling: Sampling,
    *,
    call_tool: Callable[[str], str],
    max_new_tokens: int,
    seed: int = 0,
    system: str = '',
    thinking: str = 'show',
  ):
    """Creates an empty conversation.

    Args:
      config: the model's; its max_len is how many tokens a conversation may have.
      chat_format: how turns are written as tokens (`data.chat.chat_formats.Format`).
      sampling: how replies are drawn. Bans are added here: tags of tool results, and ids that are
        no token, are never drawn.
      call_tool: answers the calls of tools: the text of a call to its result.
      max_new_tokens: longest reply, tool results not counted; at least 1.
    """
    if max_new_tokens < 1:
      raise UserError(field='max_new_tokens', value=max_new_tokens, allowed='at least 1')
    self.config, self.params, self.chat_format = config, params, chat_format
    self.system, self.thinking = system, thinking
    banned_ids = chat_format.banned_ids(config.vocab_size)
    self.sampling = dataclasses.replace(sampling, banned_ids=(*sampling.banned_ids, *banned_ids))
    self._call_tool, self._max_new_tokens = call_tool, max_new_tokens
    self._key = keys.derive(seed, 'chat')
    self.engine = self._new_engine()
    self._documents: Engine | None = None  # Continues documents, beside the conversation.
    self.reset()

  def reset(self) -> None:
    """Forgets the conversation; the next one draws other random numbers."""
    self.exchanges: list[Exchange] = []
    self.ids: list[int] = []
    self.fed = self.reused = self.dropped = 0
    self.thought = ''
    self._seed = self._next_seed()

  def reply(self, text: str) -> Iterator[tuple[str, bool]]:
    """Adds a user turn and yields the reply as it is drawn.

    It yields (text, aside), where an aside is a tool call or a thought, which is not part of the
    reply's text. Texts may be empty. The iterator may be abandoned at any piece: the conversation
    continues after what was drawn by then. If the context is full, the oldest exchanges are
    dropped, and an aside says so.

    Raises:
      UserError: the context has no room for `text`, or the reply fills it.
    """
    ids, kept = self._make_room(text)
    if dropped := len(self.exchanges) - kept:
      self.dropped += dropped
      self.exchanges = self.exchanges[dropped:]
      turns = 'turn was' if dropped == 1 else f'{dropped} turns were'
      yield f'[the oldest {turns} dropped, because the context is full]\n', True
    known = len(self.ids) if ids[: len(self.ids)] == self.ids else 0
    self.fed += len(ids) - known
    self.ids = ids
    exchange = Exchange(text)
    self.exchanges.append(exchange)
    request = self._request(
      ids,
      stop_ids=self.chat_format.stops,
      pause_ids=self.chat_format.call_ids,
      tool=lambda tokens: self.chat_format.answer_call(tokens, self._call_tool),
    )
    handle = self.engine.submit(request)
    reader = AnswerParts(self.chat_format, in_thought=opens_thought(self.chat_format))
    display = Display(self.thinking)
    for piece in self.engine.stream(handle):
      exchange.reply += piece.tokens
      self.ids += piece.tokens
      self.fed += 0 if piece.sampled else len(piece.tokens)
      self.reused = handle.completion.reused
      yield from display(reader.read(piece))
      self.thought = display.thought
    yield from display(reader.end())
    yield from display.end()
    self.thought = display.thought
    if handle.completion.end == 'full':
      raise self._full(len(self.ids), 'The reply is cut off. ')
    if handle.completion.end == 'length':
      yield f' [stopped after {self._max_new_tokens} tokens]', True

  def continue_document(self, text: str) -> Iterator[tuple[str, bool]]:
    """Yields the continuation of a text that is no conversation, which is not disturbed by it.

    Raises:
      UserError: the context has no room for `text`.
    """
    prompt = [self.chat_format.document_start, *self.chat_format.tokenizer.encode(text)]
    if len(prompt) >= self.config.max_len:
      raise self._full(len(prompt))
    if self._documents is None:
      self._documents = self._new_engine()
    request = self._request(
      prompt, stop_ids=(self.chat_format.document_start,), seed=self._next_seed()
    )
    reader = AnswerParts(self.chat_format)
    display = Display(self.thinking)
    for piece in self._documents.stream(self._documents.submit(request)):
      yield from display(reader.read(piece))
    yield from display(reader.end())
    yield from display.end()

  def messages(self) -> list[dict[str, Any]]:
    """Returns the conversation as `data.chat.chat_formats` reads it, to be saved.

    Thoughts that are withheld are left out.
    """
    hidden = () if self.thinking in ('show', 'fold') else ('think',)
    turns = [{'role': 'system', 'content': self.system}] if self.system else []
    for exchange in self.exchanges:
      parts = self.chat_format.parse(exchange.reply)['content']
      parts = [part for part in parts if part['type'] not in hidden]
      turns.append({'role': 'user', 'content': exchange.question})
      turns.append({'role': 'assistant', 'content': parts})
    return turns

  def save(self, path: str) -> None:
    """Writes the conversation to a new file, as a line that training reads.

    Raises:
      UserError: the file exists, or there is nothing to save.
      OSError: it cannot be written.
    """
    if not self.exchanges:
      raise UserError(field='conversation to save')
    if files.as_path(path).exists():
      raise UserError(field='/save', value=path, allowed='a file that does not exist yet')
    line = json.dumps({'messages': self.messages()}, ensure_ascii=False)
    files.write_text(files.as_path(path), f'{line}\n')

  def gauge(self) -> str:
    """Returns how much of the context is taken, such as '120/2048'."""
    return f'{len(self.ids)}/{self.config.max_len}'

  def _make_room(self, text: str) -> tuple[list[int], int]:
    """Returns (the tokens of the conversation with a new turn, the exchanges that remain).

    Raises:
      UserError: the turn alone leaves no room for a reply.
    """
    most = self.config.max_len
    reserve = min(self._max_new_tokens, most // RESERVE)
    for first in range(len(self.exchanges) + 1):
      kept = self.exchanges[first:]
      ids = self._tokens(kept, text)
      if len(ids) + reserve <= most or (not kept and len(ids) < most):
        return ids, len(kept)
    raise self._full(len(ids))

  def _tokens(self, exchanges: Sequence[Exchange], text: str) -> list[int]:
    """Returns the tokens from the beginning of a conversation up to where the reply begins."""
    system = [{'role': 'system', 'content': self.system}] if self.system else []
    ids: list[int] = []
    for exchange in [*exchanges, Exchange(text)]:
      if ids:
        stopped = ids[-1] in self.chat_format.stops
        ids += self.chat_format.render_next(exchange.question, stopped)
      else:
        question = {'role': 'user', 'content': exchange.question}
        ids = self.chat_format.render_prompt([*system, question])
      ids += exchange.reply
    return ids

  def _request(self, prompt: list[int], **fields: Any) -> Request:
    fields = {'seed': self._seed} | fields
    return Request(prompt, self._max_new_tokens, self.sampling, **fields)

  def _next_seed(self) -> np.ndarray:
    self._key, key = jax.random.split(self._key)
    return np.asarray(jax.random.key_data(key))

  def _new_engine(self) -> Engine:
    return Engine(self.config, self.params, rows=1, capacity=self.config.max_len, steps=DRAW)

  def _full(self, tokens: int, what: str = '') -> UserError:
    return UserError(
      field='number of tokens',
      value=tokens,
      allowed=f'fewer than the context of the model, {self.config.max_len}',
      message=f'{what}/reset begins a new conversation.',
    )


class Display:
  """Turns the parts of a reply into text for a terminal: (text, aside).

  A tool call is shown as [python: 1+1 -> 2], and a thought as [think: ...], unless it is to be
  folded, summarized by its length, or withheld.

  Attributes:
    thought: the last thought, unless thoughts are withheld.
  """

  def __init__(self, thinking: str):
    self._thinking, self._tokens = thinking, 0
    self.thought = ''

  def __call__(self, parts: Sequence[Part]) -> Iterator[tuple[str, bool]]:
    """Yields what the next parts add."""
    for part in parts:
      if part.kind == 'text':
        yield part.text, False
      elif part.kind == 'think' and self._thinking != 'show':
        yield from self._hide(part)
      else:
        if part.kind == 'think':
          self.thought += part.text
        before, after = MARKS[part.kind]
        yield before * part.opens + part.text + after * part.closes, True

  def end(self) -> Iterator[tuple[str, bool]]:
    """Yields what tells of a thought that was never closed."""
    if self._tokens:
      yield self._summary(), True

  def _hide(self, part: Part) -> Iterator[tuple[str, bool]]:
    if self._thinking == 'withhold':
      return
    self._tokens += part.tokens
    if self._thinking == 'fold':
      self.thought += part.text
    if part.closes:
      yield self._summary(), True

  def _summary(self) -> str:
    count, self._tokens = self._tokens, 0
    hint = '; /thought shows it' if self._thinking == 'fold' else ''
    return f'[thought for {count} tokens{hint}] '
