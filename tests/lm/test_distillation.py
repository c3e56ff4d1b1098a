"""pass@k, conversations of right rollouts, and the report of RL and of distillation from it."""

import itertools
import json
import math

import pytest
from refusals import refused

from data import conversations
from data.tasks import conversation_rows
from lm.base import files, intervals
from lm.evals import pass_at
from lm.report import distillation


@pytest.mark.parametrize(('right', 'samples'), [(0, 4), (1, 4), (3, 5), (5, 5)])
def test_pass_at_k_is_the_share_of_samples_with_a_right_one(right, samples):
  answers = [True] * right + [False] * (samples - right)
  for k in range(1, samples + 1):
    sets = list(itertools.combinations(answers, k))
    share = sum(map(any, sets)) / len(sets)
    assert pass_at.estimate(right, samples, k) == pytest.approx(share)


def test_pass_at_k_has_the_interval_of_its_mean_over_problems():
  right = [0, 1, 2, 4] * 50
  found = pass_at.summary(right, 4, 2)
  estimates = [pass_at.estimate(each, 4, 2) for each in right]
  mean = sum(estimates) / 200
  deviation = math.sqrt(sum((x - mean) ** 2 for x in estimates) / 199)
  assert found['pass_at'] == pytest.approx(mean) and found['n'] == 200
  half = 1.96 * deviation / math.sqrt(200)
  assert found['low'] == pytest.approx(mean - half, abs=0.01)
  assert found['high'] == pytest.approx(mean + half, abs=0.01)
  low, high = intervals.wilson(2, 2)
  assert pass_at.summary([4, 4], 4, 1) == {'pass_at': 1, 'low': low, 'high': high, 'n': 2}


@pytest.mark.parametrize('right', [[2], [2, 2, 2], [0], [4]])
def test_problems_of_equal_estimates_have_an_interval_with_a_width(right):
  found = pass_at.summary(right, 4, 1)
  low, high = intervals.wilson(sum(right) / 4, len(right))
  assert (found['low'], found['high']) == pytest.approx((low, high)) and high - low > 0.1


ROLLOUT = {
  'step': 3,
  'number': 7,
  'prompt': 'x',
  'answer': 'y',
  'asked': [{'role': 'user', 'content': 'What is 2 + 2?'}],
  'reply': [{'type': 'think', 'text': 'two twos'}, {'type': 'text', 'text': '4'}],
  'reward': 1.1,
  'right': True,
  'tokens': 5,
  'end': 'stop',
}


def test_a_right_rollout_is_a_conversation_with_its_thinking(tmp_path):
  rows = [ROLLOUT, {**ROLLOUT, 'right': False}, {**ROLLOUT, 'end': 'length'}]
  (tmp_path / 'rollouts.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  out = tmp_path / 'kept.jsonl'
  conversations.main([f'--input={tmp_path}/rollouts.jsonl', '--examples=0', f'--out={out}'])
  (kept,) = map(json.loads, out.read_text().splitlines())
  assert kept['messages'] == [
    *ROLLOUT['asked'],
    {'role': 'assistant', 'content': ROLLOUT['reply']},
  ]


@pytest.mark.parametrize(
  ('change', 'field'),
  [
    ({'right': False}, 'right'),
    ({'right': 1}, 'right'),
    ({'end': 'length'}, 'right'),
    ({'asked': 'What is 2 + 2?'}, 'asked'),
    ({'reply': 4}, 'messages[1].content'),
    ({'reply': []}, 'messages[1].content'),
  ],
)
def test_what_is_no_right_answer_is_no_conversation(change, field):
  with refused(field):
    conversation_rows.conversation({**ROLLOUT, **change})


def score(value):
  return {'low': value - 0.1, 'high': value + 0.1, 'n': 64}


def write_run(folder, value, curves=()):
  report = {
    'parameters': 1234,
    'scores': {'sums': {'accuracy': value, **score(value)}},
    'pass_at': {'sums': {k: {'pass_at': value, **score(value)} for k in ('1', '8')}},
  }
  files.write_json(folder / 'report.json', report)
  lines = [{'step': i, **dict.fromkeys(distillation.CURVES, y)} for i, y in enumerate(curves, 1)]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_the_report_has_every_run_and_the_curves_of_those_of_rl(tmp_path):
  for i, name in enumerate(distillation.RUNS):
    is_rl = name in ('teacher', 'dr_grpo', 'small_rl')
    write_run(tmp_path / name, 0.2 + i / 10, [0.2, None, 0.4] if is_rl else [])
  report = distillation.write_report(tmp_path)
  assert files.read_json(tmp_path / 'report.json') == report
  assert report['runs']['teacher']['curves']['rl/length_wrong'] == [0.2, None, 0.4]
  assert report['runs']['distilled']['curves'] == {}
  text = (tmp_path / 'report.md').read_text(encoding='utf-8').replace('\\', '')
  rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()]
  title = distillation.RUNS['teacher']
  assert [title, '1,234', *['30% [20%, 40%]'] * 3, '64'] in rows
  assert {path.stem for path in (tmp_path / 'report_plots').iterdir()} == {
    'teacher',
    'dr_grpo',
    'small_rl',
  }
