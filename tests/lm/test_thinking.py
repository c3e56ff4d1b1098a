"""The report of what tokens to think are worth, from scores that are made up."""

import pytest

from lm.base import files
from lm.report import thinking


def summary(accuracy):
  return {'accuracy': accuracy, 'low': accuracy / 2, 'high': (1 + accuracy) / 2, 'n': 40}


def write_scores(workdir):
  """Scores of three ways within 1 and 16 tokens."""
  shares = {'at_once': (0.125, 0.25), 'in_steps': (0.0, 0.75), 'with_python': (0.0, 1.0)}
  scores = {
    task: {
      'within': {
        str(limit): {'all': summary(share), 'letters': summary(share / 2)}
        for limit, share in zip((1, 16), both, strict=True)
      }
    }
    for task, both in shares.items()
  }
  files.write_json(workdir / 'sft' / 'report.json', {'scores': scores})


def test_the_report_shows_every_way_at_every_limit(tmp_path):
  write_scores(tmp_path)
  report = thinking.write_report(tmp_path)
  assert files.read_json(tmp_path / 'report.json') == report
  assert report['within']['in steps']['16']['letters'] == summary(0.375)
  text = (tmp_path / 'report.md').read_text(encoding='utf-8').replace('\\', '')
  rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()]
  assert ['problems', 'way', '1', '16', 'n'] in rows
  assert ['all', 'in steps', '0% [0%, 50%]', '75% [38%, 88%]', '40'] in rows
  assert ['letters', 'with Python', '0% [0%, 50%]', '50% [25%, 75%]', '40'] in rows
  assert (tmp_path / 'report_plots' / 'accuracy.png').exists()
  assert '<svg' in (tmp_path / 'report.html').read_text(encoding='utf-8')


def test_a_missing_run_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='sft'):
    thinking.write_report(tmp_path)
