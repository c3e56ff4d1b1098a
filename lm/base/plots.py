"""Draws the pictures of reports.

As SVG, text and axes have the text colour of the page around them, so that they suit light and dark
pages.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # matplotlib is imported by what draws: commands that may draw start without it
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

INK = '#24292e'  # replaced by the page's text colour in SVG, and legible on white in PNG
PALETTE = ('#3b82f6', '#f97316', '#10b981', '#a855f7', '#eab308', '#ef4444')
RC = {
  'axes.axisbelow': True,
  'axes.edgecolor': INK,
  'axes.grid': True,
  'axes.labelcolor': INK,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.titlecolor': INK,
  'axes.titlelocation': 'left',
  'axes.titlesize': 11,
  'figure.constrained_layout.use': True,
  'font.family': 'sans-serif',
  'font.size': 10,
  'grid.alpha': 0.2,
  'grid.color': INK,
  'legend.frameon': False,
  'legend.labelcolor': INK,
  'lines.linewidth': 1.8,
  'svg.fonttype': 'none',
  'svg.hashsalt': 'deepdive',  # the same file for the same picture
  'text.color': INK,
  'xtick.color': INK,
  'ytick.color': INK,
}

Series = tuple[Sequence[float], Sequence[float]]  # steps and values; a value may be NaN


class Panel:
  """What one set of axes shows: series over the training step, and horizontal lines.

  Attributes:
    title: the text above the axes.
    series: steps and values by name.
    lines: values to compare with, by name.
  """

  def __init__(
    self, title: str, series: Mapping[str, Series], lines: Mapping[str, float] | None = None
  ):
    self.title, self.series, self.lines = title, series, lines or {}


@contextlib.contextmanager
def style(**more: Any) -> Iterator[None]:
  """Has pictures drawn with RC, and with `more` settings of matplotlib, inside the block."""
  import matplotlib

  with matplotlib.rc_context(RC | more):
    yield


def new_figure(width: float, height: float) -> 'Figure':
  """Returns an empty figure of this size, in inches."""
  from matplotlib.figure import Figure

  return Figure(figsize=(width, height))


def curves(panels: Sequence[Panel]) -> 'Figure':
  """Draws panels side by side.

  A long series is drawn faintly, with its running mean over a tenth of its length.
  """
  with style():
    figure = new_figure(9.6, 3.4)
    for ax, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
      for (name, (x, y)), color in zip(panel.series.items(), PALETTE, strict=False):
        _curve(ax, name, np.asarray(x, float), np.asarray(y, float), color)
      _lines(ax, panel.lines)
      ax.set_title(panel.title)
      ax.set_xlabel('step')
      if len(panel.series) > 1:
        ax.legend()
    return figure


def bars(
  groups: Sequence[str], bars: Mapping[str, Sequence[tuple[float, float, float] | None]], title: str
) -> 'Figure':
  """Draws grouped bars with intervals.

  Args:
    groups: the names along the x axis.
    bars: by the name of a colour, (value, low, high) for each group, None where there is none.
    title: the text above the axes.
  """
  with style():
    figure = new_figure(9.6, 3.6)
    ax = figure.subplots()
    width = 0.8 / len(bars)
    for i, (name, triples) in enumerate(bars.items()):
      at = [j + (i - (len(bars) - 1) / 2) * width for j, t in enumerate(triples) if t]
      value, low, high = np.array([t for t in triples if t]).reshape(-1, 3).T
      ax.bar(at, value, width * 0.92, color=PALETTE[i], label=name)
      error = np.maximum([value - low, high - value], 0)
      ax.errorbar(at, value, yerr=error, fmt='none', ecolor=INK, elinewidth=1.1, capsize=2.5)
    ax.set_xticks(range(len(groups)), groups, rotation=0 if len(groups) <= 6 else 25, ha='center')
    ax.grid(axis='x', visible=False)
    ax.set_ylim(0, 1.02)
    ax.set_title(title)
    ax.legend(ncols=len(bars), loc='upper right', bbox_to_anchor=(1, 1.16), borderaxespad=0)
    return figure


def points(
  x: Sequence[float | str],
  y: Sequence[float],
  ylabel: str,
  xlabel: str = '',
  *,
  line: Series | None = None,
  interval: tuple[float, float, float] | None = None,
) -> 'Figure':
  """Draws a dot for each run. The x axis is logarithmic where it has positive numbers.

  Args:
    x: the number or the name of each run.
    y: the value of each run.
    ylabel: the name of the values.
    xlabel: the name of the numbers.
    line: x and y of a curve through the dots.
    interval: (x, low, high) of a predicted value.
  """
  with style():
    figure = new_figure(6.4, 4.0)
    ax = figure.subplots()
    ax.plot(x, y, 'o', color=PALETTE[0])
    if line:
      ax.plot(*line, color=PALETTE[1], linewidth=1.3)
    if interval:
      ax.vlines(interval[0], *interval[1:], color=PALETTE[2], linewidth=5, alpha=0.5)
    if isinstance(x[0], str):
      ax.tick_params(axis='x', rotation=25)
    elif min(x) > 0:
      ax.set_xscale('log')
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    return figure


def bands(
  x: Sequence[float],
  panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
  xlabel: str,
  *,
  log: bool = True,
) -> 'Figure':
  """Draws panels of lines with their intervals as bands, three side by side.

  Args:
    x: the numbers along the x axis.
    panels: by title and by the name of a line, (value, low, high) at each x.
    xlabel: the name of the numbers.
    log: whether the x axis is logarithmic.
  """
  with style():
    rows = -(-len(panels) // 3)
    figure = new_figure(9.6, 0.6 + 2.2 * rows)
    axes = figure.subplots(rows, 3, sharex=True, sharey=True, squeeze=False).flat
    for ax, (title, lines) in zip(axes, panels.items(), strict=False):
      for (name, triples), color in zip(lines.items(), PALETTE, strict=False):
        value, low, high = np.array(triples).T
        ax.plot(x, value, color=color, label=name, marker='o', markersize=3)
        ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
      ax.set_title(title)
    for ax in axes[len(panels) :]:
      ax.set_visible(False)
    ax = axes[0]
    if log:
      ax.set_xscale('log', base=2)
    ax.set_xticks(x, x)
    ax.set_ylim(-0.02, 1.02)
    figure.legend(*ax.get_legend_handles_labels(), loc='outside upper right', ncols=len(lines))
    figure.supxlabel(xlabel, fontsize=10)
    return figure


def twins(
  panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]]],
  xlabel: str,
  ylabel: str,
) -> 'Figure':
  """Draws panels side by side in which each name has a solid line and a dashed one.

  Args:
    panels: by title and by name, the x of the points, and the heights of both lines.
    xlabel: the name of the x axis.
    ylabel: that of the y axis, which all panels share.
  """
  with style():
    figure = new_figure(9.6, 3.4)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
      for (name, (x, solid, dashed)), color in zip(lines.items(), PALETTE, strict=False):
        ax.plot(x, solid, color=color, label=name, marker='o', markersize=3)
        ax.plot(x, dashed, color=color, linestyle='--', linewidth=1.2)
      ax.set_title(title)
      ax.set_xlabel(xlabel)
      ax.legend(fontsize=8)
    axes[0].set_ylabel(ylabel)
    return figure


def verbatim(text: str) -> str:
  """Returns a text for a figure in which matplotlib takes '$' for itself, not for mathematics."""
  return text.replace('$', r'\$')


def svg(figure: 'Figure') -> str:
  """Returns an <svg> element without background, in the text colour of the page around it."""
  with style():
    out = io.StringIO()
    figure.savefig(out, format='svg', transparent=True, metadata={'Date': None})
  _, start, rest = out.getvalue().partition('<svg ')  # what comes before is for a file of its own
  return (start + 'role="img" ' + rest).replace(INK, 'currentColor')


def png(figure: 'Figure') -> bytes:
  """Returns the bytes of a PNG file on white."""
  with style():
    out = io.BytesIO()
    figure.savefig(out, format='png', dpi=120, facecolor='white')
  return out.getvalue()


def _curve(ax: 'Axes', name: str, x: np.ndarray, y: np.ndarray, color: str) -> None:
  """Draws one series, and its running mean where it is long."""
  radius = len(y) // 20
  if radius < 2:
    ax.plot(x, y, color=color, label=name, marker='o' if len(y) < 40 else '', markersize=3)
    return
  ax.plot(x, y, color=color, alpha=0.25, linewidth=0.8)
  ax.plot(x, _running_mean(y, radius), color=color, label=name)


def _running_mean(y: np.ndarray, radius: int) -> np.ndarray:
  """Returns the mean of the finite values up to `radius` places away from each value."""
  place = np.arange(len(y))
  # The radius shrinks towards the ends, so that each mean stays centred.
  radius = np.minimum(np.minimum(radius, place), place[::-1])

  def window_sums(values: np.ndarray) -> np.ndarray:
    sums = np.concatenate([[0], np.cumsum(values)])
    return sums[place + radius + 1] - sums[place - radius]

  total, count = window_sums(np.nan_to_num(y)), window_sums(np.isfinite(y))
  return np.divide(total, count, out=np.full(len(y), np.nan), where=count > 0)


def _lines(ax: 'Axes', lines: Mapping[str, float]) -> None:
  """Draws dashed lines with their names to the right; names too close to each other are moved."""
  low, high = ax.get_ylim()
  low, high = min([low, *lines.values()]), max([high, *lines.values()])
  gap, height = (high - low) * 0.07, -np.inf
  ascending = sorted(lines.items(), key=lambda item: item[1])
  for (name, value), color in zip(ascending, PALETTE[1:], strict=False):
    height = max(value, height + gap)
    ax.axhline(value, color=color, linewidth=1.3, linestyle=(0, (4, 3)))
    ax.annotate(
      f'{name} {value:.2f}',
      (1.01, height),
      xycoords=('axes fraction', 'data'),
      va='center',
      fontsize=9,
      color=color,
      annotation_clip=False,
    )
