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
  """

  fields: frozenset[str]
  read: Callable[..., Any]


def of_row(row: Any, forms: Mapping[str, Form]) -> Form:
  """Returns the form of a row. Raises UserError if it has none of them or more than one."""
  fields = row.keys() if isinstance(row, dict) else ()
  fitting = [form for form in forms.values() if form.fields.issubset(fields)]
  if len(fitting) != 1:
    allowed = [' and '.join(sorted(form.fields)) for form in forms.values()]
    raise UserError(
      field='row', value=row, allowed=f'an object with the fields of one form: {"; ".join(allowed)}'
    )
  return fitting[0]


def require_text(field: str, value: Any) -> str:
  """Returns a value that is text. Raises UserError for any other."""
  if not isinstance(value, str):
    raise UserError(field=field, value=value, allowed='text')
  return value
