"""Makes, judges and compares comparisons of answers.

  python -m data.preferences pairs --tasks=identity --gold=style --noise=0.2 --out=pairs.jsonl
  python -m data.preferences judge --input=pairs.jsonl --endpoint=URL --model=M --out=judged.jsonl
  python -m data.preferences vote --input=pairs.jsonl --by=ann --out=ann.jsonl
  python -m data.preferences agreement ann.jsonl judged.jsonl

`pairs` writes {"prompt", "chosen", "rejected"} for train.py (configs/reward.py, configs/dpo.py), of
programs or of files in any form that data/preferences/comparison_rows.py reads. `judge` has a model
decide by a rubric, and `vote` a person, in the terminal. Both append each vote to their file, and
the same command again goes on with what is not judged there. `agreement` says how often they agree.
"""

import argparse
import itertools
import os
from collections.abc import Sequence

from data import tasks
from data.preferences import agreement, comparison_rows, gold, judging, rubric
from data.preferences.comparison_rows import Comparison, pair_row, vote_row
from data.probing.endpoint import Endpoint
from data.records import jsonl, rows
from lm.base import config as config_lib
from lm.base import errors, files


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(
    prog='python -m data.preferences',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
  pairs = commands.add_parser('pairs', help='It writes pairs that programs or files decide.')
  judge = commands.add_parser('judge', help='It has a model judge comparisons by a rubric.')
  vote = commands.add_parser('vote', help='It asks you to judge comparisons by a rubric.')
  agree = commands.add_parser('agreement', help='It says how often those who judge agree.')
  for command in (pairs, judge, vote):
    command.add_argument('--input', default='', help='JSONL, JSON or Parquet of comparisons')
    command.add_argument('--out', required=True, help='JSONL file; votes are appended to it')
  pairs.add_argument('--tasks', default='', help=f'NAME,...: {", ".join(tasks.TASKS)}')
  tasks.add_flags(pairs)
  pairs.add_argument('--gold', default='grade', help=f'{", ".join(gold.GOLD)} (%(default)s)')
  pairs.add_argument('--answers', type=int, default=2, help='answers to a problem (%(default)s)')
  pairs.add_argument('--noise', type=float, default=0.0, help='share of wrong labels (%(default)s)')
  pairs.add_argument('--examples', type=int, default=1000, help='problems (%(default)s)')
  pairs.add_argument('--seed', type=int, default=0, help='seed of the problems (%(default)s)')
  for command in (judge, vote):
    command.add_argument('--rubric', default=str(rubric.DEFAULT), help='YAML (%(default)s)')
  judge.add_argument('--endpoint', required=True, help='address, such as http://HOST:PORT/v1')
  judge.add_argument('--model', required=True, help='name of the model there')
  vote.add_argument('--by', required=True, help='your name, as it is written to the file')
  vote.add_argument(
    '--seed', type=int, default=0, help='seed of the order of answers (%(default)s)'
  )
  agree.add_argument('files', nargs='+', help='files of votes, one for each voter')
  args = parser.parse_args(argv)
  if args.command == 'agreement':
    for found in agreement.agreements({name: _read(name) for name in args.files}):
      print(' and '.join(found['voters']))
      for name in ('all', 'decided'):
        part = found[name]
        share = f'{part["share"]:.1%} [{part["low"]:.1%}, {part["high"]:.1%}] n={part["n"]}'
        print(f'  {"without ties" if name == "decided" else "all votes"}: {share}')
    return
  skipped = jsonl.Skipped()
  if args.command == 'pairs' and args.tasks:
    made_by = tasks.from_flags(args, config_lib.names(args.tasks))
    ranker = gold.Ranker(args.gold, args.answers, args.noise)
    made = gold.compare_all(ranker, made_by, args.examples, lambda found: found, skipped)
    compared = list(itertools.chain.from_iterable(made))
  elif args.input:
    compared = _read(args.input)
  else:
    raise errors.UserError(field='--input', value='', allowed='files of comparisons')
  if args.command == 'pairs':
    written = [pair_row(comparison) for comparison in compared if comparison.is_decided]
    print(f'{jsonl.write(args.out, written)} comparisons in {args.out}')
  else:
    rules, out = rubric.read(args.rubric), files.local_path(args.out, '--out')
    by = args.model if args.command == 'judge' else args.by
    left = judging.left(compared, out, by)
    if args.command == 'judge':
      endpoint = Endpoint(args.endpoint, args.model, os.environ.get('OPENAI_API_KEY', ''))
      votes = judging.judge(endpoint, rules, left, skipped)
    else:
      print(rules.text)
      votes = judging.ask(left, rules, args.seed, input)
    files.make_dir(out.parent)
    with out.open('a', encoding='utf-8') as file:
      for judged in votes:
        file.write(jsonl.line(vote_row(judged, by)))
        file.flush()  # A vote is kept whatever happens later.
  skipped.report()


def _read(inputs: str) -> list[Comparison]:
  found = rows.read_all(inputs, comparison_rows.comparisons, 'comparison')
  return list(itertools.chain.from_iterable(found))


if __name__ == '__main__':
  errors.run(main)
