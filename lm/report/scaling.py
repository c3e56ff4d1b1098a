"""Scaling laws: loss(C) = E + A * C ** -alpha over compute C, with bootstrap intervals, tried on
the next size up.

E is the loss that no compute takes away, alpha how fast the rest falls (Hoffmann et al. 2022, arXiv
2203.15556, whose fit over parameters and tokens apart is not needed along a ladder where both grow
together).
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.base import files, plots
from lm.base.errors import UserError

ALPHAS = np.geomspace(0.01, 2.0, 400)
DRAWS = 1000  # of the bootstrap
COVERAGE = 0.9


@dataclasses.dataclass(frozen=True)
class Law:
  """loss(C) = irreducible + scale * (C / unit) ** -alpha; its fields are numbers, or arrays of as
  many laws.
  """

  irreducible: Any
  scale: Any
  alpha: Any
  unit: float  # FLOPs, the geometric mean of those fitted: there `scale` is a loss

  def __call__(self, compute: Any) -> Any:
    return self.irreducible + self.scale * (compute / self.unit) ** -self.alpha


@dataclasses.dataclass(frozen=True)
class Fit:
  """The law that fits best, the DRAWS laws of the bootstrap, and for each what a new run would be
  off by (nats).
  """

  law: Law
  draws: Law
  noise: np.ndarray

  def interval(self, name: str) -> tuple[float, float]:
    """Of a field of the law, at COVERAGE."""
    return _interval(getattr(self.draws, name))

  def predict(self, compute: float) -> tuple[float, float, float]:
    """(loss, low, high) of a new run at so much compute; the interval holds the noise of that run
    too.
    """
    return float(self.law(compute)), *_interval(self.draws(compute) + self.noise)


def fit(compute: Sequence[float], loss: Sequence[float]) -> Fit:
  """Least squares, with E and A at least 0; intervals by a bootstrap of the residuals.

  So few residuals do not tell the noise well: each draw first draws its size, by the chi-squared
  law of a variance that was estimated from so many runs less three parameters. With constant noise
  that makes Student's intervals.

  Args:
    compute: FLOPs of each run.
    loss: held-out loss of each run, nats.

  Raises:
    UserError: fewer than four different sizes: three parameters would fit anything.
  """
  compute, loss = np.asarray(compute, float), np.asarray(loss, float)
  if len(np.unique(compute)) < 4:
    raise UserError(
      f'{len(np.unique(compute))} sizes are too few to fit a law of three parameters to; give at '
      'least 4'
    )
  law = _least_squares(compute, loss)
  rng, freedom = np.random.default_rng(0), len(loss) - 3
  residuals = (loss - law(compute)) * np.sqrt(len(loss) / freedom)
  size = np.sqrt(freedom / rng.chisquare(freedom, DRAWS))[:, None]
  drawn = size * rng.choice(np.concatenate([residuals, -residuals]), (DRAWS, len(loss) + 1))
  return Fit(law, _least_squares(compute, law(compute) + drawn[:, 1:]), drawn[:, 0])


def write(workdir: pathlib.Path, points: Sequence[tuple[float, float]]) -> None:
  """Fits all sizes but the one of most compute, foretells that one and writes ladder.json,
  ladder.md and ladder.png.

  Args:
    points: (compute, loss) of each run.
  """
  points = sorted(points)
  (compute, loss), (target, measured) = zip(*points[:-1], strict=True), points[-1]
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
  rows.append(
    f'| {target:.3g} | {measured:.4f} | {predicted:.4f} | {low:.4f} to {high:.4f} | foretold: '
    f'{"inside" if low <= measured <= high else "OUTSIDE"} |'
  )
  terms = [
    f'{name} {x["value"]:.3g} [{x["interval"][0]:.3g}, {x["interval"][1]:.3g}]'
    for name, x in law.items()
  ]
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
    'held-out loss, nats a token',
    'compute, FLOPs',
    line=(along, found.law(along)),
    interval=(target, low, high),
  )
  files.write_bytes(workdir / 'ladder.png', plots.png(figure))


def _least_squares(compute: np.ndarray, loss: np.ndarray) -> Law:
  """The law of losses [..., runs]: for each alpha of a grid the best E and A are known in closed
  form; the best is taken.
  """
  unit = float(np.exp(np.log(compute).mean()))
  x = (compute / unit) ** -ALPHAS[:, None]  # [alphas, runs]
  centred = x - x.mean(axis=1, keepdims=True)
  scale = np.maximum(loss @ centred.T / (centred**2).sum(axis=1), 0)  # [..., alphas]
  irreducible = loss.mean(axis=-1, keepdims=True) - scale * x.mean(axis=1)
  bent = irreducible < 0  # then it is 0
  scale = np.where(bent, loss @ x.T / (x**2).sum(axis=1), scale)
  irreducible = np.where(bent, 0, irreducible)
  error = ((loss[..., None, :] - irreducible[..., None] - scale[..., None] * x) ** 2).sum(axis=-1)
  best = error.argmin(axis=-1)

  def pick(values):
    return np.take_along_axis(values, best[..., None], axis=-1)[..., 0]

  return Law(pick(irreducible), pick(scale), ALPHAS[best], unit)


def _interval(values: np.ndarray) -> tuple[float, float]:
  low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
  return float(low), float(high)
