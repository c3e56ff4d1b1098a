"""Fits scaling laws loss(C) = E + A * C ** -alpha over compute C, and tests them on a larger run.

E is the irreducible loss, and alpha says how fast the rest decreases. Hoffmann et al. (2022, arXiv
2203.15556) fit parameters and tokens separately, which is not needed along a ladder where both grow
together. Intervals come from a bootstrap.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.base import files, plots
from lm.base.errors import UserError

ALPHAS = np.geomspace(0.01, 2.0, 400)
DRAWS = 1000  # laws that the bootstrap fits
COVERAGE = 0.9  # of all intervals


@dataclasses.dataclass(frozen=True)
class Law:
  """loss(C) = irreducible + scale * (C / unit) ** -alpha, for one law or for arrays of laws.

  Attributes:
    irreducible: the loss that remains at any compute, in nats.
    scale: the loss above it at C = unit, in nats.
    alpha: the exponent.
    unit: the geometric mean of the compute of all runs, in FLOPs.
  """

  irreducible: Any
  scale: Any
  alpha: Any
  unit: float

  def __call__(self, compute: Any) -> Any:
    return self.irreducible + self.scale * (compute / self.unit) ** -self.alpha


@dataclasses.dataclass(frozen=True)
class Fit:
  """A fitted law with its uncertainty.

  Attributes:
    law: the law that fits best.
    draws: the laws of the bootstrap.
    noise: for each of them, a drawn difference between a new run and the law, in nats.
  """

  law: Law
  draws: Law
  noise: np.ndarray

  def interval(self, name: str) -> tuple[float, float]:
    """Returns the interval of a field of the law."""
    return _interval(getattr(self.draws, name))

  def predict(self, compute: float) -> tuple[float, float, float]:
    """Returns (loss, low, high) for a new run; the interval includes the noise of that run."""
    return float(self.law(compute)), *_interval(self.draws(compute) + self.noise)


def fit(compute: Sequence[float], loss: Sequence[float]) -> Fit:
  """Fits a law by least squares with E and A of at least 0, and bootstraps its residuals.

  So few residuals do not determine the size of the noise well. Each draw therefore first draws that
  size, from the chi-squared distribution of a variance estimated from the runs less three
  parameters. For constant noise that gives Student's intervals.

  Args:
    compute: the FLOPs of each run.
    loss: the held-out loss of each run, in nats.

  Raises:
    UserError: there are fewer than four different sizes, so that three parameters would fit any.
  """
  compute, loss = np.asarray(compute, float), np.asarray(loss, float)
  if len(np.unique(compute)) < 4:
    raise UserError(
      field='number of sizes',
      value=len(np.unique(compute)),
      allowed='at least 4',
      message='The law has three parameters.',
    )
  law = _least_squares(compute, loss)
  rng, freedom = np.random.default_rng(0), len(loss) - 3
  residuals = (loss - law(compute)) * np.sqrt(len(loss) / freedom)
  size = np.sqrt(freedom / rng.chisquare(freedom, DRAWS))[:, None]
  drawn = size * rng.choice(np.concatenate([residuals, -residuals]), (DRAWS, len(loss) + 1))
  return Fit(law, _least_squares(compute, law(compute) + drawn[:, 1:]), drawn[:, 0])


def write(workdir: pathlib.Path, points: Sequence[tuple[float, float]]) -> None:
  """Predicts the largest run from all others, and writes ladder.json, ladder.md and ladder.png.

  Args:
    workdir: the folder to write to.
    points: (compute in FLOPs, loss in nats) of each run.
  """
  points = sorted(points)
  compute, loss = zip(*points[:-1], strict=True)
  target, measured = points[-1]
  found = fit(compute, loss)
  predicted, low, high = found.predict(target)
  law = {
    name: {'value': float(getattr(found.law, name)), 'interval': found.interval(name)}
    for name in ('irreducible', 'scale', 'alpha')
  }
  result = {
    'law': law | {'unit': found.law.unit},
    'coverage': COVERAGE,
    'points': points[:-1],
    'next': {
      'compute': target,
      'predicted': predicted,
      'interval': (low, high),
      'measured': measured,
      'inside': low <= measured <= high,
    },
  }
  files.write_json(workdir / 'ladder.json', result)
  rows = [f'| {c:.3g} | {l:.4f} | {found.law(c):.4f} | | fitted |' for c, l in points[:-1]]
  verdict = 'inside' if low <= measured <= high else 'OUTSIDE'
  rows.append(
    f'| {target:.3g} | {measured:.4f} | {predicted:.4f} | {low:.4f} to {high:.4f} | '
    f'predicted: {verdict} |'
  )
  terms = []
  for name, x in law.items():
    first, last = x['interval']
    terms.append(f'{name} {x["value"]:.3g} [{first:.3g}, {last:.3g}]')
  text = [
    f'loss(C) = irreducible + scale * (C / {found.law.unit:.3g} FLOPs) ** -alpha; {COVERAGE:.0%} '
    'intervals: ' + ', '.join(terms),
    '',
    '| compute, FLOPs | loss measured | loss of the law | interval | |',
    '|---|---|---|---|---|',
    *rows,
  ]
  files.write_text(workdir / 'ladder.md', '\n'.join(text) + '\n')
  along = np.geomspace(compute[0], target, 50)
  figure = plots.points(
    [*compute, target],
    [*loss, measured],
    ylabel='held-out loss, nats a token',
    xlabel='compute, FLOPs',
    line=(along, found.law(along)),
    interval=(target, low, high),
  )
  files.write_bytes(workdir / 'ladder.png', plots.png(figure))


def _least_squares(compute: np.ndarray, loss: np.ndarray) -> Law:
  """Returns the best law of losses [..., runs] in least squares.

  For each alpha of a grid the best E and A have a closed form; the alpha with the smallest error
  wins.
  """
  unit = float(np.exp(np.log(compute).mean()))
  x = (compute / unit) ** -ALPHAS[:, None]  # [alphas, runs]
  centred = x - x.mean(axis=1, keepdims=True)
  scale = np.maximum(loss @ centred.T / (centred**2).sum(axis=1), 0)  # [..., alphas]
  irreducible = loss.mean(axis=-1, keepdims=True) - scale * x.mean(axis=1)
  negative = irreducible < 0  # there the best allowed value is 0, with another scale
  scale = np.where(negative, loss @ x.T / (x**2).sum(axis=1), scale)
  irreducible = np.where(negative, 0, irreducible)
  error = ((loss[..., None, :] - irreducible[..., None] - scale[..., None] * x) ** 2).sum(axis=-1)
  best = error.argmin(axis=-1)

  def pick(values):
    return np.take_along_axis(values, best[..., None], axis=-1)[..., 0]

  return Law(pick(irreducible), pick(scale), ALPHAS[best], unit)


def _interval(values: np.ndarray) -> tuple[float, float]:
  """Returns the central interval of COVERAGE."""
  low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
  return float(low), float(high)
