"""Command line of the cleaning stage."""

import argparse

from data.web.clean import clean
from data.web.extract import EXTRACTORS
from lm import errors


def main() -> None:
  parser = argparse.ArgumentParser(prog='python -m data.web', description='WARC files to clean documents.')
  parser.add_argument('--input', required=True, help='folder with WARC files, or a glob')
  parser.add_argument('--out', required=True, help='folder for documents.jsonl and report.json')
  parser.add_argument('--extractor', choices=EXTRACTORS, default=EXTRACTORS[0])
  parser.add_argument('--passage-lines', type=int, default=0, help='cut runs of this many repeated lines (0: none)')
  flags = parser.parse_args()
  report = clean(flags.input, flags.out, extractor=flags.extractor, passage_lines=flags.passage_lines)
  print(table(report))


def table(report: dict) -> str:
  """The report's drops as a table of text."""
  rows = [('pages in', report['pages_in'])]
  rows += [(f'  dropped by {rule}', n) for rule, n in sorted(report['drops'].items(), key=lambda item: -item[1])]
  rows += [('pages out', report['pages_out']), ('bytes in', report['bytes_in']), ('bytes out', report['bytes_out'])]
  return '\n'.join(f'{name:40}{n:>14,}' for name, n in rows)


if __name__ == '__main__':
  errors.run(main)
