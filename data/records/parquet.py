"""Reads rows of Parquet files, local or in a bucket, as the JSON values of JSON Lines."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import fsspec

from data.records import forms, jsonl
from lm.base import buckets, files
from lm.base.errors import missing_package

T = TypeVar('T')
ROWS = 256  # number of rows that are in memory as Python objects at the same time


def read(path: files.Path, parse: Callable[[Any], T], skipped: jsonl.Skipped) -> Iterator[T]:
  """Yields `parse(row)` for each row of a Parquet file; unusable rows go to `skipped`.

  A column is a field of the row, a list column a list, and a struct column an object. Fields
  without a value (null) are left out, because a Parquet file has every field in every row.

  Args:
    path: a path or URL that fsspec opens.
    parse: converts a row. It raises UserError with the cause to skip the row.
    skipped: receives the rows that cannot be used, by number, and the rest of a damaged file.

  Raises:
    OSError: the file does not exist or cannot be read.
    UserError: the package pyarrow is not installed.
  """
  try:
    import pyarrow
    from pyarrow import parquet
  except ImportError as error:
    raise missing_package('pyarrow', 'parquet', str(path)) from error
  buckets.check(path)

  def rows() -> Iterator[tuple[Callable[[], str], Any]]:
    number = 0
    with fsspec.open(str(path), 'rb') as file:
      try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=ROWS):
          for row in batch.to_pylist():
            number += 1
            yield functools.partial('{}, row {}'.format, path, number), row
      except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
          raise
        place = f'{path}, row {number + 1}'
        skipped.add(place, f'the rest of the file was not read: cut off or damaged: {error}')

  yield from jsonl.parse_each(rows(), lambda row: parse(forms.without_nulls(row)), skipped)
