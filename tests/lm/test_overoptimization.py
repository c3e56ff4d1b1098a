"""The over-optimisation lab's report, from points that are made up, and its laws against NumPy."""

import json
import math

import numpy as np
import pytest

from lm.base import files, metrics
from lm.report import overoptimization as lab

D = np.linspace(0.3, 3.0, 9)


def test_the_laws_are_found_again():
  """R = d (a - b d) of best-of-n and R = d (a - b log d) of RL (arXiv 2210.10760, equation 1)."""
  for method, law in (('best_of', D * (1.5 - 0.4 * D)), ('rl', D * (1.5 - 0.4 * np.log(D)))):
    found = lab.fit([0.0, *D], [9.0, *law], method)
    assert (found['a'], found['b']) == pytest.approx((1.5, 0.4))
    noisy = law + 0.05 * np.random.default_rng(0).normal(size=len(D))
    found = lab.fit(D, noisy, method)
    assert found['a_low'] < 1.5 < found['a_high'] and found['b_low'] < 0.4 < found['b_high']
    assert found['a_high'] - found['a_low'] < 0.5
  grid = np.linspace(0.01, 60, 600_000)
  for method, law in (
    ('best_of', grid * (1.5 - 0.4 * grid)),
    ('rl', grid * (1.5 - 0.4 * np.log(grid))),
  ):
    assert lab.peak(method, 1.5, 0.4) == pytest.approx(grid[np.argmax(law)], abs=1e-3)
  assert lab.peak('rl', 1.0, -0.1) is None
  assert lab.fit([0.0, 1.0], [0.0, 1.0], 'rl')['a'] is None


def test_pairs_that_gold_orders_are_what_accuracy_counts():
  proxy = np.array([[1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 0.0, 5.0]])
  gold = np.array([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 2.0, 2.0]])
  assert lab.pair_accuracy(proxy, gold) == (pytest.approx(2 / 3), 3)


def gain(d):
  """By how many standard deviations gold is above its start; it turns at d = 0.83, after n = 4."""
  return d * (1.5 - 0.9 * d)


DIVERGENCES = {n: math.log(n) - (n - 1) / n for n in range(1, 17)}
CURVE = [  # of best-of-n
  {'n': n, 'kl': kl, 'proxy': float(n), 'gold': 0.5 + 0.5 * gain(math.sqrt(kl))}
  for n, kl in DIVERGENCES.items()
]


@pytest.fixture
def workdir(tmp_path):
  """The folder of a lab with one proxy and two runs of RL."""
  proxy = str(tmp_path / 'reward_small_100')
  files.write_json(tmp_path / 'reward_small_100' / 'config.json', {'data': {'examples': 100}})
  files.write_json(tmp_path / 'reward_small_100' / 'report.json', {'parameters': 7})
  ranking = {'proxy_std': 2.0, 'curve': CURVE}
  files.write_json(
    tmp_path / 'best_of' / 'report.json',
    {'test': {'gold_std': 0.5, 'rankings': {proxy: ranking}}},
  )
  row = {'prompt': 'q', 'answers': ['curt', 'Of course.'], 'gold': [1.0, 0.0]}
  row['proxies'] = {proxy: [0.0, 3.0]}
  files.write_text(tmp_path / 'best_of' / 'answers.jsonl', json.dumps(row) + '\n')
  for beta in (0.0, 0.5):
    run = tmp_path / f'rl_small_100_{beta:g}'
    files.write_json(run / 'config.json', {'rl': {'kl': beta, 'reward_model': proxy}})
    files.write_json(run / 'report.json', {})
    steps = [
      {'step': s, 'rl/answer_kl': s / 10, 'rl/proxy': 1.0 + s, 'rl/gold': 0.5 + s * (8 - s) / 20}
      for s in range(12)
    ]
    kept = [{'step': 9, 'prompt': 'q', 'answer': 'a' * s, 'proxy': s, 'gold': 0} for s in range(5)]
    for name, rows in (('metrics', steps), ('rollouts', kept)):
      files.write_text(run / f'{name}.jsonl', ''.join(json.dumps(r) + '\n' for r in rows))
  return tmp_path


def test_the_report_follows_from_its_points(workdir):
  report = lab.write_report(workdir)
  points = metrics.json_lines(workdir / 'points.jsonl')
  assert [p['n'] for p in points if p['method'] == 'best_of'] == [1, 2, 4, 8, 16]
  of_rl = [p for p in points if p['method'] == 'rl' and p['beta'] == 0]
  assert [(p['step'], p['kl']) for p in of_rl] == [(4, 0.2), (9, 0.7), (11, 1.05)]
  assert {(p['name'], p['parameters'], p['data']) for p in points} == {('small_100', 7, 100)}
  assert report == files.read_json(workdir / 'report.json')
  curves = {(c['method'], c['beta']): c for c in report['curves']}
  assert curves.keys() == {('best_of', 0), ('rl', 0), ('rl', 0.5)}
  best_of, start = curves['best_of', 0], report['starts']['small_100']
  top = gain(math.sqrt(DIVERGENCES[4]))
  assert best_of['turned'] and best_of['highest']['gold'] == pytest.approx(top)
  assert best_of['last']['proxy'] == pytest.approx((16 - 1) / 2.0)
  # The law, recomputed from the points.
  d = np.array([math.sqrt(p['kl']) for p in of_rl])
  gains = np.array([(p['gold'] - start['gold']) / start['gold_std'] for p in of_rl])
  (a, b), *_ = np.linalg.lstsq(np.stack([d, -d * np.log(d)], axis=1), gains, rcond=None)
  assert (curves['rl', 0]['a'], curves['rl', 0]['b']) == pytest.approx((a, b))
  games = {(g['from'], g['answer']) for g in report['games']}
  assert ('best of 2, small_100', 'Of course.') in games
  assert ('step 9 of rl_small_100_0', 'aaaa') in games
  assert (workdir / 'report_plots' / 'beta.png').exists()
  assert '<svg' in (workdir / 'report.html').read_text(encoding='utf-8')


def test_gold_that_only_varies_by_chance_has_not_turned():
  rng = np.random.default_rng(0)
  starts = {'p': {name: 0.0 for name in ('proxy', 'gold')} | {'proxy_std': 1.0, 'gold_std': 1.0}}
  turned = 0
  for _ in range(200):
    golds = np.minimum(D, 1.0) + 0.04 * rng.normal(size=len(D))  # it saturates, and never falls
    points = [
      {'method': 'rl', 'name': 'p', 'beta': 0.0, 'kl': d * d, 'proxy': d, 'gold': gold}
      for d, gold in zip(D, golds, strict=True)
    ]
    (curve,) = lab.summarize(points, starts)
    turned += curve['turned']
  assert turned < 20


@pytest.mark.parametrize('count', [3, 4, 7])
def test_the_intervals_of_a_law_hold_for_few_points_too(count):
  rng, d = np.random.default_rng(0), np.linspace(0.5, 2.0, count)
  laws = [
    lab.fit(d, 1.5 * d - 0.4 * d**2 + rng.normal(0, 0.2, count), 'best_of') for _ in range(500)
  ]
  held = sum(law['a_low'] < 1.5 < law['a_high'] for law in laws)
  assert 0.92 < held / len(laws) < 0.98
