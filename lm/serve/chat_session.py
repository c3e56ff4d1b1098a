"""A conversation in the terminal: its session, its display, and the loop that reads lines."""

import codecs
import contextlib
import dataclasses
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from lm.base import errors
from lm.base.errors import UserError
from lm.infer.engine import Engine
from lm.infer.requests import Request
from lm.infer.sampling import Sampling
from lm.parallel import keys

DRAW = 4  # The tokens that one step draws; text is shown, and Ctrl-C is handled, this often.
COMMANDS = {
  '/help': 'this list',
  '/reset': 'forget the conversation and begin anew',
  '/exit': 'leave (or Ctrl-D)',
}
# The marks that are shown for the opening and the closing tag of each kind.
MARKS = {'python': ('[python: ', ''), 'output': (' -> ', ']'), 'think': ('[think: ', ']')}
CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], '\N{REPLACEMENT CHARACTER}')


class Pieces:
  """The tokens of one reply as text to display.

  No piece ends inside a character. Tool calls are shown as [python: 1+1 -> 2].
  """

  def __init__(self, chat_format: Any):
    self._tokenizer = chat_format.tokenizer
    # Special tokens are shown by name, unless they have a mark.
    self._names = {index: name for name, index in self._tokenizer.special_tokens.items()}
    self._marks = dict.fromkeys(chat_format.stops, '')
    for kind, marks in MARKS.items():
      self._marks |= zip(chat_format.tag_ids(kind), marks, strict=False)
    self._opening = {i for kind in MARKS for i in chat_format.tag_ids(kind)[:1]} | {
      *chat_format.call_ids
    }
    self._utf8 = codecs.getincrementaldecoder('utf-8')('replace')
    self._aside = False

  def __call__(self, ids: Sequence[int]) -> Iterator[tuple[str, bool]]:
    """Yields (text, aside) for the next tokens.

    `aside` is True for a tool call or a thought, which is not part of the reply's text. Texts may
    be empty.
    """
    for index in ids:
      name = self._names.get(index)
      if name is None:
        yield self._utf8.decode(self._tokenizer.token_bytes(index)), self._aside
      else:
        yield self._utf8.decode(b'', final=True), self._aside
        yield self._marks.get(index, name), True
        if index in self._marks:
          self._aside = index in self._opening

  def end(self) -> tuple[str, bool]:
    """Returns what is left of a character that was never completed."""
    return self._utf8.decode(b'', final=True), self._aside


class Session:
  """A conversation whose past stays in the key/value cache, so that a turn costs its own tokens.

  Attributes:
    engine: the engine, whose one row holds the conversation.
    ids: every token of the conversation so far.
    fed: how many tokens were read in since the start or the last reset (the others were drawn).
    reused: how many tokens of the conversation the last turn found in the cache.
  """

  def __init__(
    self,
    config: FrozenConfigDict,
    params: Any,
    chat_format: Any,
    sampling: Sampling,
    *,
    calculate: Callable[[str], str],
    max_new_tokens: int,
    seed: int = 0,
    system: str = '',
  ):
    """Creates an empty conversation.

    Args:
      config: the model's; its max_len is how many tokens a conversation may have.
      sampling: how the one row draws. Bans are added here: tags of tool results, and ids that are
        no token, are never drawn.
      chat_format: how turns are written as tokens (`data.chat.chat_formats.Format`).
      calculate: what answers the calls of the calculator: an expression to its value, as text.
      max_new_tokens: longest reply, tool results not counted; at least 1.
      system: text of a system turn, '' for none.
    """
    if max_new_tokens < 1:
      raise UserError(f'max_new_tokens is {max_new_tokens}; it must be at least 1')
    self.config, self.params, self.chat_format = config, params, chat_format
    self._calculate = calculate
    banned_ids = chat_format.banned_ids(config.vocab_size)
    self._sampling = dataclasses.replace(sampling, banned_ids=(*sampling.banned_ids, *banned_ids))
    self._max_new_tokens, self._system = max_new_tokens, system
    self._key = keys.derive(seed, 'chat')
    self.engine = Engine(config, params, rows=1, capacity=config.max_len, steps=DRAW)
    self.reset()

  def reset(self) -> None:
    """Forgets the conversation; the next one draws other random numbers."""
    self._key, key = jax.random.split(self._key)
    self._seed = np.asarray(jax.random.key_data(key))
    self.ids: list[int] = []
    self.fed = self.reused = 0

  def reply(self, text: str) -> Iterator[tuple[str, bool]]:
    """Adds a user turn and yields the reply as it is drawn.

    It yields pieces (text, aside) of `Pieces`, some of them empty. The iterator may be abandoned at
    any piece: the conversation continues after what was drawn by then.

    Raises:
      UserError: the context is full, before `text` was read or in the middle of the reply.
    """
    turn = self._turn(text)
    if len(self.ids) + len(turn) >= self.config.max_len:
      raise self._full(f'{len(turn)} more tokens do not fit behind {len(self.ids)}')
    self.ids += turn
    self.fed += len(turn)
    handle = self.engine.submit(
      Request(
        list(self.ids),
        self._max_new_tokens,
        self._sampling,
        seed=self._seed,
        stop_ids=self.chat_format.stops,
        pause_ids=self.chat_format.call_ids,
        tool=lambda ids: self.chat_format.answer_call(ids, self._calculate),
      )
    )
    pieces = Pieces(self.chat_format)
    for piece in self.engine.stream(handle):
      self.ids += piece.tokens
      self.fed += 0 if piece.sampled else len(piece.tokens)
      self.reused = handle.completion.reused
      yield from pieces(piece.tokens)
    end = handle.completion.end
    if end == 'full':
      raise self._full('the reply is cut off')
    if end == 'length':
      yield pieces.end()
      yield f' [stopped after {self._max_new_tokens} tokens]', True

  def _turn(self, text: str) -> list[int]:
    """Returns the tokens from the end of the conversation up to where the reply begins.

    They are the user's turn, behind whatever the conversation still lacks.
    """
    if self.ids:
      return self.chat_format.render_next(text, stopped=self.ids[-1] in self.chat_format.stops)
    system = [{'role': 'system', 'content': self._system}] * bool(self._system)
    return self.chat_format.render_prompt([*system, {'role': 'user', 'content': text}])

  def _full(self, what: str) -> UserError:
    return UserError(
      f'the context of {self.config.max_len} tokens is full: {what}; /reset begins a new '
      'conversation'
    )


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
  """Yields a function that says whether Ctrl-C was pressed.

  An exception instead could lose a cache that is being passed on.
  """
  pressed = threading.Event()
  before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
  try:
    yield pressed.is_set
  finally:
    signal.signal(signal.SIGINT, before)


def show(text: str, aside: bool) -> None:
  """Prints a piece of text, dimmed on a terminal if it is an aside.

  Control characters are replaced, because they could steer the terminal.
  """
  text = text.translate(CONTROLS)
  print(
    f'\033[2m{text}\033[0m' if aside and text and sys.stdout.isatty() else text, end='', flush=True
  )


def note(text: object) -> None:
  """Prints a line that is not part of the model's reply."""
  show(f'[{text}]\n', True)


def converse(session: Session, line: str) -> None:
  """Prints the reply to one line of input.

  Ctrl-C or a full context ends the reply.
  """
  with interrupts() as interrupted:
    try:
      for text, aside in session.reply(line):
        show(text, aside)
        if interrupted():
          show(' [stopped]', True)
          break
      print()
    except UserError as error:
      print()
      note(error)


def loop(session: Session) -> None:
  """Reads lines and commands until /exit or the end of the input."""
  prompt = '> ' if sys.stdin.isatty() else ''
  while True:
    try:
      line = input(prompt).strip()
    except EOFError:
      return
    except KeyboardInterrupt:
      print()
      note('/exit or Ctrl-D leaves')
      continue
    if line == '/exit':
      return
    if line == '/help':
      print('\n'.join(f'{name:8} {meaning}' for name, meaning in COMMANDS.items()))
    elif line == '/reset':
      session.reset()
      note('a new conversation')
    elif line.startswith('/'):
      note(errors.unknown('command', line.split()[0], COMMANDS))
    elif line:
      converse(session, line)
