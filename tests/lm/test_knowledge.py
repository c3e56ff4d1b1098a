"""The report of what a model knows, against counts made by hand."""

import collections

import pytest

from lm.base import files
from lm.report import knowledge


def records(**verdicts):
  """Records of questions from memory, of which each letter is a verdict; `n10` is a group."""
  return [
    {
      'task': 'facts',
      'turn': 0,
      'group': group[1:],
      'question': f'{group} {i}?',
      'verdict': {'r': 'right', 'w': 'wrong', '-': 'refused'}[letter],
    }
    for group, letters in verdicts.items()
    for i, letter in enumerate(letters)
  ]


BEFORE = records(n0='rwwww', n10='rrwww', n30='rrrw', n100='rrrrr')
AFTER = records(n0='--w--', n10='-----', n30='rr-w', n100='rrrrr')


def groups(records):
  counts = collections.defaultdict(lambda: dict.fromkeys(knowledge.VERDICTS, 0))
  for record in records:
    counts[record['group']][record['verdict']] += 1
  return counts


def test_refusals_are_counted_apart_for_what_was_never_stated_and_what_is_known():
  assert knowledge.refusals(BEFORE, AFTER) == {
    'unseen_wrong': 4,
    'unseen_refused': 0.75,
    'known': 8,
    'known_refused': 0.125,
    'known_exposures': [30, 100],
  }
  with pytest.raises(ValueError, match='was asked before'):
    knowledge.refusals(BEFORE, AFTER[::-1])


def test_calibration_goes_by_the_most_frequent_answer():
  rows = [
    {'replies': ['a', 'a', 'b'], 'verdicts': ['right', 'right', 'wrong']},
    {'replies': ['c', 'd', 'd'], 'verdicts': ['right', 'wrong', 'wrong']},
    {'replies': ['e', 'e', 'e'], 'verdicts': ['right'] * 3},
  ]
  first, second = knowledge.calibration(rows)
  assert first == {'confidence': pytest.approx(2 / 3), 'right': 0.5, 'n': 2}
  assert second == {'confidence': 1.0, 'right': 1.0, 'n': 1}


def test_the_report_shows_the_numbers_of_the_runs(tmp_path):
  rows = [{'replies': ['a'], 'verdicts': ['right']}, {'replies': ['b'], 'verdicts': ['wrong']}]
  later = {'task': 'facts', 'turn': 1, 'group': '0', 'question': '', 'verdict': 'wrong'}
  for run, made in (('sft', BEFORE), ('refuse', AFTER)):
    scores = {'facts_page': {'accuracy': 0.75}, 'facts_search': {'accuracy': 0.5}}
    scores['facts'] = {'accuracy': 0.25, 'groups': groups(made)}
    others = [later, later | {'task': 'facts_page', 'turn': 0}]
    stored = {'scores': scores, 'probe': rows, 'records': [*made, *others]}
    files.write_json(tmp_path / run / 'report.json', stored)
  report = knowledge.write_report(tmp_path)
  assert files.read_json(tmp_path / 'report.json')['refusals'] == report['refusals']
  text = (tmp_path / 'report.md').read_text(encoding='utf-8')
  cells = [cell.strip() for line in text.splitlines() for cell in line.split('|')]
  for share in ('75.0%', '12.5%', '80.0%', '25.0%'):
    assert share in cells
  assert (tmp_path / 'report_plots' / 'memory.png').exists()
  assert '<svg' in (tmp_path / 'report.html').read_text(encoding='utf-8')


def test_a_missing_run_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='sft'):
    knowledge.write_report(tmp_path)
