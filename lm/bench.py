"""Speed of the training step: python -m lm.bench train --json [--layers=6 --width=384 ...]
[--beside=transformers]

It times the step that train.py jits (`lm.train.train_step.make_train_step` over
`lm.launch.recipes.pretrain.make_loss`) on random tokens, one update at a time, each run to its end. The
default shape is GPT-2's at a sixth of its size: learned positions, LayerNorm, biases, GELU, tied
head.

`--beside=transformers` times transformers' GPT-2 of that shape, as it ships (dropout 0.1, torch's
AdamW), under torch.compile in the interpreter --beside-python, on the same cores: one update of
ours, one of theirs, by turns, so that a load which comes and goes meets both.
`--beside=transformers-tuned` takes its dropout out and fuses its AdamW.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from lm.base import errors
from lm.base.errors import UserError
from lm.cost import step_time


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog='python -m lm.bench', description='Times the training step on random tokens.'
  )
  parser.add_argument('command', choices=['train'], help='the step to time')
  parser.add_argument('--json', action='store_true', help='print one line of JSON')
  for name, default in (
    ('layers', 6),
    ('width', 384),
    ('heads', 6),
    ('vocab', 4096),
    ('seq-len', 256),
    ('batch', 16),
    ('chunk', 1024),
    ('steps', 10),
  ):
    parser.add_argument(f'--{name}', type=int, default=default, help=f'default {default}')
  parser.add_argument(
    '--optimizer', choices=['adamw', 'muon'], default='adamw', help='default adamw'
  )
  parser.add_argument(
    '--dtype', choices=['float32', 'bfloat16'], default='float32', help='of activations'
  )
  parser.add_argument(
    '--remat',
    choices=['none', 'full', 'dots'],
    default='none',
    help='what the backward pass recomputes (default none)',
  )
  parser.add_argument(
    '--scan-layers', action='store_true', help='one compiled layer looped over, not all unrolled'
  )
  parser.add_argument(
    '--beside', choices=['transformers', 'transformers-tuned'], help='time this too, by turns'
  )
  parser.add_argument('--beside-python', default=sys.executable, help='an interpreter that has it')
  parser.add_argument(
    '--system', choices=step_time.SYSTEMS, help=argparse.SUPPRESS
  )  # this is a worker
  args = parser.parse_args(argv)
  if args.width % args.heads:
    raise UserError(f'--heads is {args.heads}; it must divide --width, {args.width}')
  if args.system:
    return step_time.work(args)
  result = step_time.compare(args, sys.argv[2:])
  if args.json:
    print(json.dumps(result))
  else:
    for name, value in result.items():
      print(f'{name:18} {value}')


if __name__ == '__main__':
  errors.run(main)
