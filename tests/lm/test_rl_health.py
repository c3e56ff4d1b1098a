"""The health of a policy: its bounds, the share of repeats, and the answers that are kept."""

import json

import commands
import pytest

from configs import base
from lm.base import metrics
from lm.stages.rl import health

WELL = {
  'rl/entropy': 0.5,
  'rl/repeats': 0.1,
  'rl/length': 12.0,
  'rl/truncated': 0.2,
  'rl/sampler_gap': 1e-5,
}


def symptoms(values, **bounds):
  config = base.get_config().rl.health
  config.update(bounds)
  return health.symptoms(config, values)


@pytest.mark.parametrize('field, bound, metric, value, stops', [
  ('min_entropy', 0.05, 'rl/entropy', 0.01, True),
  ('max_repeats', 0.5, 'rl/repeats', 0.6, True),
  ('min_length', 3.0, 'rl/length', 2.0, True),
  ('max_truncated', 0.9, 'rl/truncated', 1.0, True),
  ('max_sampler_gap', 0.01, 'rl/sampler_gap', 0.02, False),
])  # fmt: skip
def test_a_metric_beyond_its_bound_is_named(field, bound, metric, value, stops):
  assert symptoms(WELL, **{field: bound}) == []
  (symptom,) = symptoms(WELL | {metric: value}, **{field: bound})
  assert (symptom.metric, symptom.value, symptom.stops) == (metric, value, stops)
  side = 'at most' if field.startswith('max') else 'at least'
  assert symptom.allowed == f'{side} {bound:g}, config.rl.health.{field}'
  assert symptoms({}, **{field: bound}) == []  # a step that computed nothing


def test_the_default_bounds_are_generous():
  collapsed = {'rl/entropy': 1e-6, 'rl/length': 1.0, 'rl/truncated': 1.0, 'rl/repeats': 0.8}
  assert symptoms(WELL | collapsed) == []


def test_repeats():
  once, twice = [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 1, 2, 3, 4]  # five stretches of four each
  assert health.repeats([once]) == 0 and health.repeats([twice]) == pytest.approx(1 / 5)
  assert health.repeats([[7] * 9]) == pytest.approx(5 / 6)
  assert health.repeats([once, [7] * 9]) == pytest.approx(5 / 12)
  assert health.repeats([[1, 1, 1]]) == 0  # too short to tell


def row(question, prompt, answer, reward):
  return {'number': question, 'prompt': prompt, 'answer': answer, 'reward': reward,
          'right': reward > 0, 'tokens': len(answer), 'end': 'stop'}  # fmt: skip


@pytest.fixture
def run(tmp_path):
  """A run that kept answers of two steps, whose second prompt was asked in both."""
  with metrics.Metrics(tmp_path / 'run') as m:
    m.rollouts(1, [row(0, 'What is 2+2?', 'five', 0.0), row(1, 'Say hi.', 'no\nnever', 0.25)])
    m.rollouts(2, [row(2, 'Say hi.', 'no\nhi', 0.5), row(3, 'Name it.', 'it', 1.0)])
  return tmp_path / 'run'


def show(run, *arguments):
  return commands.call('-m', 'lm.rollouts', run, *arguments)


def test_answers_are_shown_by_reward(run):
  status, out, err = show(run)
  assert status == 0, err
  assert (
    out.index('reward 1, right, 2 tokens') < out.index('reward 0.5, right') and '2+2' not in out
  )
  _, out, _ = show(run, '--step=1', '--lowest', '--json', '--limit=1')
  assert json.loads(out)['answer'] == 'five'
  _, out, _ = show(run, '--contains=Name')
  assert out.count('>>>') == 1 and '>>> it' in out
  status, _, err = show(run, '--step=7')
  assert status == 1 and '--step is 7; allowed: 1, 2' in err


def test_the_changes_of_a_prompt_are_shown(run):
  _, out, _ = show(run, '--diff')
  assert out.splitlines()[:3] == ['Say hi.', '--- step 1, reward 0.25', '+++ step 2, reward 0.5']
  assert '-never' in out and '+hi' in out and 'five' not in out


def test_a_run_without_answers_is_an_error(tmp_path):
  with metrics.Metrics(tmp_path):
    pass
  status, _, err = show(tmp_path)
  assert status == 1 and 'config.rl.rollouts_every' in err
  status, _, err = show(tmp_path / 'nowhere')
  assert status == 1 and 'nowhere' in err
