"""Errors of the HTTP API, in the form that OpenAI's clients read.

A handler raises `ApiError`; lm/serve/app.py turns it into {"error": {"message", "type", "param",
"code"}} with its status. A `UserError` of any room becomes one with status 400.
"""

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
  def of_body(cls, error: pydantic.ValidationError) -> 'ApiError':
    """Returns the response to a body that does not have the form that its endpoint takes.

    It names the first field at fault, and quotes nothing that was sent but names of fields.
    """
    # Of the alternatives of a field that has several types, the one that was read furthest counts.
    found = error.errors(include_url=False, include_context=False, include_input=False)
    first = max(found, key=lambda e: len(e['loc']) if e['loc'][:1] == found[0]['loc'][:1] else 0)
    param = '.'.join(str(part)[:100] for part in first['loc'])[:300]
    if first['type'] == 'extra_forbidden':
      return cls(400, f'{param} is not supported', param=param, code='unsupported_parameter')
    return cls(400, f'{param or "body"}: {first["msg"]}', param=param or None)

  def body(self) -> dict[str, Any]:
    """Returns the body of the response, a JSON object."""
    error_type = TYPES.get(self.status, 'invalid_request_error')
    error = {'message': self.message, 'type': error_type, 'param': self.param, 'code': self.code}
    return {'error': error}

  def response(self) -> JSONResponse:
    """Returns the response."""
    return JSONResponse(self.body(), self.status, self.headers)
