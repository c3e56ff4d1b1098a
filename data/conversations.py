"""Writes conversations for fine-tuning as JSONL: from tasks, from files, or from both.

  python -m data.conversations --tasks=identity,arithmetic:3 --examples=N --out=FILE.jsonl

Each line of the result is {"messages": [...], "task": "NAME,..."}: the task of each question, or
the name of the file that the conversation is from. data/chat/chat_formats.py says what a message
is, and data/tasks/conversation_rows.py which public forms --input accepts.
"""

import argparse
from collections.abc import Sequence

from data import tasks
from data.tasks import conversation_rows, demonstrations
from data.tasks.protocol import SPLITS
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(
    prog='python -m data.conversations', description=__doc__.split('\n')[0]
  )
  parser.add_argument(
    '--tasks',
    default='',
    help=f'NAME or NAME:WEIGHT, separated by commas, of {", ".join(tasks.TASKS)}',
  )
  tasks.add_flags(parser)
  parser.add_argument(
    '--examples', type=int, default=10_000, help='number of demonstrations (%(default)s)'
  )
  parser.add_argument(
    '--turns',
    type=int,
    default=3,
    help='largest number of questions in one conversation (%(default)s)',
  )
  parser.add_argument(
    '--split', choices=SPLITS, default='train', help='split of the tasks to use (%(default)s)'
  )
  parser.add_argument(
    '--input',
    action='append',
    default=[],
    help='JSONL, JSON or Parquet file of conversations to add; repeatable. Forms: '
    + ', '.join(conversation_rows.FORMS),
  )
  parser.add_argument(
    '--calls',
    choices=conversation_rows.CALLS,
    default=conversation_rows.CALLS[0],
    help='what notes <<48/2=24>> of word problems of --input become: calls of the calculator, or '
    'nothing (%(default)s)',
  )
  parser.add_argument(
    '--seed', type=int, default=0, help='seed of the problems and their order (%(default)s)'
  )
  parser.add_argument('--out', required=True, help='JSONL file to write')
  args = parser.parse_args(argv)
  weights = demonstrations.weighted(args.tasks)
  made_by = tasks.from_flags(args, weights)
  counts = demonstrations.write(
    args.out,
    made_by,
    examples=args.examples,
    turns=args.turns,
    seed=args.seed,
    split=args.split,
    weights=weights,
    inputs=args.input,
    calls=args.calls,
  )
  for name, count in counts.items():
    print(f'{name}: {count}')


if __name__ == '__main__':
  errors.run(main)
