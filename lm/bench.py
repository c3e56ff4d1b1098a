"""Times the training step on random tokens: python -m lm.bench train --json [--layers=6 ...]

It times the step that train.py compiles (`lm.train.train_step.make_train_step` with the loss of
lm/stages/pretrain.py), one update at a time, waiting for each. The default shape is GPT-2's at a
sixth of its size: learned positions, LayerNorm, biases, GELU, a tied head.

--beside=transformers also times transformers' GPT-2 of that shape, as it ships (dropout 0.1,
torch's AdamW), under torch.compile in the interpreter of --beside-python, on the same cores. The
two take turns, one update each, so that a load from elsewhere affects both.
--beside=transformers-tuned removes the dropout and fuses AdamW.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from lm.base import errors
from lm.base.errors import UserError
from lm.cost import step_time

# The numbers of the shape, with their defaults.
NUMBERS = {
  'layers': 6,
  'width': 384,
  'heads': 6,
  'vocab': 4096,
  'seq-len': 256,
  'batch': 16,
  'chunk': 1024,
  'steps': 10,
}


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  argv = sys.argv[1:] if argv is None else argv
  parser = argparse.ArgumentParser(
    prog='python -m lm.bench', description='Times the training step on random tokens.'
  )
  parser.add_argument('command', choices=['train'], help='which step to time')
  parser.add_argument('--json', action='store_true', help='print one line of JSON')
  for name, default in NUMBERS.items():
    parser.add_argument(f'--{name}', type=int, default=default, help=f'default {default}')
  parser.add_argument(
    '--optimizer', choices=['adamw', 'muon'], default='adamw', help='default adamw'
  )
  parser.add_argument(
    '--dtype',
    choices=['float32', 'bfloat16'],
    default='float32',
    help='the type of activations (default float32)',
  )
  parser.add_argument(
    '--remat',
    choices=['none', 'full', 'dots'],
    default='none',
    help='which activations the backward pass recomputes (default none)',
  )
  parser.add_argument(
    '--scan-layers',
    action='store_true',
    help='loop over one compiled layer instead of unrolling all',
  )
  parser.add_argument(
    '--beside',
    choices=['transformers', 'transformers-tuned'],
    help='a second system to time, by turns with ours',
  )
  parser.add_argument(
    '--beside-python',
    default=sys.executable,
    help='the interpreter in which transformers is installed',
  )
  # A worker is this command with --system.
  parser.add_argument('--system', choices=step_time.SYSTEMS, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.width % args.heads:
    raise UserError(
      field='--heads', value=args.heads, allowed=f'a divisor of --width, {args.width}'
    )
  if args.system:
    return step_time.work(args)
  result = step_time.compare(args, argv[1:])
  if args.json:
    print(json.dumps(result))
  else:
    for name, value in result.items():
      print(f'{name:18} {value}')


if __name__ == '__main__':
  errors.run(main)
