"""Shows conversations as a model learns them: python -m data.chat show FILE --tokenizer=SPEC

What the system and the user wrote is blue, as are the headers of the chat template. What the model
learns is green: the assistant's text, thoughts, tool calls and stop tokens. Results of tools are
yellow. FILE may have any form that `python -m data.conversations --input` reads.
"""

import argparse
import itertools
from collections.abc import Sequence

from data.chat import chat_formats
from data.chat.token_kinds import show
from data.records import jsonl
from data.tasks import demonstrations
from data.tokenizers import loading
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(
    prog='python -m data.chat',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('command', choices=['show'], help='the only command')
  parser.add_argument('file', help='JSONL, JSON or Parquet file of conversations')
  parser.add_argument('--tokenizer', required=True, help=loading.SPEC)
  parser.add_argument(
    '--chat-format',
    default='auto',
    help="the tokenizer's own (auto), a name or a .jinja file (%(default)s)",
  )
  parser.add_argument(
    '--count', type=int, default=5, help='number of conversations to show (%(default)s)'
  )
  parser.add_argument(
    '--first', type=int, default=0, help='index of the first one to show (%(default)s)'
  )
  args = parser.parse_args(argv)
  chat_format = chat_formats.load(args.tokenizer, args.chat_format, extend=True)
  skipped, shown = jsonl.Skipped(), 0
  found = demonstrations.read(args.file, skipped)
  for conversation in itertools.islice(found, args.first, args.first + args.count):
    print(show(chat_format, conversation), end='\n\n')
    shown += 1
  if not shown:
    raise skipped.nothing_left(f'conversation number {args.first} in {args.file}')
  skipped.report()


if __name__ == '__main__':
  errors.run(main)
