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
  assert report['pretrain']['tokens'] == 12 * 8 * 192
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


def smoke_of(recipe, tmp_path, *options):
  """The folder in which the smoke variant of a recipe has run."""
  workdir = tmp_path / 'run'
  config = f'--config=configs/{recipe}.py:smoke'
  status, _, err = run('train.py', config, f'--workdir={workdir}', *options)
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
def test_the_recipe_of_distillation_keeps_what_the_larger_model_answers(tmp_path):
  """The first two of its jobs; the others are of the same kinds."""
  workdir = smoke_of('distill', tmp_path, "--config.stages=('sft', 'teacher')")
  for name in ('sft', 'teacher'):
    report = json.loads((workdir / name / 'report.json').read_text())
    assert report['pass_at']['sums'].keys() == {'1', '2'}
  lines = (workdir / 'teacher' / 'rollouts.jsonl').read_text().splitlines()
  assert len(lines) == 4 * 8
  assert all({'asked', 'reply', 'right', 'end'} <= json.loads(line).keys() for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_recipes_of_reward_models_write_what_optimising_them_came_to(tmp_path):
  """Both recipes begin with the same jobs, which the second one finds complete."""
  workdir = smoke_of('overoptimization', tmp_path)
  report = json.loads((workdir / 'report.json').read_text())
  points = [json.loads(line) for line in (workdir / 'points.jsonl').read_text().splitlines()]
  assert [p['n'] for p in points if p['method'] == 'best_of'] == [1, 2, 4]
  assert {p['beta'] for p in points if p['method'] == 'rl'} == {0, 0.1}
  assert {(c['method'], c['beta']) for c in report['curves']} == {
    ('best_of', 0),
    ('rl', 0),
    ('rl', 0.1),
  }
  assert report['proxies'][0]['data'] == 100 and report['games']
  jobs = (workdir / 'stages' / 'sft.json').read_text()
  smoke_of('rejection', tmp_path)
  assert (workdir / 'stages' / 'sft.json').read_text() == jobs
  rounds = json.loads((workdir / 'report.json').read_text())['rounds']
  assert [part['round'] for part in rounds] == [0, 1]
  assert rounds[0]['kept'] >= 0 and rounds[1]['best']['n'] == 4


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
