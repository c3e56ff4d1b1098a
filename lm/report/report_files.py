"""Writes the files of a report: JSON, Markdown with PNG pictures, and one HTML page."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lm.base import files, plots
from lm.base.document import Block, Picture, to_html, to_markdown

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def pictures(
  workdir: pathlib.Path, figures: Mapping[str, tuple[str, 'Figure']]
) -> dict[str, Picture]:
  """Returns pictures by name, and writes the PNG files that the Markdown shows.

  Args:
    workdir: the folder of the report.
    figures: the caption and the figure of each.
  """
  shown = {}
  for name, (caption, figure) in figures.items():
    path = f'report_plots/{name}.png'
    files.write_bytes(workdir / path, plots.png(figure))
    shown[name] = Picture(caption, plots.svg(figure), path)
  return shown


def measured(value: float | None, low: float | None, high: float | None) -> str:
  """Returns a value with its interval as text; '-' where there is no value."""
  if value is None:
    return '-'
  return f'{value:.2f}' if low is None or high is None else f'{value:.2f} [{low:.2f}, {high:.2f}]'


def write(
  workdir: pathlib.Path, title: str, blocks: Sequence[Block], report: dict[str, Any]
) -> None:
  """Writes report.md and report.html of the blocks, and then report.json, which completes them."""
  files.write_text(workdir / 'report.md', to_markdown(blocks))
  files.write_text(workdir / 'report.html', to_html(title, blocks))
  files.write_json(workdir / 'report.json', report)
