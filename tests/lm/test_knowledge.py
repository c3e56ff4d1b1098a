"""The report of what a model knows, against counts made by hand."""

import pytest

from lm.base import files
from lm.report import knowledge


def counts(right, wrong, refused):
  return {'right': right, 'wrong': wrong, 'refused': refused}


BEFORE = {
  '0': counts(1, 8, 1),
  '10': counts(5, 5, 0),
  '30': counts(6, 4, 0),
  '100': counts(9, 1, 0),
}
AFTER = {'0': counts(0, 1, 9), '10': counts(4, 1, 5), '30': counts(6, 2, 2), '100': counts(9, 1, 0)}


def test_refusals_are_counted_apart_for_what_was_never_seen_and_what_is_known():
  found = knowledge.refusals(BEFORE, AFTER)
  assert found == {
    'unseen_wrong': 0.8,
    'unseen_refused': 0.9,
    'known_exposures': [30, 100],
    'known_refused': 0.1,
  }


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
  for run, groups in (('sft', BEFORE), ('refuse', AFTER)):
    scores = {'facts_page': {'accuracy': 0.75}, 'facts_search': {'accuracy': 0.5}}
    scores['facts'] = {'accuracy': 0.25, 'groups': groups}
    files.write_json(tmp_path / run / 'report.json', {'scores': scores, 'probe': rows})
  report = knowledge.write_report(tmp_path)
  assert files.read_json(tmp_path / 'report.json')['refusals'] == report['refusals']
  text = (tmp_path / 'report.md').read_text(encoding='utf-8')
  cells = [cell.strip() for line in text.splitlines() for cell in line.split('|')]
  for share in ('80.0%', '90.0%', '75.0%', '25.0%'):
    assert share in cells
  assert (tmp_path / 'report_plots' / 'memory.png').exists()
  assert '<svg' in (tmp_path / 'report.html').read_text(encoding='utf-8')


def test_a_missing_run_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='sft'):
    knowledge.write_report(tmp_path)
