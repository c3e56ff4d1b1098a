"""Tells by its fields which of several public forms a row has."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from lm.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class Form:
  """A form of rows.

  Attributes:
    fields: the fields that every row of this form has, and no row of another form has together.
    read: converts a row of this form, given as an object. It raises UserError that names the field
      that is wrong.
    wins: whether a row that has the fields of other forms too is of this one.
  """

  fields: frozenset[str]
  read: Callable[..., Any]
  wins: bool = False


def read(row: Any, forms: Mapping[str, Form], *args: Any) -> Any:
  """Returns what the form of a row reads from it, given `args`; null fields are no fields.

  Raises:
    UserError: the row has none of the forms or more than one, or a field of it is wrong.
  """
  row = without_nulls(row)
  fields = row.keys() if isinstance(row, dict) else ()
  fitting = [form for form in forms.values() if form.fields.issubset(fields)]
  fitting = [form for form in fitting if form.wins] or fitting
  if len(fitting) != 1:
    allowed = [' and '.join(sorted(form.fields)) for form in forms.values()]
    raise UserError(
      field='row', value=row, allowed=f'an object with the fields of one form: {"; ".join(allowed)}'
    )
  return fitting[0].read(row, *args)


def without_nulls(value: Any) -> Any:
  """Returns a JSON value without the fields of objects that are null."""
  if isinstance(value, dict):
    return {name: without_nulls(item) for name, item in value.items() if item is not None}
  if isinstance(value, list):
    return [without_nulls(item) for item in value]
  return value


def require_text(field: str, value: Any) -> str:
  """Returns a value that is text. Raises UserError for any other."""
  if not isinstance(value, str):
    raise UserError(field=field, value=value, allowed='text')
  return value
