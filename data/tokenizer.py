"""Shows how a tokenizer splits a text: `python -m data.tokenizer show --tokenizer=SPEC "text"`.

`--merges` also shows how each token was merged. data/tokenizers/loading.py lists what SPEC can be.
"""

import argparse
from collections.abc import Sequence

from data.tokenizers import loading
from data.tokenizers.show import show
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(
    prog='python -m data.tokenizer', description='Shows how a tokenizer splits a text.'
  )
  parser.add_argument('command', choices=['show'], help='the only command')
  parser.add_argument('text', help='text to split')
  parser.add_argument('--tokenizer', required=True, help=loading.SPEC)
  parser.add_argument(
    '--merges', action='store_true', help='also show the merge steps of each token'
  )
  args = parser.parse_args(argv)
  print(show(loading.load(args.tokenizer), args.text, args.merges))


if __name__ == '__main__':
  errors.run(main)
