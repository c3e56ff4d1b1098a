"""Finds what a model behind an OpenAI-compatible endpoint knows, or has it write questions.

  python -m data.probe write --documents='clean/*.jsonl' --endpoint=URL --model=M --out=asked.jsonl
  python -m data.probe ask --tasks=written --questions=asked.jsonl --endpoint=URL --model=M
    --out=probe.json

`ask` samples several answers to each question and grades them. The task `probed` makes
conversations of the result (--config.data.probe=probe.json): the model keeps what it knew, and
refuses what it answered wrongly. `train.py` and `eval.py` do the same with --config.eval.probe.
`python -m lm.serve` serves a checkpoint at http://127.0.0.1:8000/v1.
"""

import argparse
import os
from collections import Counter
from collections.abc import Sequence

from data import tasks
from data.probing import asking, writing
from data.probing.endpoint import Endpoint
from data.records import jsonl
from lm.base import config as config_lib
from lm.base import errors, files


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(
    prog='python -m data.probe',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
  ask = commands.add_parser('ask', help='It asks the training problems of tasks.')
  write = commands.add_parser('write', help='It has the model write questions about documents.')
  for command in (ask, write):
    command.add_argument('--endpoint', required=True, help='address, such as http://HOST:PORT/v1')
    command.add_argument('--model', required=True, help='name of the model there')
    command.add_argument('--out', required=True, help='file to write')
  ask.add_argument('--tasks', required=True, help=f'NAME,...: {", ".join(tasks.TASKS)}')
  tasks.add_flags(ask)
  ask.add_argument('--examples', type=int, default=200, help='problems of a task (%(default)s)')
  ask.add_argument('--samples', type=int, default=5, help='answers to a problem (%(default)s)')
  ask.add_argument('--temperature', type=float, default=1.0, help='of the draws (%(default)s)')
  ask.add_argument('--max-tokens', type=int, default=64, help='longest answer (%(default)s)')
  ask.add_argument('--seed', type=int, default=0, help='seed of the problems (%(default)s)')
  write.add_argument('--documents', default='', help='JSONL or Parquet of clean documents')
  write.add_argument('--snippets', type=int, default=100, help='documents to read (%(default)s)')
  write.add_argument('--count', type=int, default=3, help='questions about each (%(default)s)')
  args = parser.parse_args(argv)
  for field in ('examples', 'samples', 'max_tokens', 'snippets', 'count'):
    if getattr(args, field, 1) < 1:  # each command has some of them
      flag = f'--{field.replace("_", "-")}'
      raise errors.UserError(field=flag, value=getattr(args, field), allowed='at least 1')
  endpoint = Endpoint(args.endpoint, args.model, os.environ.get('OPENAI_API_KEY', ''))
  if args.command == 'write':
    made = writing.write(endpoint, args.documents, snippets=args.snippets, count=args.count)
    print(f'{jsonl.write(args.out, made)} questions in {args.out}')
    return
  asked = tasks.from_flags(args, config_lib.names(args.tasks))
  skipped = jsonl.Skipped()
  rows = asking.probe(
    endpoint,
    asked,
    examples=args.examples,
    samples=args.samples,
    temperature=args.temperature,
    max_tokens=args.max_tokens,
    skipped=skipped,
  )
  files.write_json(args.out, {'probe': rows})
  skipped.report()
  counts = Counter(verdict for row in rows for verdict in row['verdicts'])
  print(', '.join(f'{name}: {counts[name] / counts.total():.1%}' for name in sorted(counts)))


if __name__ == '__main__':
  errors.run(main)
