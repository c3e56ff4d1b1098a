"""Counts histograms of what the rules measured, in bounded memory, and draws them."""

import html
import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

# The classes of values, of which bins are made: four decimals below 1, as in the record of pages,
# and three digits above.
FINE = [k / 10_000 for k in range(10_000)] + [
  k * 10**power / 100 for power in range(12) for k in range(100, 1000)
]
MOST_LINEAR = 20  # value above which the bins grow with the value
# Sizes of the picture's panels and their bars, in SVG units.
_COLUMNS, _WIDTH, _HEIGHT, _BARS = 3, 320, 130, 60


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


def picture(histograms: Mapping[str, dict]) -> str:
  """Returns an <svg> element with a panel for each histogram: bars, and lines at the bounds."""
  rows = math.ceil(len(histograms) / _COLUMNS)
  panels = '\n'.join(
    f'<g transform="translate({i % _COLUMNS * _WIDTH} '
    f'{i // _COLUMNS * _HEIGHT})">{"".join(_panel(name, **histogram))}</g>'
    for i, (name, histogram) in enumerate(histograms.items())
  )
  size = f'0 0 {_COLUMNS * _WIDTH} {rows * _HEIGHT}'
  return (
    f'<svg role="img" viewBox="{size}" font-family="sans-serif" font-size="10" '
    f'fill="currentColor">\n{panels}\n</svg>'
  )


def _panel(
  name: str, edges: list[float], counts: list[int], low: float | None, high: float | None
) -> Iterable[str]:
  """Yields the SVG elements of one panel. The bounds' names are escaped."""
  width, top, bottom = _WIDTH - 30, 36, 36 + _BARS
  step, most = width / len(counts), max(counts)
  rule, _, what = name.partition(': ')
  yield (
    f'<text y="12" font-weight="bold">{html.escape(rule)}</text><text '
    f'y="25">{html.escape(what)}</text>'
  )
  for i, n in enumerate(counts):
    if n:
      height = _BARS * math.sqrt(n / most)
      tip = f'<title>{edges[i]:g} to {edges[i + 1]:g}: {n:,}</title>'
      box = (
        f'x="{i * step:.1f}" y="{bottom - height:.1f}" width="{0.9 * step:.1f}" '
        f'height="{height:.1f}"'
      )
      yield f'<rect {box} fill="#3b82f6">{tip}</rect>'
  yield f'<path d="M0 {bottom}H{width}" stroke="currentColor" stroke-opacity=".4"/>'
  yield f'<text y="{bottom + 12}">{edges[0]:.3g}</text>'
  yield f'<text x="{width}" y="{bottom + 12}" text-anchor="end">{edges[-1]:,.4g}</text>'
  for sign, bound, place in (('≥', low, bisect_left), ('≤', high, bisect_right)):
    if bound is not None:
      x = place(edges, bound) * step
      yield f'<path d="M{x:.1f} {top - 6}V{bottom}" stroke="#ef4444" stroke-dasharray="4 3"/>'
      anchor = 'start' if x < width / 2 else 'end'
      yield (
        f'<text x="{x:.1f}" y="{bottom + 24}" text-anchor="{anchor}" fill="#ef4444">{sign} '
        f'{bound:g}</text>'
      )
