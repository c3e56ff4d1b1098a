"""Writes the report of configs/overoptimization.py: where the truth turns while a proxy rises.

It reads best_of/, and all runs rl_* with the reward models that they were trained against, in the
recipe's work folder. Laws are those of Gao, Schulman and Hilton, arXiv 2210.10760, equation 1: with
d the square root of the divergence from the start, R = d (a - b d) for best-of-n, and
R = d (a - b log d) for reinforcement learning.
"""

import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lm.base import files, metrics, plots
from lm.base.document import Heading, Paragraph, Picture, Table
from lm.report import report_files

Point = dict[str, Any]
WINDOW = 5  # Steps of RL that one point is the mean of: a step has few answers.
SHOWN = 3  # Answers that are shown of each method.
FALL = 3.5


def write_report(workdir: files.Path) -> dict[str, Any]:
  """Writes points.jsonl, report.json, report.md and report.html, and returns the second.

  Raises:
    FileNotFoundError: a file that it is made from is missing.
  """
  workdir = pathlib.Path(workdir)
  ranked = files.read_json(workdir / 'best_of' / 'report.json')['test']
  rows = metrics.json_lines(workdir / 'best_of' / 'answers.jsonl')
  # Reward models are known by their folders' names, since the work folder may have been moved.
  proxies = {run: _proxy(workdir / pathlib.Path(run).name, run, rows) for run in ranked['rankings']}
  by_folder = {pathlib.Path(run).name: proxy for run, proxy in proxies.items()}
  starts, points = {}, []
  for run, ranking in ranked['rankings'].items():
    first, name = ranking['curve'][0], proxies[run]['name']
    starts[name] = {'proxy': first['proxy'], 'proxy_std': ranking['proxy_std']}
    starts[name] |= {'gold': first['gold'], 'gold_std': ranked['gold_std']}
    points += of_best_of_n(ranking['curve'], {'method': 'best_of', 'beta': 0.0} | proxies[run])
  runs = [path.parent for path in sorted(workdir.glob('rl_*/report.json'))]
  for run in runs:
    rl = files.read_json(run / 'config.json')['rl']
    label = {'method': 'rl', 'beta': rl['kl']} | by_folder[pathlib.Path(rl['reward_model']).name]
    points += of_rl(metrics.read(run), label)
  curves = summarize(points, starts)
  report = {
    'proxies': list(proxies.values()),
    'starts': starts,
    'curves': curves,
    'games': games(rows, proxies, runs),
  }
  files.write_text(workdir / 'points.jsonl', ''.join(json.dumps(point) + '\n' for point in points))
  shown = report_files.pictures(workdir, _figures(points, starts))
  report_files.write(workdir, 'deepdive: over-optimisation', _blocks(report, shown), report)
  return report


def _proxy(folder: pathlib.Path, run: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns what is said of a reward model: its name, sizes, and accuracy on sampled answers.

  Args:
    folder: its run folder.
    run: its name in `rows`, the lines of answers.jsonl.
  """
  config, report = (files.read_json(folder / f'{name}.json') for name in ('config', 'report'))
  right, n = pair_accuracy(
    np.array([row['proxies'][run] for row in rows]), np.array([row['gold'] for row in rows])
  )
  return {
    'name': folder.name.removeprefix('reward_'),
    'parameters': report['parameters'],
    'data': config['data']['examples'],
    'accuracy': right,
    'pairs': n,
  }


def pair_accuracy(proxy_QN: np.ndarray, gold_QN: np.ndarray) -> tuple[float | None, int]:
  """Returns the share of pairs of answers that the proxy orders as gold does, and their number.

  The pairs are answers 1 and 2, 3 and 4, ... to each problem that differ in gold.
  """
  gaps = [x[:, 0::2][:, : x.shape[1] // 2] - x[:, 1::2] for x in (proxy_QN, gold_QN)]
  differ = gaps[1] != 0
  n = int(differ.sum())
  return (float((gaps[0] * gaps[1] > 0)[differ].mean()) if n else None), n


def of_best_of_n(curve: Sequence[Mapping[str, float]], label: Mapping[str, Any]) -> list[Point]:
  """Returns the points of best-of-n for n = 1, 2, 4, ..."""
  return [
    {**label, **{name: point[name] for name in ('n', 'kl', 'proxy', 'gold')}}
    for point in curve
    if point['n'] & (point['n'] - 1) == 0
  ]


def of_rl(lines: Sequence[Mapping[str, Any]], label: Mapping[str, Any]) -> list[Point]:
  """Returns the points of a run: means over windows of steps, each measured before its update."""
  steps = [line for line in lines if 'rl/answer_kl' in line]
  points = []
  for start in range(0, len(steps), WINDOW):
    part = steps[start : start + WINDOW]
    means = {
      name: float(np.mean([line[f'rl/{key}'] for line in part]))
      for name, key in (('kl', 'answer_kl'), ('proxy', 'proxy'), ('gold', 'gold'))
    }
    points.append({**label, 'step': part[-1]['step'], **means})
  return points


# ---- The laws ------------------------------------------------------------------------------------

# R = d (a - b f(d)): the function f of each method.
LAWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  'best_of': lambda d: d,
  'rl': np.log,
}


def fit(d: Sequence[float], gains: Sequence[float], method: str) -> dict[str, float | None]:
  """Returns {a, b, a_low, a_high, b_low, b_high, spread} of the method's law, by least squares.

  The intervals, of 95 %, are Student's of linear regression, as if points were independent.
  `spread` is the standard deviation of the points around the law. What too few points do not
  determine is None.

  Args:
    d: square roots of the divergence, nats; points where it is 0 or less say nothing and are left
      out.
    gains: R of each point, the reward above that at d = 0.
  """
  from scipy import special  # Commands that write no report do not need it.

  d, gains = np.asarray(d, float), np.asarray(gains, float)
  d, gains = d[d > 0], gains[d > 0]
  if len(d) < 2:
    return dict.fromkeys(('a', 'b', 'a_low', 'a_high', 'b_low', 'b_high', 'spread'))
  design = np.stack([d, -d * LAWS[method](d)], axis=1)
  found = np.linalg.lstsq(design, gains, rcond=None)[0]
  spare = len(d) - 2
  variance = np.sum((gains - design @ found) ** 2) / spare if spare else math.nan
  half = special.stdtrit(spare, 0.975) * np.sqrt(
    variance * np.diag(np.linalg.pinv(design.T @ design))
  )
  result = {'a': found[0], 'b': found[1], 'spread': np.sqrt(variance)}
  for name, value, h in zip('ab', found, half, strict=True):
    result |= {f'{name}_low': value - h, f'{name}_high': value + h}
  return {name: float(x) if np.isfinite(x) else None for name, x in result.items()}


def peak(method: str, a: float | None, b: float | None) -> float | None:
  """Returns the d at which a law is largest: a / 2b, or exp(a / b - 1); None if it only rises."""
  if a is None or b is None or b <= 0:
    return None
  return a / (2 * b) if method == 'best_of' else math.exp(min(a / b - 1, 700.0))


def distance(point: Point) -> float:
  """Returns the square root of a point's divergence; an estimate of it below 0 counts as 0."""
  return math.sqrt(max(0.0, point['kl']))


def gains(points: Sequence[Point], starts: Mapping[str, Any], name: str) -> list[float]:
  """Returns by how many standard deviations of the start's answers a reward is above the start."""
  return [
    (p[name] - starts[p['name']][name]) / (starts[p['name']][f'{name}_std'] or 1.0) for p in points
  ]


def summarize(points: Sequence[Point], starts: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Returns, for each method, proxy and beta, its law of gold, and where gold was highest.

  Rewards are in standard deviations above the start. `turned` is whether gold has fallen while the
  proxy rose: the law has its peak before the last point, gold is below its highest by more than
  FALL times the standard deviation of the points around the law, and the proxy is above what it was
  there. A gold that only varies by chance is below its highest at the end of most curves.
  """
  curves = []
  for key in dict.fromkeys((p['method'], p['name'], p['beta']) for p in points):
    mine = [p for p in points if (p['method'], p['name'], p['beta']) == key]
    gold, proxy = (gains(mine, starts, name) for name in ('gold', 'proxy'))
    d, method = [distance(p) for p in mine], key[0]
    law, top = fit(d, gold, method), int(np.argmax(gold))
    peak_d, spread = peak(method, law['a'], law['b']), law['spread']
    falls = spread is not None and gold[top] - gold[-1] > FALL * spread
    curves.append(
      {
        **dict(zip(('method', 'name', 'beta'), key, strict=True)),
        **law,
        'law_peak_d': peak_d,
        'highest': {'d': d[top], 'gold': gold[top], 'proxy': proxy[top]},
        'last': {'d': d[-1], 'gold': gold[-1], 'proxy': proxy[-1]},
        'turned': bool(falls and peak_d and peak_d < d[-1] and proxy[-1] > proxy[top]),
      }
    )
  return curves


# ---- What is shown -------------------------------------------------------------------------------


def games(
  rows: Sequence[Mapping[str, Any]],
  proxies: Mapping[str, Mapping[str, Any]],
  runs: Sequence[pathlib.Path],
) -> list[dict[str, Any]]:
  """Returns the answers that the proxies rank first, with their true rewards.

  They are the best of all answers to the first test problems, and the best ones that RL kept last.
  """
  found = []
  for run, proxy in proxies.items():
    for row in rows[:SHOWN]:
      best = int(np.argmax(row['proxies'][run]))
      found.append(
        {
          'from': f'best of {len(row["answers"])}, {proxy["name"]}',
          'prompt': row['prompt'],
          'answer': row['answers'][best],
          'proxy': row['proxies'][run][best],
          'gold': row['gold'][best],
        }
      )
  for run in runs:
    kept = metrics.rollouts(run)
    last = [row for row in kept if row['step'] == kept[-1]['step']]
    for row in sorted(last, key=lambda row: -row['proxy'])[:SHOWN]:
      shown = {name: row[name] for name in ('prompt', 'answer', 'proxy', 'gold')}
      found.append({'from': f'step {row["step"]} of {run.name}', **shown})
  return found


def _figures(points: Sequence[Point], starts: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
  def line(mine):
    mine = sorted(mine, key=distance)
    return [distance(p) for p in mine], gains(mine, starts, 'gold'), gains(mine, starts, 'proxy')

  def panels(method):
    found = {}
    for data in sorted({p['data'] for p in points}):
      chosen = [p for p in points if (p['method'], p['data'], p['beta']) == (method, data, 0)]
      names = sorted({(p['parameters'], p['name']) for p in chosen})
      found[f'{data:,} compared'] = {
        f'{parameters:,} parameters': line([p for p in chosen if p['name'] == name])
        for parameters, name in names
      }
    return found

  swept = {p['name'] for p in points if p['beta']}
  betas = {
    f'beta sweep, {name}': {
      f'beta {beta:g}': line(
        [p for p in points if (p['method'], p['name'], p['beta']) == ('rl', name, beta)]
      )
      for beta in sorted({p['beta'] for p in points if p['name'] == name})
    }
    for name in sorted(swept)
  }
  shown = {
    'best_of_n': ('Best-of-n: gold (solid) and proxy (dashed).', panels('best_of')),
    'rl': ('Reinforcement learning without a penalty: the same.', panels('rl')),
    'beta': ('Reinforcement learning with a penalty of beta per nat.', betas),
  }
  return {
    name: (caption, plots.twins(drawn, 'sqrt(KL)', 'standard deviations'))
    for name, (caption, drawn) in shown.items()
    if any(drawn.values())
  }


def _blocks(report: Mapping[str, Any], shown: Mapping[str, Picture]) -> list:
  def cells(part):
    return [f'{part[name]:.2f}' for name in ('d', 'gold', 'proxy')]

  curves = [
    (
      {'best_of': 'best-of-n', 'rl': 'RL'}[c['method']],
      c['name'],
      f'{c["beta"]:g}',
      *(report_files.measured(*(c[f'{x}{end}'] for end in ('', '_low', '_high'))) for x in 'ab'),
      *cells(c['highest']),
      *cells(c['last']),
      'yes' if c['turned'] else 'no',
    )
    for c in report['curves']
  ]
  header = ('method', 'proxy', 'beta', 'a', 'b', 'd', 'gold', 'proxy', 'd', 'gold', 'proxy')
  return [
    Heading('deepdive: over-optimisation', 1),
    Paragraph(
      'A policy is optimised against a proxy, a reward model that learned from noisy comparisons '
      'by a gold reward. The distance d is the square root of the divergence from the start, in '
      'nats of whole answers. Rewards are above that of the start, in standard deviations of its '
      'answers.'
    ),
    *shown.values(),
    Heading('Proxies'),
    Table(
      ('proxy', 'parameters', 'problems compared', 'accuracy', 'pairs'),
      [
        (
          p['name'],
          f'{p["parameters"]:,}',
          f'{p["data"]:,}',
          report_files.measured(p['accuracy'], None, None),
          str(p['pairs']),
        )
        for p in report['proxies']
      ],
    ),
    Paragraph('Accuracy: of pairs of answers of the start, as gold orders them.'),
    Heading('Laws of gold, where it was highest, and where it ended'),
    Table((*header, 'turned'), curves, left=2),
    Paragraph(
      'R = d (a - b d) for best-of-n and d (a - b log d) for RL, by least squares. The columns '
      'after b are where gold was highest, and then the last point.'
    ),
    Heading('Answers that the proxies like best'),
    Table(
      ('from', 'prompt', 'answer', 'proxy', 'gold'),
      [
        (g['from'], g['prompt'], g['answer'], f'{g["proxy"]:.2f}', f'{g["gold"]:.2f}')
        for g in report['games']
      ],
      left=3,
    ),
  ]
