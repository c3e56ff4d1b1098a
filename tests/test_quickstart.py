"""The whole road, small: killed on the way, gone on with, complete, and skipped the next time."""

import json

import pytest
from commands import kill_at, run

TASKS = {'arithmetic', 'calculator', 'identity', 'refusal', 'spelling', 'docs', 'format'}
TURNS = {f'turn_{turn}' for turn in range(1, 6)}


def command(workdir):
  return 'train.py', '--config=configs/quickstart.py:smoke', f'--workdir={workdir}'


@pytest.fixture(scope='module')
def road(tmp_path_factory):
  """The folder of a run that was killed in fine-tuning, and the output of its last start."""
  workdir = tmp_path_factory.mktemp('quickstart') / 'run'
  kill_at(workdir / 'sft/checkpoints/4/digest.json', *command(workdir))
  status, out, err = run(*command(workdir))
  assert status == 0, err
  return workdir, out


def written(workdir):
  """When each file of a run was last written, without the two that every start writes."""
  return {
    path: path.stat().st_mtime_ns
    for path in workdir.rglob('*')
    if path.is_file() and path.name not in ('.lock', 'final.json')
  }


@pytest.mark.slow
@pytest.mark.timeout(900)  # with the runs of the fixture
def test_report_holds_what_was_promised(road):
  workdir, out = road
  assert f'python -m lm.chat --checkpoint={workdir}' in out
  report = json.loads((workdir / 'report.json').read_text())
  assert set(report['stages']) == {
    'crawl',
    'clean',
    'tokenizer',
    'tokenize',
    'pretrain',
    'sft',
    'rl',
    'report',
  }
  assert all(
    stage['peak_rss_bytes'] > 2**20 for name, stage in report['stages'].items() if name != 'report'
  )
  web = report['web']
  assert web['pages_in'] == web['pages_out'] + sum(web['drops'].values())
  assert report['tokenizer']['vocab_size'] == 1024 + 12
  assert {'tokens', 'val_bpb', 'unigram_bpb', 'bigram_bpb', 'gzip_bpb', 'xz_bpb'} <= report[
    'pretrain'
  ].keys()
  assert report['pretrain']['tokens'] == 12 * 16 * 192
  for stage in ('base', 'sft', 'rl'):
    assert report['scores'][stage].keys() == TASKS | (TURNS if stage != 'base' else set())
    assert all(s['low'] <= s['accuracy'] <= s['high'] for s in report['scores'][stage].values())
  assert len(report['assistant']) == 11
  for row in report['assistant']:
    asked_base = 'as question' not in row['name']
    assert row['models'].keys() == ({'base', 'sft', 'rl'} if asked_base else {'sft', 'rl'})
  records = json.loads((workdir / 'rl/report.json').read_text())['records']
  assert len(records) == 6 * 10 + 5 * 12  # of each task, and in each turn
  for name in ('turns', 'refusals', 'spelling'):
    assert (workdir / 'report_plots' / f'{name}.png').exists()
  assert report['rl'].keys() >= {
    'reward_first',
    'reward_last',
    'answer_length_first',
    'answer_length_last',
  }
  assert report['provenance'].keys() >= {'code', 'config', 'data', 'tokenizer'}
  assert (workdir / 'report.html').exists()
  assert (workdir / 'report.md').exists()


@pytest.mark.slow
def test_a_complete_run_is_skipped(road):
  workdir, _ = road
  before = written(workdir)
  status, out, err = run(*command(workdir))
  assert status == 0 and out.count('complete, skipped') == 8, err
  assert written(workdir) == before


@pytest.mark.slow
def test_no_update_was_done_twice(road):
  lines = [json.loads(line) for line in (road[0] / 'rl' / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines if 'rl/reward' in line] == [1, 2, 3]


def smoke_of(recipe, tmp_path):
  """The folder in which the smoke variant of a recipe has run."""
  workdir = tmp_path / 'run'
  status, _, err = run('train.py', f'--config=configs/{recipe}.py:smoke', f'--workdir={workdir}')
  assert status == 0, err
  return workdir


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_recipe_of_facts_writes_what_a_model_knows(tmp_path):
  """A model of this size knows nothing: its answers are only counted."""
  workdir = smoke_of('facts', tmp_path)
  report = json.loads((workdir / 'report.json').read_text())
  groups = report['facts']['after']
  assert set(groups) <= {'0', '1', '3', '10', '30', '100'}
  assert sum(sum(verdicts.values()) for verdicts in groups.values()) == 24
  assert report['calibration'] and report['sources'].keys() == {
    'from memory',
    'with the page in the context',
    'by search',
  }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_recipe_of_thinking_writes_what_tokens_and_a_tool_are_worth(tmp_path):
  """A model of this size answers nothing: what it says is only counted."""
  workdir = smoke_of('thinking', tmp_path)
  within = json.loads((workdir / 'report.json').read_text())['within']
  assert within.keys() == {'at once', 'in steps', 'with Python'}
  for by_limit in within.values():
    assert by_limit.keys() == {'1', '4', '16'}
    for groups in by_limit.values():
      assert groups['all']['n'] == sum(s['n'] for name, s in groups.items() if name != 'all') == 24
  assert '<svg' in (workdir / 'report.html').read_text()
