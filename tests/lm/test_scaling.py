"""Scaling laws on points of a law that is known."""

import numpy as np
import pytest

from lm.base import files
from lm.base.errors import UserError
from lm.report import scaling

E, A, ALPHA, UNIT = 1.7, 0.9, 0.15, 1e15


def points(noise=0.0, seed=0, sizes=8):
  compute = np.geomspace(1e13, 1e17, sizes)
  return compute, E + A * (compute / UNIT) ** -ALPHA + np.random.default_rng(seed).normal(
    0, noise, sizes
  )


def test_the_law_of_exact_points_is_found():
  found = scaling.fit(*points())
  assert found.law.unit == pytest.approx(UNIT)
  assert found.law.alpha == pytest.approx(ALPHA, rel=0.01)  # the grid's
  assert (found.law.irreducible, found.law.scale) == pytest.approx((E, A), rel=0.02)
  assert found.predict(1e19)[0] == pytest.approx(E + A * 1e4**-ALPHA, rel=2e-3)


@pytest.mark.slow
def test_intervals_cover_about_as_often_as_they_say():
  inside, widths = [], []
  truth = E + A * (1e18 / UNIT) ** -ALPHA
  for seed in range(30):
    found = scaling.fit(*points(0.02, seed))
    low, high = found.interval('alpha')
    _, below, above = found.predict(1e18)
    measured = truth + np.random.default_rng(1000 + seed).normal(0, 0.02)
    inside.append((low <= ALPHA <= high, below <= measured <= above))
    widths.append(above - below)
  alpha, prediction = np.mean(inside, axis=0)
  assert alpha >= 0.8 and prediction >= 0.8
  assert 0.02 < np.median(widths) < 0.5  # and say something


def test_too_few_sizes_are_refused():
  with pytest.raises(UserError) as raised:
    scaling.fit([1, 1, 2, 3], [3.0, 3.1, 2.0, 1.0])
  assert raised.value.value == 3


def test_the_largest_size_is_predicted_from_the_others(tmp_path):
  compute, loss = points()
  loss[-1] += 0.5  # not as the law has it
  scaling.write(tmp_path, list(zip(compute.tolist(), loss.tolist(), strict=True)))
  report = files.read_json(tmp_path / 'ladder.json')
  assert (
    report['next']['predicted'] == pytest.approx(loss[-1] - 0.5, rel=1e-3)
    and not report['next']['inside']
  )
  assert len(report['points']) == 7 and 'OUTSIDE' in (tmp_path / 'ladder.md').read_text()
  assert (tmp_path / 'ladder.png').read_bytes()[:4] == b'\x89PNG'
