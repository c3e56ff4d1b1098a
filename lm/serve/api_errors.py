"""Errors of the HTTP API, in the form that OpenAI's clients read.

A handler raises `ApiError`; lm/serve/app.py turns it into {"error": {"message", "type", "param",
"code"}} with its status. A `UserError` of any room becomes one with status 400.
"""

from collections.abc import Sequence
from typing import Any

import pydantic
from starlette.responses import JSONResponse

from lm.base.errors import UserError

MESSAGE_CHARS = 1000  # of a message, which may quote what was sent
# The type that goes with a status, where it is not an invalid request.
TYPES = {
  401: 'authentication_error',
  429: 'rate_limit_error',
  500: 'server_error',
  503: 'server_error',
}


class ApiError(Exception):
  """A response with an error status.

  Attributes:
    status: HTTP status.
    message: for people.
    param: the field of the request that is at fault, or None.
    code: a name for programs, such as 'model_not_found', or None.
    headers: of the response.
  """

  def __init__(
    self,
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
  ):
    super().__init__(message)
    self.status, self.param, self.code = status, param, code
    self.message = message[:MESSAGE_CHARS].encode('utf-8', 'replace').decode()
    self.headers = headers or {}

  @classmethod
  def of(cls, error: UserError) -> 'ApiError':
    """Returns the response to a fault of the user's."""
    return cls(400, str(error), param=error.field)

  @classmethod
  def of_body(cls, error: pydantic.ValidationError, value: Any) -> 'ApiError':
    """Returns the response to a body that does not have the form that its endpoint takes.

    It names the first field at fault, and quotes nothing that was sent but names of fields.

    Args:
      error: of the check.
      value: the body.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    paths = [_path(each['loc'], each['type'], value) for each in found]
    # Of the alternatives of a field that has several types, the one that was read furthest counts.
    same_field = [path for path in paths if path[:1] == paths[0][:1]]
    path = max(same_field, key=lambda p: (len(p), [part for part in p if isinstance(part, int)]))
    here = [each for each, other in zip(found, paths, strict=True) if other == path]
    param = _name(path)
    if here[0]['type'] == 'extra_forbidden':
      return cls(400, f'{param} is not supported', param=param, code='unsupported_parameter')
    reasons = ', or: '.join(dict.fromkeys(each['msg'] for each in here))
    return cls(400, f'{param or "body"}: {reasons}', param=param or None)

  def body(self) -> dict[str, Any]:
    """Returns the body of the response, a JSON object."""
    error_type = TYPES.get(self.status, 'invalid_request_error')
    error = {'message': self.message, 'type': error_type, 'param': self.param, 'code': self.code}
    return {'error': error}

  def response(self) -> JSONResponse:
    """Returns the response."""
    return JSONResponse(self.body(), self.status, self.headers)


def _path(loc: Sequence[str | int], kind: str, value: Any) -> tuple[str | int, ...]:
  """Returns the fields and places of lists that lead to an error of pydantic's.

  Where a field has several types, pydantic puts the name of each among them, which no client knows.

  Args:
    loc: where pydantic places the error.
    kind: its type.
    value: the body.
  """
  path: list[str | int] = []
  for i, part in enumerate(loc):
    is_missing = kind == 'missing' and i == len(loc) - 1
    if isinstance(value, list):
      is_inside = isinstance(part, int) and part < len(value)
    else:
      is_inside = isinstance(value, dict) and part in value
    if is_inside:
      value = value[part]
    elif not is_missing:
      continue
    path.append(part)
  if kind.startswith('union_tag'):  # the messages are told apart by their role
    path.append('role')
  return tuple(path)


def _name(path: Sequence[str | int]) -> str:
  """Returns a path in words, such as messages[0].content."""
  parts = (f'[{part}]' if isinstance(part, int) else f'.{part[:100]}' for part in path)
  return ''.join(parts).removeprefix('.')[:300]
