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
KNOWN = 0.6  # smallest share of right answers before with which the facts of a group are known


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
    'refusals': refusals(*(_from_memory(run) for run in runs.values())),
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
  before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
  """Returns what the second tuning made of the answers about facts, question by question.

  Args:
    before, after: the records of both runs (`lm.evals.task_scores.score_tasks`) about the same
      questions from memory, in the same order.

  Returns:
    `unseen_wrong`, the number of wrong answers, before, about facts that were never stated, and
    `unseen_refused`, the share of these questions that is refused after; `known`, the number of
    right answers, before, in the groups of which at least KNOWN were right (`known_exposures`), and
    `known_refused`, the share of these questions that is refused after.

  Raises:
    ValueError: the questions are not the same.
  """
  by_group = collections.defaultdict(collections.Counter)
  for record in before:
    by_group[record['group']][record['verdict']] += 1
  often = {group for group, counts in by_group.items() if _share(counts, 'right') >= KNOWN}
  unseen, known = [], []
  for one, other in zip(before, after, strict=True):
    if one['question'] != other['question']:
      raise ValueError(f'{one["question"]!r} was asked before, {other["question"]!r} after')
    if one['group'] == '0' and one['verdict'] == 'wrong':
      unseen.append(other['verdict'])
    if one['group'] in often and one['verdict'] == 'right':
      known.append(other['verdict'])
  return {
    'unseen_wrong': len(unseen),
    'unseen_refused': _refused(unseen),
    'known': len(known),
    'known_refused': _refused(known),
    'known_exposures': sorted(map(int, often)),
  }


def _refused(verdicts: Sequence[str]) -> float:
  return verdicts.count('refused') / len(verdicts) if verdicts else 0.0


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


def _from_memory(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """Returns the records of the questions that are asked alone, without a page or a tool."""
  task = SOURCES['from memory']
  return [record for record in report['records'] if record['task'] == task and not record['turn']]


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
  often = ' or '.join(map(str, changed['known_exposures'])) or 'any number of'
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
      ('refused after', 'share', 'n'),
      [
        (
          'what was answered wrongly before, of what was never stated',
          f'{changed["unseen_refused"]:.1%}',
          str(changed['unseen_wrong']),
        ),
        (
          f'what was answered rightly before, of what was stated {often} times',
          f'{changed["known_refused"]:.1%}',
          str(changed['known']),
        ),
      ],
    ),
    pictures['calibration'],
  ]
