"""Counts histograms of what the rules measured, in bounded memory, and draws them."""

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lm.base import plots

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# The classes of values, of which bins are made: four decimals below 1, as in the record of pages,
# and three digits above.
FINE = [k / 10_000 for k in range(10_000)] + [
  k * 10**power / 100 for power in range(12) for k in range(100, 1000)
]
MOST_LINEAR = 20  # value above which the bins grow with the value
_COLUMNS = 3  # panels in a row of the picture
_RC = {'axes.grid': False, 'axes.titlesize': 8, 'font.size': 8, 'axes.spines.left': False}


class Statistics:
  """Counts the values of each statistic in at most len(FINE) classes, and keeps its bounds."""

  def __init__(self):
    self._counts: dict[str, Counter] = defaultdict(Counter)
    self._bounds: dict[str, tuple[float | None, float | None]] = {}

  def add(self, figures: Mapping[str, tuple[float, float | None, float | None]]) -> None:
    """Counts a page's figures, {name: (value, low, high)}."""
    for name, (value, low, high) in figures.items():
      self._counts[name][max(bisect_right(FINE, value) - 1, 0)] += 1
      # A page that was dropped for one bound was not compared with the other.
      before = self._bounds.get(name, (None, None))
      self._bounds[name] = (before[0] if low is None else low, before[1] if high is None else high)

  def histograms(self) -> dict[str, dict]:
    """Returns {name: {edges, counts, low, high}}; counts[i] values are in [edges[i], edges[i + 1]).

    `low` is an edge, and so is the next number above `high`: no bin has values on both sides of a
    bound.
    """
    return {
      name: self._histogram(counts, *self._bounds[name]) for name, counts in self._counts.items()
    }

  def _histogram(self, fine: Counter, low: float | None, high: float | None) -> dict:
    edges = _edges(fine, low, high)
    counts = [0] * (len(edges) - 1)
    for place, n in fine.items():
      counts[min(bisect_right(edges, FINE[place]), len(counts)) - 1] += n
    return {'edges': edges, 'counts': counts, 'low': low, 'high': high}


def _edges(fine: Counter, low: float | None, high: float | None) -> list[float]:
  """Returns the edges of a histogram's bins.

  Bins are even up to 1 or 20 if the bounds and 99 % of the values are there; else they grow with
  the value.
  """
  bounds = [bound for bound in (low, high) if bound is not None]
  reach = max([FINE[_quantile(fine, 0.99)], *bounds])
  if reach <= 1:
    edges = {k / 50 for k in range(51)}
  elif reach <= MOST_LINEAR:
    edges = {k / 2 for k in range(2 * MOST_LINEAR + 1)}
  else:
    edges = {0, *(k * 10**power / 10 for power in range(12) for k in (10, 15, 20, 30, 50, 70))}
  if low is not None:
    edges.add(low)
  if high is not None:
    edges = edges - {high} | {0, _next(high)}
  end = max([FINE[max(fine)], *bounds])
  edges = sorted(edges | {_next(end)})
  return edges[: bisect_right(edges, end) + 1]


def _next(value: float) -> float:
  """Returns the next number to which values are rounded."""
  return FINE[min(bisect_right(FINE, value), len(FINE) - 1)]


def _quantile(fine: Counter, share: float) -> int:
  """Returns the index into FINE below which this share of the values lies."""
  left = share * fine.total()
  for place in sorted(fine):
    left -= fine[place]
    if left <= 0:
      break
  return place


def picture(histograms: Mapping[str, dict]) -> 'Figure':
  """Draws a panel for each histogram: bars of one width, and lines at the bounds.

  The height of a bar is the square root of its count.
  """
  rows = math.ceil(len(histograms) / _COLUMNS)
  with plots.style(**_RC):
    figure = plots.new_figure(3.2 * _COLUMNS, 1.5 * max(rows, 1))
    axes = figure.subplots(max(rows, 1), _COLUMNS, squeeze=False).flat
    for ax, (name, histogram) in zip(axes, histograms.items(), strict=False):
      _panel(ax, name, **histogram)
    for ax in axes[len(histograms) :]:
      ax.remove()
    return figure


def _panel(
  ax: 'Axes',
  name: str,
  edges: list[float],
  counts: list[int],
  low: float | None,
  high: float | None,
) -> None:
  """Draws one histogram, named 'rule: what was measured'."""
  filled = [i for i, n in enumerate(counts) if n]
  ax.bar(filled, [math.sqrt(counts[i]) for i in filled], 0.9, align='edge', color=plots.PALETTE[0])
  ax.set_title(plots.verbatim(name.replace(': ', '\n', 1)))
  ax.set_xlim(0, len(counts))
  ax.set_yticks([])
  ax.set_xticks([0, len(counts)], [f'{edges[0]:.3g}', f'{edges[-1]:,.4g}'])
  for sign, bound, place in (('≥', low, bisect_left), ('≤', high, bisect_right)):
    if bound is not None:
      x = place(edges, bound)
      ax.axvline(x, color=plots.PALETTE[-1], linewidth=1, linestyle=(0, (4, 3)))
      left = x < len(counts) / 2
      ax.annotate(
        f' {sign} {bound:g} ',
        (x, 1),
        xycoords=('data', 'axes fraction'),
        ha='left' if left else 'right',
        va='top',
        color=plots.PALETTE[-1],
      )
