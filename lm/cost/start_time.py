"""Times the start of commands: until they print their help, name an error, or have made a step.

Each is a process of its own. The first step is that of `python -m lm.bench train`, once with an
empty cache of compiled programs and once with what that run left there, as a user's second run has
it (lm/parallel/compilation.py).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from lm.base.errors import UserError
from lm.cost.workers import FromData

# What is started, and the exit status that it must have.
PRETRAIN = ['train.py', '--config=configs/pretrain.py']
COMMANDS = {
  'help of train.py': (['train.py', '--help'], 0),
  'help of lm.chat': (['-m', 'lm.chat', '--help'], 0),
  'help of data.tokenize': (['-m', 'data.tokenize', '--help'], 0),
  'error: a field that does not exist': ([*PRETRAIN, '--config.no_such_field=1'], 1),
  'error: a stage that does not exist': ([*PRETRAIN, '--config.stage=none'], 1),
}
FIRST_STEP = ('-m', 'lm.bench', 'train', '--steps=1', '--json')


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of the command."""
  parser.add_argument('--rounds', type=int, default=3, help='starts of each (default 3)')


def _seconds(argv: list[str], status: int) -> tuple[float, str]:
  """Returns how long a process took from its start to its end, and its output."""
  start = time.perf_counter()
  done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=False)
  took = time.perf_counter() - start
  if done.returncode != status:
    raise UserError(
      field=f'exit status of python {" ".join(argv)}',
      value=done.returncode,
      allowed=str(status),
      message=done.stderr.strip()[-500:],
    )
  return took, done.stdout


def _figures(seconds: list[float]) -> dict[str, float]:
  return {'median': statistics.median(seconds), 'min': min(seconds), 'max': max(seconds)}


def results(
  args: argparse.Namespace, argv: list[str], from_data: FromData
) -> Iterator[dict[str, Any]]:
  """Yields the seconds of each start."""
  del argv, from_data  # There are no workers, and the first step reads random tokens.
  with tempfile.TemporaryDirectory() as folder:
    for what, (command, status) in COMMANDS.items():
      where = [f'--workdir={folder}/run'] if status else []
      seconds = [_seconds([*command, *where], status)[0] for _ in range(args.rounds)]
      yield {'start': what, 'seconds': _figures(seconds), 'rounds': args.rounds}
  cold, cached = [], []
  for _ in range(args.rounds):
    with tempfile.TemporaryDirectory() as folder:
      for seconds in (cold, cached):
        seconds.append(
          json.loads(_seconds([*FIRST_STEP, f'--cache={folder}'], 0)[1])['first_step_s']
        )
  for what, seconds in (('first step, cold', cold), ('first step, compiled before', cached)):
    yield {'start': what, 'seconds': _figures(seconds), 'rounds': args.rounds}
