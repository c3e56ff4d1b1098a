"""What tests expect of errors of the user's: their attributes, never their text."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import pytest

from lm.base.errors import UserError


@contextlib.contextmanager
def refused(
  field: object, value: object = mock.ANY, allowed: object = mock.ANY, place: object = mock.ANY
) -> Iterator[pytest.ExceptionInfo[UserError]]:
  """Expects a UserError with these attributes in the block; yields as `pytest.raises` does."""
  with pytest.raises(UserError) as raised:
    yield raised
  error = raised.value
  found = error.field, error.value, error.allowed, error.place
  assert found == (str(field), value, allowed, place if place is mock.ANY else str(place))
