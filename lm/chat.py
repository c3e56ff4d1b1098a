"""Terminal chat: python -m lm.chat --checkpoint=runs/quickstart [--temperature=0.7 --system="..."]

The key/value cache is kept between turns: a turn feeds its own tokens only. Ctrl-C stops a reply, not the program; lines
may also be piped in.
"""

import argparse
import codecs
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from configs import base
from data import chat, tools
from data import tokenizer as tokenizer_lib
from lm import checkpoint, errors, pretrained, sample, sharding
from lm.errors import UserError

COMMANDS = {'/help': 'shows this', '/reset': 'forgets the conversation', '/exit': 'leaves (so does Ctrl-D)'}
MAX_CALLS = 4  # tool calls in one reply


class ContextFull(UserError):
  """What was to be fed does not fit behind what the cache holds."""


class Session:
  """One row of generation that goes on: what was fed or drawn stays in the cache.

  Attributes:
    state: the `lm.sample.State` of a batch of one.
    length: tokens held.
    fed: tokens that went through `feed` since the start, for measurement.
  """

  def __init__(self, config: FrozenConfigDict, params: Any, sampling: sample.Sampling, capacity: int, seed: int = 0):
    self.config, self.params, self.sampling, self.capacity = config, params, sampling, capacity
    self._key, self._never = jax.random.key(seed), np.zeros(config.vocab_size, bool)
    self.fed = self._resets = 0
    self.reset()

  def reset(self) -> None:
    """Forgets everything."""
    self.state, self.length = sample.start(self.config, 1, self.capacity), 0
    self._keys_B = jax.random.fold_in(self._key, self._resets)[None]
    self._resets += 1

  def feed(self, ids: Sequence[int]) -> None:
    """Appends tokens. Raises ContextFull, with nothing appended, if they leave no room for one more."""
    if self.length + len(ids) >= self.capacity:
      raise ContextFull(f'the context is full: {self.length} of {self.capacity} tokens are taken, {len(ids)} more came')
    for first in range(0, len(ids), 128):  # few shapes, so few compilations
      tokens_BT, num_B = sample.pad_tokens([ids[first:first + 128]], 32)
      self.state = sample.prefill(self.config, self.params, self.state, tokens_BT, num_B)
    self.length += len(ids)
    self.fed += len(ids)

  def draw(self) -> int:
    """Draws and appends the next token. The context must not be full."""
    self.state, out = sample.decode(self.config, self.sampling, 1, self.params, self.state, np.ones(1, np.int32),
                                    self._never, self._keys_B)
    self.length += 1
    return int(out.tokens_BM[0, 0])

  def stream(self, max_new_tokens: int, stop_ids: Collection[int], pause_ids: Collection[int] = (),
             tool: Callable[[list[int]], list[int]] = lambda ids: []) -> Iterator[int]:
    """Yields the tokens of a reply as they come, the stop token and what the tool forces in included.

    It ends after a stop token, `max_new_tokens` draws, at a full context, or at a call that gets no answer (too many
    calls, or no room for the result). `tool` gets the reply so far, whose last token is in `pause_ids`.
    """
    reply, calls = [], 0
    for _ in range(max_new_tokens):
      if self.length >= self.capacity:
        return
      token = self.draw()
      reply.append(token)
      yield token
      if token in stop_ids:
        return
      if token in pause_ids:
        forced = tool(reply) if calls < MAX_CALLS else []
        if not forced or self.length + len(forced) >= self.capacity:
          return
        calls += 1
        self.feed(forced)
        reply += forced
        yield from forced


class Chat:
  """A conversation in the template of data/chat.py over a Session."""

  def __init__(self, session: Session, tokenizer: Any, system: str = ''):
    self.session, self._tokenizer, self._system = session, tokenizer, system
    self._end = chat.token_id(tokenizer, chat.END)
    self._bos = chat.token_id(tokenizer, chat.BOS)
    self._pause = chat.token_id(tokenizer, chat.TAGS['python'][1])
    self.reset()

  def reset(self) -> None:
    """Forgets the conversation; the system prompt will be said again."""
    self.session.reset()
    self._owed = [self._bos]  # to be fed before the next turn
    if self._system:
      self._owed += chat.render_turn(self._tokenizer, {'role': 'system', 'content': self._system})[0]

  def say(self, text: str, max_new_tokens: int, stopped: Callable[[], bool] = lambda: False) -> Iterator[int]:
    """Feeds a user's turn and yields the tokens of the reply. `stopped` is asked after each; the turn is then closed.

    Raises:
      ContextFull: the turn does not fit; nothing was fed.
    """
    turn, _ = chat.render_turn(self._tokenizer, {'role': 'user', 'content': text})
    self.session.feed([*self._owed, *turn, chat.token_id(self._tokenizer, chat.HEADERS['assistant'])])
    self._owed = [self._end]
    answer = lambda ids: chat.answer_call(self._tokenizer, ids, tools.calculate)  # noqa: E731
    for token in self.session.stream(max_new_tokens, {self._end, self._bos}, {self._pause}, answer):
      if token == self._end:
        self._owed = []
      yield token
      if stopped():
        return


class Printer:
  """Writes tokens as they come: whole characters only, tool calls as [python: 3*4 -> 12], dimmed on a terminal."""

  def __init__(self, tokenizer: Any, write: Callable[[str], Any], colour: bool):
    self._tokenizer, self._write = tokenizer, write
    self._names = {i: name for name, i in tokenizer.special_tokens.items()}
    self._decoder = codecs.getincrementaldecoder('utf-8')('replace')
    dim, plain = ('\x1b[2m', '\x1b[0m') if colour else ('', '')
    self._marks = {f'<|{kind}|>': f'{dim}[{kind}: ' for kind in ('python', 'think')}
    self._marks |= {'<|output|>': ' -> ', '<|/output|>': f']{plain}', '<|/think|>': f']{plain}'}
    self._plain = plain

  def token(self, index: int) -> None:
    """Writes what this token completes."""
    if index in self._names:
      self._write(self._decoder.decode(b'', final=True) + self._marks.get(self._names[index], ''))
      self._decoder.reset()
    else:
      self._write(self._decoder.decode(self._tokenizer.token_bytes(index)))

  def end(self) -> None:
    """Writes what is left of a reply, and ends the line."""
    self._write(self._decoder.decode(b'', final=True) + self._plain + '\n')
    self._decoder.reset()


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
  """Yields a function that tells whether Ctrl-C was pressed in the block, where it does nothing else."""
  pressed = threading.Event()
  before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
  try:
    yield pressed.is_set
  finally:
    signal.signal(signal.SIGINT, before)


def talk(conversation: Chat, printer: Printer, max_new_tokens: int, tty: bool) -> None:
  """Reads lines and answers them until the end of input or /exit."""
  while True:
    try:
      line = input('> ' if tty else '').strip()
    except EOFError:
      return
    except KeyboardInterrupt:
      print('\n(/exit or Ctrl-D leaves)')
      continue
    if line == '/exit':
      return
    if line == '/reset':
      conversation.reset()
      print('(a new conversation)')
    elif line == '/help':
      print('\n'.join(f'{name:8} {meaning}' for name, meaning in COMMANDS.items()))
    elif line.startswith('/'):
      print(errors.unknown('command', line, COMMANDS))
    elif line:
      answer(conversation, printer, line, max_new_tokens)


def answer(conversation: Chat, printer: Printer, line: str, max_new_tokens: int) -> None:
  """Prints the reply to one line, or that there is no room for it."""
  session = conversation.session
  try:
    with interruptible() as stopped:
      for token in conversation.say(line, max_new_tokens, stopped):
        printer.token(token)
    printer.end()
    if session.length >= session.capacity:
      print(f'(the context is full: {session.capacity} tokens; /reset starts a new conversation)')
  except ContextFull as error:
    print(f'({error}; /reset starts a new conversation)')


def main() -> None:
  parser = argparse.ArgumentParser(prog='python -m lm.chat', description='Chat with a checkpoint.')
  parser.add_argument('--checkpoint', required=True, help='a recipe, run or step folder')
  parser.add_argument('--system', default='', help='a system prompt')
  parser.add_argument('--temperature', type=float, default=0.7, help='0 takes the likeliest token (default 0.7)')
  parser.add_argument('--top-k', type=int, default=0, help='draw from the k likeliest tokens only (0: from all)')
  parser.add_argument('--top-p', type=float, default=1.0, help='draw from the likeliest tokens of this total probability')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--max-new-tokens', type=int, default=256, help='longest reply (default 256)')
  args = parser.parse_args()
  c = base.get_config()
  mesh = sharding.make_mesh(c.mesh, jax.devices()[:1])
  found = pretrained.load(args.checkpoint, c.model, c.model, mesh)
  tokenizer = tokenizer_lib.load(found.tokenizer, chat.SPECIAL_TOKENS)
  checkpoint.check_provenance(found.provenance, {'tokenizer': tokenizer.fingerprint})
  results = tuple(chat.token_id(tokenizer, tag) for tag in chat.TAGS['output'])
  sampling = sample.Sampling(args.temperature, args.top_k, args.top_p, banned_ids=results)
  session = Session(found.config, found.params, sampling, found.config.max_len, args.seed)
  tty = sys.stdin.isatty()
  if tty:
    with contextlib.suppress(ImportError):
      import readline  # noqa: F401 (gives input() its editing keys and history)
    print(f'{found.run}, step {found.step}; {session.capacity} tokens of context; /help lists the commands')
  printer = Printer(tokenizer, lambda text: print(text, end='', flush=True), sys.stdout.isatty())
  talk(Chat(session, tokenizer, args.system), printer, args.max_new_tokens, tty)


if __name__ == '__main__':
  errors.run(main)
