"""The part of a recipe's report about the assistant: one table and three plots.

The numbers are those of `scores` in report.json of the training runs, which are counts over the
`records` beside them (lm/evals/task_scores.py).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lm.base import plots
from lm.base.document import Table
from lm.base.intervals import wilson

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Score = Mapping[str, float]  # accuracy, low, high, n
Scores = Mapping[str, Any]  # `scores` of a run
VERDICTS = ('right', 'wrong', 'refused')


def of_task(name: str) -> Callable[[Scores], Score | None]:
  """Returns a function that takes the score of a task."""
  return lambda scores: scores.get(name)


def of_turn(name: str, turn: int) -> Callable[[Scores], Score | None]:
  """Returns a function that takes the score of a task as question `turn` of conversations."""
  return lambda scores: scores.get(f'turn_{turn}', {}).get('tasks', {}).get(name)


def of_group(name: str, group: str, verdict: str) -> Callable[[Scores], Score | None]:
  """Returns a function that takes the share of a verdict in a group of a task's problems."""

  def take(scores: Scores) -> Score | None:
    counts = scores.get(name, {}).get('groups', {}).get(group)
    if not counts:
      return None
    n = sum(counts[each] for each in VERDICTS)
    low, high = wilson(counts[verdict], n)
    return {'accuracy': counts[verdict] / n, 'low': low, 'high': high, 'n': n}

  return take


@dataclasses.dataclass(frozen=True)
class Measure:
  """A row of the table.

  Attributes:
    name: what is measured.
    bar: what is demanded of the last model, or '' if nothing is.
    take: takes the number from the scores of a run, None where it was not measured.
  """

  name: str
  bar: str
  take: Callable[[Scores], Score | None]


MEASURES = (
  Measure('says who it is, in wordings never trained on', '≥ 95%', of_task('identity')),
  *(
    Measure(f'says who it is, as question {turn}', '≥ 95%', of_turn('identity', turn))
    for turn in (1, 2, 3)
  ),
  Measure('refuses what does not exist', '≥ 85%', of_group('refusal', 'made up', 'right')),
  Measure('refuses what exists', '≤ 10%', of_group('refusal', 'exists', 'refused')),
  Measure('arithmetic, at once', '', of_task('arithmetic')),
  Measure('arithmetic, by the calculator', '', of_task('calculator')),
  Measure('arithmetic, by the calculator, as question 5', '≥ 95%', of_turn('calculator', 5)),
  Measure('spells words never trained on', '≥ 60%', of_task('spelling')),
  Measure('the module of a function, from memory', '', of_task('docs')),
)


def measured(scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
  """Returns {name, bar, models: {model: score}} of each measure that some model has.

  Args:
    scores: `scores` of a run by the name of its model.
  """
  rows = []
  for measure in MEASURES:
    found = {model: measure.take(each) for model, each in scores.items()}
    models = {
      model: {name: score[name] for name in ('accuracy', 'low', 'high', 'n')}
      for model, score in found.items()
      if score
    }
    if models:
      rows.append({'name': measure.name, 'bar': measure.bar, 'models': models})
  return rows


def table(rows: list[dict[str, Any]], models: list[str]) -> Table:
  """Returns the table of what `measured` returned."""

  def cell(score: Score | None) -> str:
    if not score:
      return 'none'
    interval = f'[{100 * score["low"]:.1f}, {100 * score["high"]:.1f}]'
    return f'{score["accuracy"]:.1%} {interval} n={score["n"]}'

  cells = [
    (row['name'], row['bar'], *(cell(row['models'].get(model)) for model in models)) for row in rows
  ]
  return Table(('', 'bar', *models), cells)


def figures(scores: Mapping[str, Scores]) -> dict[str, tuple[str, 'Figure']]:
  """Returns the caption and the figure of each plot that the last model has the numbers for.

  Args:
    scores: `scores` of a run by the name of its model, the last one of which is the assistant.
  """
  last = scores[list(scores)[-1]]
  turns = sorted(int(name.removeprefix('turn_')) for name in last if 'tasks' in last[name])
  asked = {
    model: each for model, each in scores.items() if all(f'turn_{turn}' in each for turn in turns)
  }
  drawn = {}
  if turns:
    panels = {
      task: {
        model: [_triple(of_turn(task, turn)(each)) for turn in turns]
        for model, each in asked.items()
      }
      for task in last[f'turn_{turns[0]}']['tasks']
    }
    drawn['turns'] = (
      'Accuracy by the place of a question in its conversation, with 95 % intervals.',
      plots.bands(turns, panels, 'question of the conversation', log=False),
    )
  refused = {
    model: [
      _triple(of_group('refusal', group, 'refused' if group == 'exists' else 'right')(each))
      for group in ('made up', 'exists')
    ]
    for model, each in scores.items()
  }
  if all(refused[list(scores)[-1]]):
    drawn['refusals'] = (
      'Shares of questions that are refused: about names that do not exist, and about those that '
      'the documents describe.',
      plots.bars(('made up', 'exists'), refused, 'refused'),
    )
  lengths = sorted(last.get('spelling', {}).get('groups', {}))
  if lengths:
    drawn['spelling'] = (
      'Words spelled rightly, by their letters. A model reads tokens of several letters, and '
      'learns the letters of each from the other words that contain it.',
      plots.bars(
        lengths,
        {
          model: [_triple(of_group('spelling', group, 'right')(each)) for group in lengths]
          for model, each in scores.items()
        },
        'spelled rightly',
      ),
    )
  return drawn


def _triple(score: Score | None) -> tuple[float, float, float] | None:
  return (score['accuracy'], score['low'], score['high']) if score else None
