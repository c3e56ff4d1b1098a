"""Shows the answers that a run of RL sampled: python -m lm.rollouts RUN [--step=N] [--diff]

Without --diff it prints the answers of one step, the last by default, those of the highest reward
first. With --diff it prints, for each prompt that was asked at several steps, how its best answer
changed from the first of them to the last.
"""

import argparse
import collections
import difflib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from lm.base import errors, files, metrics
from lm.base.errors import UserError

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(prog='python -m lm.rollouts', description=__doc__)
  parser.add_argument('run', metavar='RUN', help="the run's folder, or its URL in a bucket")
  parser.add_argument('--step', type=int, help='the step to show (default: the last)')
  parser.add_argument('--lowest', action='store_true', help='begin with the lowest reward')
  parser.add_argument('--contains', default='', help='only prompts and answers with this text')
  parser.add_argument('--limit', type=int, default=20, help='most entries to show (default 20)')
  parser.add_argument('--diff', action='store_true', help='the changes of prompts over steps')
  parser.add_argument('--json', action='store_true', help='print the answers as lines of JSON')
  args = parser.parse_args(argv)
  rows = metrics.rollouts(files.as_path(args.run))
  if not rows:
    raise UserError(
      field='RUN', value=args.run, allowed='a run of RL with config.rl.rollouts_every above 0'
    )
  rows = [row for row in rows if args.contains in row['prompt'] + row['answer']]
  entries = changes(rows) if args.diff else ranked(rows, args.step, args.lowest)
  shown = 0
  for entry in entries:
    if shown == args.limit:
      break
    print(json.dumps(entry) if args.json else entry if args.diff else describe(entry))
    shown += 1
  if not shown:
    print('no such answers', file=sys.stderr)


def ranked(rows: Sequence[Row], step: int | None, lowest: bool) -> list[Row]:
  """Returns the answers of a step, the last where it is None, sorted by reward.

  Raises:
    UserError: no answers of that step are kept.
  """
  steps = sorted({row['step'] for row in rows})
  if step is not None and step not in steps:
    raise UserError(field='--step', value=step, allowed=steps)
  last = steps[-1] if steps and step is None else step
  of_step = [row for row in rows if row['step'] == last]
  return sorted(of_step, key=lambda row: row['reward'], reverse=not lowest)


def changes(rows: Sequence[Row]) -> Iterator[str]:
  """Yields, for each prompt of several steps, the changes of its best answer as a unified diff."""
  by_prompt: dict[str, list[Row]] = collections.defaultdict(list)
  for row in rows:
    by_prompt[row['prompt']].append(row)
  for prompt, asked in by_prompt.items():
    first, last = asked[0]['step'], asked[-1]['step']
    if first < last:
      best = [
        max((row for row in asked if row['step'] == step), key=lambda row: row['reward'])
        for step in (first, last)
      ]
      names = [f'step {row["step"]}, reward {row["reward"]:g}' for row in best]
      texts = [row['answer'].splitlines() for row in best]
      yield '\n'.join([prompt, *difflib.unified_diff(*texts, *names, lineterm=''), ''])


def describe(row: Row) -> str:
  """Returns an answer as people read it."""
  right = 'right' if row['right'] else 'wrong'
  return (
    f'--- step {row["step"]}, question {row["number"]}: reward {row["reward"]:g}, {right}, '
    f'{row["tokens"]} tokens, end {row["end"]}\n{row["prompt"]}\n>>> {row["answer"]}\n'
  )


if __name__ == '__main__':
  errors.run(main)
