"""Writes the report of configs/facts.py: what a model knows, and whether it says what it does not.

It reads report.json of the runs sft and refuse in the recipe's work folder.
"""

import collections
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from lm.base import files, plots
from lm.base.document import Heading, Paragraph, Picture, Table
from lm.base.intervals import wilson
from lm.report import report_files

RUNS = {'before': 'sft', 'after': 'refuse'}
SOURCES = {  # where an answer may come from, and the task that measures it
  'from memory': 'facts',
  'with the page in the context': 'facts_page',
  'by search': 'facts_search',
}
VERDICTS = ('right', 'wrong', 'refused')
KNOWN = 0.6  # smallest share of right answers before with which a group of facts counts as known


def write_report(workdir: files.Path) -> dict[str, Any]:
  """Writes report.json, report.md (with report_plots/) and report.html, and returns the first.

  Raises:
    FileNotFoundError: a report that it is made from is missing.
  """
  workdir = pathlib.Path(workdir)
  runs = {when: files.read_json(workdir / run / 'report.json') for when, run in RUNS.items()}
  groups = {when: run['scores']['facts']['groups'] for when, run in runs.items()}
  report = {
    'facts': groups,
    'sources': {
      what: {when: run['scores'][task]['accuracy'] for when, run in runs.items()}
      for what, task in SOURCES.items()
    },
    'refusals': refusals(groups['before'], groups['after']),
    'calibration': calibration(runs['before']['probe']),
  }
  figures = {
    'memory': (
      'Answers from memory by how often pretraining stated the fact, with 95 % intervals.',
      plots.bars(
        sorted(groups['before'], key=int),
        {
          f'{verdict}, {when}': _shares(counts, verdict)
          for when, counts in groups.items()
          for verdict in ('right', 'refused')
        },
        'share of answers by exposures',
      ),
    ),
    'calibration': (
      'How often the most frequent of the sampled answers is right, by how frequent it is.',
      plots.points(
        [row['confidence'] for row in report['calibration']],
        [row['right'] for row in report['calibration']],
        'share that is right',
        'share of the samples that agree',
      ),
    ),
  }
  blocks = _blocks(report, report_files.pictures(workdir, figures))
  report_files.write(workdir, 'deepdive: what a model knows', blocks, report)
  return report


def refusals(
  before: Mapping[str, Mapping[str, int]], after: Mapping[str, Mapping[str, int]]
) -> dict[str, float]:
  """Returns what the second tuning changed in the answers about facts.

  Args:
    before, after: {exposures: {verdict: number of answers}} of the two runs.

  Returns:
    `unseen_wrong`, the share of wrong answers about facts that were never seen, before, and
    `unseen_refused`, that of refusals after; `known_refused`, the share of refusals after about
    facts of which at least KNOWN were answered rightly before.
  """
  known = [group for group, counts in before.items() if _share(counts, 'right') >= KNOWN]
  together = collections.Counter()
  for group in known:
    together.update(after[group])
  return {
    'unseen_wrong': _share(before['0'], 'wrong'),
    'unseen_refused': _share(after['0'], 'refused'),
    'known_exposures': sorted(map(int, known)),
    'known_refused': _share(together, 'refused') if known else 0.0,
  }


def calibration(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
  """Returns how often the most frequent of a question's sampled answers is right.

  Args:
    rows: the questions that the model was probed with, with `replies` and `verdicts`.

  Returns:
    {confidence, right, n} for each share of the samples that agree, ascending.
  """
  by_confidence = collections.defaultdict(list)
  for row in rows:
    answer, count = collections.Counter(row['replies']).most_common(1)[0]
    verdict = row['verdicts'][row['replies'].index(answer)]
    by_confidence[count / len(row['replies'])].append(verdict == 'right')
  return [
    {'confidence': confidence, 'right': sum(right) / len(right), 'n': len(right)}
    for confidence, right in sorted(by_confidence.items())
  ]


def _share(counts: Mapping[str, int], verdict: str) -> float:
  return counts[verdict] / sum(counts[name] for name in VERDICTS)


def _shares(
  groups: Mapping[str, Mapping[str, int]], verdict: str
) -> list[tuple[float, float, float]]:
  """Returns the share of a verdict in each group with its interval, by exposures."""
  triples = []
  for group in sorted(groups, key=int):
    share, n = _share(groups[group], verdict), sum(groups[group].values())
    triples.append((share, *wilson(share * n, n)))
  return triples


def _blocks(report: dict[str, Any], pictures: Mapping[str, Picture]) -> list:
  rows = []
  for group in sorted(report['facts']['before'], key=int):
    cells = [
      f'{_share(report["facts"][when][group], verdict):.1%}'
      for when in RUNS
      for verdict in VERDICTS
    ]
    rows.append((group, *cells, str(sum(report['facts']['after'][group].values()))))
  changed = report['refusals']
  return [
    Heading('deepdive: what a model knows', 1),
    Paragraph(
      'Questions about people of an invented world, whose facts pretraining stated a known number '
      'of times. Before: tuned to answer. After: tuned to refuse what a probe showed that it does '
      'not know. No conversation that either was tuned on is about these people.'
    ),
    Table(
      ('exposures', *(f'{verdict}, {when}' for when in RUNS for verdict in VERDICTS), 'n'), rows
    ),
    pictures['memory'],
    Table(
      ('', 'before', 'after'),
      [
        (f'right {what}', *(f'{x:.1%}' for x in found.values()))
        for what, found in report['sources'].items()
      ],
    ),
    Table(
      ('', 'share'),
      [
        ('wrong about unseen facts, before', f'{changed["unseen_wrong"]:.1%}'),
        ('refused about unseen facts, after', f'{changed["unseen_refused"]:.1%}'),
        (
          f'refused about known facts (exposures {changed["known_exposures"]}), after',
          f'{changed["known_refused"]:.1%}',
        ),
      ],
    ),
    pictures['calibration'],
  ]
