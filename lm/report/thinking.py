"""Writes the report of configs/thinking.py: what tokens to think and a tool are worth.

It reads report.json of the run sft in the recipe's work folder.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from lm.base import files, plots
from lm.base.document import Heading, Paragraph, Picture, Table
from lm.report import report_files

WAYS = {  # how an answer is given, and the task that measures it
  'at once': 'at_once',
  'in steps': 'in_steps',
  'with Python': 'with_python',
}

# {way: {limit on the tokens of an answer: {group of problems: summary of scores}}}
Within = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]


def write_report(workdir: files.Path) -> dict[str, Any]:
  """Writes report.json, report.md (with report_plots/) and report.html, and returns the first.

  Raises:
    FileNotFoundError: a report that it is made from is missing.
  """
  workdir = pathlib.Path(workdir)
  scores = files.read_json(workdir / 'sft' / 'report.json')['scores']
  within = {way: scores[task]['within'] for way, task in WAYS.items()}
  figures = {
    'accuracy': (
      'Accuracy by the tokens that an answer may take, with 95 % intervals.',
      plots.bands(_limits(within), _curves(within), 'tokens allowed'),
    )
  }
  report = {'within': within}
  blocks = _blocks(within, report_files.pictures(workdir, figures))
  report_files.write(workdir, 'deepdive: tokens to think, and a tool', blocks, report)
  return report


def _limits(within: Within) -> list[int]:
  """Returns the limits on tokens, which all ways share."""
  first_way, *_ = within.values()
  return sorted(map(int, first_way))


def _groups(within: Within) -> list[str]:
  """Returns the groups of problems, 'all' first; all ways and limits share them."""
  first_way, *_ = within.values()
  scores, *_ = first_way.values()
  return ['all', *sorted(set(scores) - {'all'})]


def _curves(within: Within) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
  """Returns {group: {way: [(accuracy, low, high) at each limit]}}."""
  curves: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
  for group in _groups(within):
    curves[group] = {}
    for way, by_limit in within.items():
      scores = [by_limit[str(limit)][group] for limit in _limits(within)]
      curves[group][way] = [(s['accuracy'], s['low'], s['high']) for s in scores]
  return curves


def _blocks(within: Within, pictures: Mapping[str, Picture]) -> list:
  limits, rows = _limits(within), []
  for group, curves in _curves(within).items():
    for way, curve in curves.items():
      cells = [f'{value:.0%} [{low:.0%}, {high:.0%}]' for value, low, high in curve]
      n = within[way][str(limits[0])][group]['n']
      rows.append((group, way, *cells, str(n)))
  return [
    Heading('deepdive: tokens to think, and a tool', 1),
    Paragraph(
      'One model answers the same held-out problems in three ways, which the first words of a '
      'question ask for: at once, in steps, or by a Python program. An answer may take so many '
      'tokens, the stop token and the results of Python not counted; one that is cut off is wrong.'
    ),
    pictures['accuracy'],
    Table(('problems', 'way', *map(str, limits), 'n'), rows, left=2),
  ]
