"""Times the loader of training batches, as `python -m data.bench loader` does."""

import argparse
from collections.abc import Iterator
from typing import Any

from lm.cost.workers import FromData


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of the command."""
  lengths = 'tokens in a row, separated by commas (default 256,1024)'
  parser.add_argument('--seq-lens', default='256,1024', help=lengths)
  for name, default, what in (
    ('batch-tokens', 1 << 18, 'tokens in a batch'),
    ('steps', 100, 'batches of a measurement'),
    ('rounds', 3, 'measurements'),
  ):
    parser.add_argument(f'--{name}', type=int, default=default, help=f'{what} (default {default})')


def results(
  args: argparse.Namespace, argv: list[str], from_data: FromData
) -> Iterator[dict[str, Any]]:
  """Yields the tokens per second of each length and layout."""
  del argv  # There are no workers.
  return from_data.load(args)
