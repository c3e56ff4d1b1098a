"""The loop of `lm.chat`: reads lines and commands, and prints replies as they come."""

import contextlib
import dataclasses
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from lm.base import errors
from lm.base.choices import THINKING
from lm.base.errors import UserError
from lm.serve.chat_session import Session

BLOCK = '"""'  # a line that begins and ends a message of several lines
COMMANDS = {
  '/help': 'this list',
  '/reset': 'forget the conversation and begin anew',
  '/system TEXT': 'begin anew with this system turn; without TEXT, with none',
  '/save FILE': 'write the conversation to a new file, as a line of JSON',
  '/temperature X': 'draw at this temperature; 0 takes the most probable token',
  '/thinking MODE': f'how thoughts are shown: {", ".join(THINKING)}',
  '/thought': 'show the last thought',
  '/base TEXT': 'continue TEXT as a document, outside the conversation',
  '/exit': 'leave (or Ctrl-D)',
}
MULTILINE = f'A line that ends with \\ goes on in the next one; {BLOCK} begins and ends a block.'
CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], '\N{REPLACEMENT CHARACTER}')


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
  """Yields a function that says whether Ctrl-C was pressed.

  An exception instead could come in the middle of a step of the engine.
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


def converse(reply: Iterator[tuple[str, bool]]) -> None:
  """Prints a reply. Ctrl-C or a full context ends it."""
  with interrupts() as interrupted, contextlib.closing(reply):
    try:
      for text, aside in reply:
        show(text, aside)
        if interrupted():
          show(' [stopped]', True)
          break
      print()
    except UserError as error:
      print()
      note(error)


def loop(session: Session) -> None:
  """Reads messages and commands until /exit or the end of the input."""
  while True:
    prompt = f'{session.gauge()} > ' if sys.stdin.isatty() else ''
    try:
      message = read_message(prompt)
    except EOFError:
      return
    except KeyboardInterrupt:
      print()
      note('/exit or Ctrl-D leaves')
      continue
    name, _, argument = message.partition(' ')
    if name == '/exit':
      return
    if message.startswith('/') and '\n' not in name:
      try:
        command(session, name, argument.strip())
      except (UserError, OSError) as error:
        note(error)
    elif message:
      converse(session.reply(message))


def read_message(prompt: str) -> str:
  """Returns the next message: a line, lines that end with a backslash, or a block.

  Raises:
    EOFError: the input has ended.
  """
  line = input(prompt)
  more = '. ' if prompt else ''
  if line.strip() == BLOCK:
    lines = []
    while (line := input(more)).strip() != BLOCK:
      lines.append(line)
    return '\n'.join(lines).strip()
  lines = [line]
  while lines[-1].endswith('\\'):
    lines[-1] = lines[-1][:-1]
    lines.append(input(more))
  return '\n'.join(lines).strip()


def command(session: Session, name: str, argument: str) -> None:
  """Runs a command.

  Raises:
    UserError: there is no such command, or its argument is not allowed.
    OSError: a file cannot be written.
  """
  if name == '/help':
    print('\n'.join(f'{name:16} {meaning}' for name, meaning in COMMANDS.items()))
    print(MULTILINE)
  elif name == '/reset':
    session.reset()
    note('a new conversation')
  elif name == '/system':
    session.system = argument
    session.reset()
    note('a new conversation, with this system turn' if argument else 'a new conversation')
  elif name == '/save':
    if not argument:
      raise UserError(field='/save', allowed='/save FILE')
    session.save(argument)
    note(f'wrote {argument}')
  elif name == '/temperature':
    try:
      temperature = float(argument)
    except ValueError:
      raise UserError(field='/temperature', value=argument, allowed='a number') from None
    session.sampling = dataclasses.replace(session.sampling, temperature=temperature)
    note(f'temperature {temperature:g}')
  elif name == '/thinking':
    if argument not in THINKING:
      raise errors.unknown('/thinking', argument, THINKING)
    session.thinking = argument
    note(f'thoughts: {argument}')
  elif name == '/thought':
    note(session.thought or 'there is no thought to show')
  elif name == '/base':
    if not argument:
      raise UserError(field='/base', allowed='/base TEXT')
    show(argument, True)
    converse(session.continue_document(argument))
  else:
    names = [known.partition(' ')[0] for known in COMMANDS]
    raise errors.unknown('command', name, names)
