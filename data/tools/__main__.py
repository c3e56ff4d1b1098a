"""Tries a tool that models may call: echo '2**10' | python -m data.tools calculator

The input is read from stdin: an expression for `calculator`, a program for `python`, words for
`search`, which needs an index of documents. `index` makes one:

  python -m data.tools index --input='clean/*.jsonl*' --out=index
  echo 'regular expressions' | python -m data.tools search --index=index
"""

import argparse
import sys
from collections.abc import Sequence

from data.tools import corpus_search, toolbox
from lm.base import errors


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  parser = argparse.ArgumentParser(
    prog='python -m data.tools',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for name, tool in toolbox.TOOLS.items():
    about = tool.about.replace('%', '%%')  # argparse formats what it prints
    command = commands.add_parser(name, help=about, description=about)
    if name == 'search':
      command.add_argument('--index', required=True, help='folder that `index` wrote')
  command = commands.add_parser('index', help='It writes the index that `search` reads.')
  command.add_argument(
    '--input', required=True, help='documents, as data.web writes them: files or globs'
  )
  command.add_argument('--out', required=True, help='folder for the index')
  args = parser.parse_args(argv)
  if args.command == 'index':
    print(f'{corpus_search.build(args.input, args.out):,} passages in {args.out}')
    return
  tools = toolbox.open_tools([args.command], index=getattr(args, 'index', ''))
  print(tools(toolbox.write_call(args.command, sys.stdin.read())))


if __name__ == '__main__':
  errors.run(main)
