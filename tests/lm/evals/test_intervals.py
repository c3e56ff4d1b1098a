"""Intervals against published figures and against their definitions."""

import math

import numpy as np
import pytest

from lm.base.intervals import effective_size, wilson


@pytest.mark.parametrize(
  ('successes', 'n', 'low', 'high'),
  [
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3 (score without continuity
    # correction).
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
  ],
)
def test_published_examples(successes, n, low, high):
  assert wilson(successes, n) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(('successes', 'n'), [(0, 7), (3, 7), (7, 7), (450, 1000), (2.5, 9)])
def test_ends_are_the_proportions_whose_z_score_is_z(successes, n):
  p, z = successes / n, 1.96
  for end, inside in zip(wilson(successes, n, z), (successes > 0, successes < n), strict=True):
    if inside:
      assert abs(p - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n))


def test_knows_nothing_without_trials():
  assert wilson(0, 0) == (0.0, 1.0)


def test_trials_of_clusters_are_worth_what_their_spread_says():
  # By simulation: the variance of the mean over draws of 40 clusters of 10, in which p is drawn
  # anew for each cluster.
  rng = np.random.default_rng(0)
  p = rng.beta(1, 1, size=(2000, 40, 1))
  outcomes = rng.random((2000, 40, 10)) < p
  truth = 0.25 / outcomes.mean((1, 2)).var()
  clusters = np.repeat(np.arange(40), 10)
  found = [effective_size(x.ravel().tolist(), clusters.tolist()) for x in outcomes[:200]]
  assert 90 < truth < 110
  assert np.mean(found) == pytest.approx(truth, rel=0.05)


def test_independent_trials_are_worth_their_number():
  rng = np.random.default_rng(0)
  outcomes = (rng.random(3000) < 0.3).tolist()
  assert effective_size(outcomes, range(3000)) == pytest.approx(3000, rel=1e-3)
  assert effective_size(outcomes, np.repeat(np.arange(300), 10).tolist()) == pytest.approx(
    3000, rel=0.15
  )


def test_outcomes_that_are_all_the_same_are_worth_as_many_as_there_are_clusters():
  assert effective_size([True] * 6, 'aabbcc') == 3 and effective_size([False] * 4, 'aaaa') == 1
  assert effective_size([True, False], 'aa') == 1
