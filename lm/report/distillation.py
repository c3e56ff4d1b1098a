"""Writes the report of configs/distill.py: what RL did, and what its right answers taught another.

It reads report.json and metrics.jsonl of the runs in the recipe's work folder.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from lm.base import files, metrics, plots
from lm.base.document import Heading, Paragraph, Picture, Table
from lm.report import report_files

RUNS = {  # the runs, and what the tables call them
  'sft': 'large: fine-tuned',
  'teacher': 'large: then GRPO',
  'dr_grpo': 'large: then Dr. GRPO',
  'small': 'small: fine-tuned',
  'small_rl': 'small: then GRPO',
  'distilled': 'small: then tuned on right answers of the large one in GRPO',
}
CURVES = ('rl/reward', 'rl/length_right', 'rl/length_wrong', 'rl/truncated')


def write_report(workdir: files.Path) -> dict[str, Any]:
  """Writes report.json, report.md (with report_plots/) and report.html, and returns the first.

  Raises:
    FileNotFoundError: a report that it is made from is missing.
  """
  workdir = pathlib.Path(workdir)
  found = {name: _run(workdir / name) for name in RUNS}
  figures = {
    name: (
      f'{RUNS[name]}: mean reward, tokens of right and of wrong answers, and the share of answers '
      'that did not end, by step.',
      plots.curves(_panels(found[name]['curves'])),
    )
    for name in RUNS
    if found[name]['curves']
  }
  report = {'runs': found}
  blocks = _blocks(found, report_files.pictures(workdir, figures))
  report_files.write(workdir, 'deepdive: RL, and distillation from it', blocks, report)
  return report


def _run(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the size of a run's model, its scores, and its curves if it is one of RL."""
  report = files.read_json(folder / 'report.json')
  (task,) = report['pass_at']
  lines = [line for line in metrics.read(folder) if CURVES[0] in line]
  return {
    'parameters': report['parameters'],
    'accuracy': report['scores'][task],
    'pass_at': report['pass_at'][task],
    'curves': {name: [line[name] for line in lines] for name in CURVES} if lines else {},
  }


def _panels(curves: Mapping[str, Sequence[float | None]]) -> list[plots.Panel]:
  def series(name: str) -> tuple[list[int], list[float]]:
    points = [(i, y) for i, y in enumerate(curves[name], 1) if y is not None]
    return [i for i, _ in points], [y for _, y in points]

  return [
    plots.Panel('reward', {'reward': series('rl/reward')}),
    plots.Panel(
      'tokens of an answer',
      {'right': series('rl/length_right'), 'wrong': series('rl/length_wrong')},
    ),
    plots.Panel('answers that did not end', {'share': series('rl/truncated')}),
  ]


def _blocks(found: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, Picture]) -> list:
  ks = list(found['sft']['pass_at'])
  rows = []
  for name, title in RUNS.items():
    run = found[name]
    values = [(run['accuracy']['accuracy'], run['accuracy'])]
    values += [(run['pass_at'][k]['pass_at'], run['pass_at'][k]) for k in ks]
    cells = [f'{value:.0%} [{score["low"]:.0%}, {score["high"]:.0%}]' for value, score in values]
    rows.append((title, f'{run["parameters"]:,}', *cells, str(run['accuracy']['n'])))
  return [
    Heading('deepdive: RL, and distillation from it', 1),
    Paragraph(
      'Held-out problems, with 95 % intervals: the accuracy of greedy answers, and pass@k, the '
      'probability that one of k sampled answers is right.'
    ),
    Table(('model', 'parameters', 'greedy', *(f'pass@{k}' for k in ks), 'n'), rows),
    *pictures.values(),
  ]
