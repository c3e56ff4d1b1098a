"""The Wilson interval against published figures and against its definition."""

import math

import pytest

from lm.evals.intervals import wilson


@pytest.mark.parametrize(
  ('successes', 'n', 'low', 'high'),
  [
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3 (score without continuity correction).
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
