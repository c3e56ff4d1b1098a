"""Writes the report of configs/rejection.py: what each round of rejection sampling came to.

It reads report.json of the folders sample_1, sample_2, ... in the recipe's work folder, each of
which has the answers of the policy before that round.
"""

import pathlib
from typing import Any

from lm.base import files
from lm.base.document import Heading, Paragraph, Table
from lm.report import report_files


def write_report(workdir: files.Path) -> dict[str, Any]:
  """Writes report.json, report.md and report.html, and returns the first."""
  workdir = pathlib.Path(workdir)
  rounds, rows = [], []
  for number, path in enumerate(_reports(workdir)):
    measured = files.read_json(path)
    (ranking,) = measured['test']['rankings'].values()
    first, last = ranking['curve'][0], ranking['curve'][-1]
    rounds.append({'round': number, 'kept': measured['kept'], 'single': first, 'best': last})
    cells = [
      report_files.measured(*(point[f'{name}{end}'] for end in ('', '_low', '_high')))
      for point in (first, last)
      for name in ('proxy', 'gold')
    ]
    rows.append((str(number), *cells, str(measured['kept'])))
  report = {'rounds': rounds}
  best = f'best of {rounds[-1]["best"]["n"]}' if rounds else 'best'
  blocks = [
    Heading('deepdive: rejection sampling', 1),
    Paragraph(
      'Rewards of answers to test problems after each round, with 95 % intervals: of one answer, '
      'and of the best by the proxy. The best answers to other problems are what the next round '
      'is fine-tuned on.'
    ),
    Table(
      ('rounds', 'proxy', 'gold', f'proxy, {best}', f'gold, {best}', 'kept for the next'), rows
    ),
  ]
  report_files.write(workdir, 'deepdive: rejection sampling', blocks, report)
  return report


def _reports(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Returns the reports on samples in the order of the rounds."""
  found = workdir.glob('sample_*/report.json')
  return sorted(found, key=lambda path: int(path.parent.name.removeprefix('sample_')))
