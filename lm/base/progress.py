"""Progress bars: drawn in place on a terminal, and as a line every ten seconds in a log file.

This module imports nothing of ours and no jax, so that `data/` can use it.
"""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

import tqdm

LINE_SECONDS = 10  # between two lines of a bar where stderr is not a terminal


class _Log:
  """Writes each state of a bar as a line of its own, without control characters."""

  def __init__(self, stream: TextIO):
    self._stream = stream

  def write(self, text: str) -> None:
    if line := text.strip():
      self._stream.write(f'{line}\n')

  def flush(self) -> None:
    self._stream.flush()


def bar(iterable: Iterable | None = None, **options: Any) -> tqdm.tqdm:
  """Returns a bar of tqdm on stderr, with its options.

  Where stderr is not a terminal, the bar prints nothing in its first ten seconds.
  """
  if sys.stderr.isatty():
    return tqdm.tqdm(iterable, **options)
  options |= {
    'file': _Log(sys.stderr),
    'mininterval': LINE_SECONDS,
    'delay': LINE_SECONDS,
    'miniters': 1,
    'leave': True,
    'position': 0,
  }
  return tqdm.tqdm(iterable, **options)


def write(text: str) -> None:
  """Prints a line to stderr, above the bars that are drawn there."""
  tqdm.tqdm.write(text, file=sys.stderr)
