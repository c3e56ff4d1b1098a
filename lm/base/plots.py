"""The report's pictures. Text and axes take the colour of the page they stand on, so they suit
light and dark.
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = '#24292e'  # stands for the page's text colour; also good on the white of the PNG files
PALETTE = ('#3b82f6', '#f97316', '#10b981', '#a855f7', '#eab308', '#ef4444')
RC = {
  'axes.edgecolor': INK, 'axes.labelcolor': INK, 'axes.spines.right': False, 'axes.spines.top': False,
  'axes.titlelocation': 'left', 'axes.titlesize': 11, 'axes.titlecolor': INK, 'font.size': 10, 'grid.alpha': 0.2,
  'grid.color': INK, 'axes.grid': True, 'axes.axisbelow': True, 'legend.frameon': False, 'legend.labelcolor': INK,
  'lines.linewidth': 1.8, 'svg.fonttype': 'none', 'svg.hashsalt': 'deepdive', 'text.color': INK, 'xtick.color': INK,
  'ytick.color': INK, 'font.family': 'sans-serif', 'figure.constrained_layout.use': True,
}  # fmt: skip

Series = tuple[Sequence[float], Sequence[float]]  # steps and values; a value may be NaN


class Panel:
  """What one set of axes shows: named series over the training step, and named horizontal lines to
  compare with.
  """

  def __init__(
    self, title: str, series: Mapping[str, Series], lines: Mapping[str, float] | None = None
  ):
    self.title, self.series, self.lines = title, series, lines or {}


def curves(panels: Sequence[Panel]) -> Figure:
  """Panels side by side. A long series is drawn faintly, with its running mean over a tenth of its
  length.
  """
  with matplotlib.rc_context(RC):
    figure = Figure(figsize=(9.6, 3.4))
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
) -> Figure:
  """Grouped bars with intervals.

  Args:
    groups: names along the x axis.
    bars: for each colour, for each group: (value, low, high), or None where there is none.
    title: over the axes.
  """
  with matplotlib.rc_context(RC):
    figure = Figure(figsize=(9.6, 3.6))
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
) -> Figure:
  """A dot for each run. Numbers on the x axis are on a logarithmic scale.

  Args:
    line: a law through them.
    interval: (x, low, high) of what it foretells.
  """
  with matplotlib.rc_context(RC):
    figure = Figure(figsize=(6.4, 4.0))
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


def svg(figure: Figure) -> str:
  """The figure as an <svg> element for an HTML page, without background, in the page's text
  colour.
  """
  with matplotlib.rc_context(RC):
    out = io.StringIO()
    figure.savefig(out, format='svg', transparent=True, metadata={'Date': None})
  text = out.getvalue()
  return (
    text[text.index('<svg') :].replace(INK, 'currentColor').replace('<svg ', '<svg role="img" ', 1)
  )


def png(figure: Figure) -> bytes:
  """The figure as a PNG file on white."""
  with matplotlib.rc_context(RC):
    out = io.BytesIO()
    figure.savefig(out, format='png', dpi=120, facecolor='white')
  return out.getvalue()


def _curve(ax: Axes, name: str, x: np.ndarray, y: np.ndarray, color: str) -> None:
  width = len(y) // 20
  if width < 2:
    ax.plot(x, y, color=color, label=name, marker='o' if len(y) < 40 else '', markersize=3)
    return
  ax.plot(x, y, color=color, alpha=0.25, linewidth=0.8)
  here = np.arange(len(y))
  # narrower at the ends, so that the mean stays centred
  width = np.minimum(np.minimum(width, here), here[::-1])
  total, count = (np.concatenate([[0], np.cumsum(v)]) for v in (np.nan_to_num(y), np.isfinite(y)))
  total, count = (v[here + width + 1] - v[here - width] for v in (total, count))
  ax.plot(
    x,
    np.divide(total, count, out=np.full(len(y), np.nan), where=count > 0),
    color=color,
    label=name,
  )


def _lines(ax: Axes, lines: Mapping[str, float]) -> None:
  """Dashed lines, each named in its colour beyond the right end; names too close to each other are
  moved apart.
  """
  low, high = ax.get_ylim()
  low, high = min([low, *lines.values()]), max([high, *lines.values()])
  gap, at = (high - low) * 0.07, -np.inf
  for (name, value), color in zip(
    sorted(lines.items(), key=lambda item: item[1]), PALETTE[1:], strict=False
  ):
    at = max(value, at + gap)
    ax.axhline(value, color=color, linewidth=1.3, linestyle=(0, (4, 3)))
    ax.annotate(f'{name} {value:.2f}', (1.01, at), xycoords=('axes fraction', 'data'), va='center', fontsize=9,
                color=color, annotation_clip=False)  # fmt: skip
