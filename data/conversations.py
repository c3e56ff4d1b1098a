"""Conversations to fine-tune on, as JSONL: made by tasks, read from files in the public formats, or
both.

  python -m data.conversations --tasks=identity,arithmetic:3 --documents=FILE --examples=N --seed=S
  --out=FILE.jsonl

Each line of the result is {"messages": [...], "task": "NAME,..."}, a name for each question, or the
name of the file that the conversation is from; `data.chat.chat_formats` says what a message is.
"""

import argparse
from collections.abc import Sequence

from data import tasks
from data.tasks import demonstrations
from data.tasks.protocol import SPLITS
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog='python -m data.conversations', description=__doc__.split('\n')[0]
  )
  parser.add_argument(
    '--tasks', default='', help=f'comma-separated NAME or NAME:WEIGHT of {", ".join(tasks.TASKS)}'
  )
  parser.add_argument(
    '--documents', default='', help='JSONL of cleaned documents, for tasks about them'
  )
  parser.add_argument(
    '--held-out',
    type=float,
    default=0.05,
    help='share of the documents that data.tokenize held out',
  )
  parser.add_argument(
    '--gsm8k', default='', help='JSONL of word problems (question, answer), for the task gsm8k'
  )
  parser.add_argument('--examples', type=int, default=10_000, help='demonstrations of the tasks')
  parser.add_argument('--turns', type=int, default=3, help='most questions in one conversation')
  parser.add_argument(
    '--split', choices=SPLITS, default='train', help='of the problems that are demonstrated'
  )
  parser.add_argument(
    '--input', action='append', default=[], help='JSONL of conversations to add; may be repeated'
  )
  parser.add_argument('--seed', type=int, default=0, help='of the problems and their order (0)')
  parser.add_argument('--out', required=True, help='the JSONL to write')
  args = parser.parse_args(argv)
  weights = demonstrations.weighted(args.tasks)
  made_by = tasks.make(
    weights, seed=args.seed, documents=args.documents, held_out=args.held_out, gsm8k=args.gsm8k
  )
  counts = demonstrations.write(
    args.out,
    made_by,
    examples=args.examples,
    turns=args.turns,
    seed=args.seed,
    split=args.split,
    weights=weights,
    inputs=args.input,
  )
  for name, count in counts.items():
    print(f'{name}: {count}')


if __name__ == '__main__':
  errors.run(main)
