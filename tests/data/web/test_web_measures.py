"""Histograms against counts made another way."""

import itertools
import random
import xml.etree.ElementTree as ElementTree

import pytest

from data.web.measures import FINE, Statistics, picture
from lm.base import plots


def of(values, low=None, high=None):
  found = Statistics()
  for value in values:
    found.add({'rule: what': [value, low, high]})
  return found.histograms()['rule: what']


def samples(seed, scale, digits):
  rng = random.Random(seed)
  return [round(rng.expovariate(1 / scale), digits) for _ in range(2000)]


@pytest.mark.parametrize(
  ('values', 'low', 'high'),
  [
    (samples(0, 0.1, 4), None, 0.15),
    (samples(1, 0.1, 4), 0.12, 0.3),
    (samples(2, 4, 1), 3, 10),
    (samples(3, 300, 0), 50, 900),
    (samples(4, 0.3, 0), None, 0),
    (samples(5, 3, 0), 2, None),
    ([7.0] * 5, None, None),
    ([0.0], 0.65, None),
  ],
)
def test_counts_are_exact_and_no_bin_straddles_a_bound(values, low, high):
  found = of(values, low, high)
  edges, counts = found['edges'], found['counts']
  assert (
    edges == sorted(set(edges))
    and len(counts) == len(edges) - 1 <= 80
    and (found['low'], found['high']) == (low, high)
  )
  assert counts == [sum(a <= value < b for value in values) for a, b in itertools.pairwise(edges)]
  assert sum(counts) == len(values)
  if low is not None:
    assert sum(n for n, edge in zip(counts, edges, strict=False) if edge < low) == sum(
      value < low for value in values
    )
  if high is not None:
    assert sum(n for n, edge in zip(counts, edges, strict=False) if edge > high) == sum(
      value > high for value in values
    )


def test_an_outlier_does_not_flatten_the_rest():
  assert len([n for n in of([*samples(0, 0.1, 4), 9000], high=0.2)['counts'] if n]) > 20


def test_memory_is_bounded_whatever_the_values():
  statistics = Statistics()
  for i in range(200_000):
    statistics.add({'a: b': [i * 7919.0 * i, None, 100_000]})
  assert len(statistics._counts['a: b']) <= len(FINE) < 25_000
  histogram = statistics.histograms()['a: b']
  assert sum(histogram['counts']) == 200_000 and len(histogram['counts']) < 80


def test_bounds_are_kept_whichever_page_told_them():
  statistics = Statistics()
  for figures in ([40, 50, None], [60, 50, 100], [45, 50, None]):
    statistics.add({'a: b': figures})
  assert (statistics.histograms()['a: b']['low'], statistics.histograms()['a: b']['high']) == (
    50,
    100,
  )


def test_the_picture_has_a_bar_a_bin_and_a_line_a_bound():
  histograms = {
    'gopher: <b>&"': of(samples(3, 300, 0), 50, 900),
    'c4: $ {': of([0, 0, 1], high=0),
    'fineweb: $x$': of([0.5]),
    'other: y': of([0.5], low=0.1),
  }
  figure = picture(histograms)
  assert len(figure.axes) == len(histograms)
  for ax, histogram in zip(figure.axes, histograms.values(), strict=True):
    counts = [n for n in histogram['counts'] if n]
    assert [round(bar.get_height() ** 2) for bar in ax.patches] == counts
    lines = [line.get_xdata()[0] for line in ax.lines]
    assert len(lines) == sum(histogram[name] is not None for name in ('low', 'high'))
    for bar in ax.patches:  # what a bound drops is drawn beyond its line
      edge = histogram['edges'][round(bar.get_x())]
      if histogram['high'] is not None:
        assert (edge > histogram['high']) == (bar.get_x() >= lines[-1])
      if histogram['low'] is not None:
        assert (edge < histogram['low']) == (bar.get_x() < lines[0])
  root = ElementTree.fromstring(plots.svg(figure))
  texts = ''.join(root.itertext())
  assert all(part in texts for part in ('<b>&"', '$ {', '$x$', '≥ 50', '≤ 900'))
