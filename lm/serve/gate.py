"""What every request passes before its handler: limits, keys, and counting.

It is one ASGI middleware. The limits that need the connection itself, such as a client that does
not read, are in lm/serve/listening.py.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import pathlib
import time
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lm.base.errors import UserError
from lm.serve.api_errors import ApiError
from lm.serve.service import Limits, Service

log = logging.getLogger(__name__)
# How much of a refused body is read: so many times what is allowed, and for how long.
DISCARDED = 8
DISCARD_SECONDS = 5
# Extra headers of all responses: pages need no outside asset, and no site may frame them.
HEADERS = ((b'x-content-type-options', b'nosniff'), (b'x-frame-options', b'DENY'))


class Gate:
  """Answers requests that break a limit or lack a key; the others go on to the application.

  Whatever a handler raises becomes a response in the form of `ApiError`.
  """

  def __init__(self, app: ASGIApp, service: Service, open_paths: Collection[str]):
    """Creates the gate.

    Args:
      app: the application.
      service: the state of the server.
      open_paths: paths that need no key; one that ends with '*' stands for all that begin so.
    """
    self._app, self._service = app, service
    self._exact = {path for path in open_paths if not path.endswith('*')}
    self._prefixes = tuple(path[:-1] for path in open_paths if path.endswith('*'))
    self._keys = [_digest(key) for key in service.api_keys]

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    monitor, began, status = self._service.monitor, time.monotonic(), 0
    body = _Body(receive, self._service.limits)

    async def counted(message: Message) -> None:
      nonlocal status
      if message['type'] == 'http.response.start':
        status = message['status']
        if status >= 400:
          await body.discard()
        message = message | {'headers': [*message.get('headers', ()), *HEADERS]}
      await send(message)

    self._service.num_open += 1
    try:
      try:
        self._check(scope)
        await self._app(scope, body.receive, counted)
      except (ApiError, UserError) as error:
        if status:
          raise
        refused = error if isinstance(error, ApiError) else ApiError.of(error)
        await refused.response()(scope, receive, counted)
      except Exception:
        log.exception('a handler failed')
        if not status:
          await ApiError(500, 'the server failed').response()(scope, receive, counted)
    finally:
      self._service.num_open -= 1
      # Paths that do not exist are counted together, so that nobody can make more and more of them.
      route = scope.get('route')
      path = getattr(route, 'path', 'other')
      monitor.requests.labels(path, str(status)).inc()
      monitor.seconds.labels(path).observe(time.monotonic() - began)

  def _check(self, scope: Scope) -> None:
    """Raises ApiError for a request that is not let in."""
    headers = dict(scope['headers'])
    hosts, path = self._service.hosts, scope['path']
    if hosts and _host(headers.get(b'host', b'').decode('latin-1')) not in hosts:
      # Otherwise a page of another site could reach a server on this machine by its own name.
      raise ApiError(400, 'the header Host names another server', code='wrong_host')
    is_open = path in self._exact or path.startswith(self._prefixes)
    if self._keys and not is_open:
      scheme, _, key = headers.get(b'authorization', b'').decode('latin-1').partition(' ')
      given = _digest(key.strip())
      # All keys are compared, each in constant time.
      known = [hmac.compare_digest(given, own) for own in self._keys]
      if scheme.lower() != 'bearer' or not any(known):
        headers = {'www-authenticate': 'Bearer'}
        raise ApiError(401, 'no valid API key', code='invalid_api_key', headers=headers)
    length = headers.get(b'content-length', b'0')
    if not length.isdigit() or int(length[:20]) > self._service.limits.body_bytes:
      raise _too_large(self._service.limits)
    if self._service.draining and scope['method'] == 'POST':
      headers = {'retry-after': '10', 'connection': 'close'}
      raise ApiError(503, 'the server is ending', code='shutting_down', headers=headers)


class _Body:
  """The body of a request, with limits on its bytes and its time."""

  def __init__(self, receive: Receive, limits: Limits):
    self._receive, self._limits = receive, limits
    self._deadline = time.monotonic() + limits.body_seconds
    self._read, self._ended = 0, False  # ended: complete, or given up

  async def receive(self) -> Message:
    """Returns the next message, as ASGI's `receive` does.

    Raises:
      ApiError: the body is too large, or did not arrive in time.
    """
    if self._ended:  # This waits for the client to leave.
      return await self._receive()
    try:
      async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
        message = await self._next()
    except TimeoutError:
      self._ended = True
      message = 'the body did not arrive in time'
      raise ApiError(408, message, headers={'connection': 'close'}) from None
    if self._read > self._limits.body_bytes:
      raise _too_large(self._limits)
    return message

  async def discard(self) -> None:
    """Reads what is left of the body for a while, for a response that refuses the request.

    A client that is still sending when the connection closes would not see the response.
    """
    most = self._read + DISCARDED * self._limits.body_bytes
    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(DISCARD_SECONDS):
        while not self._ended and self._read < most:
          await self._next()
    self._ended = True

  async def _next(self) -> Message:
    message = await self._receive()
    self._read += len(message.get('body', b''))
    self._ended = message['type'] != 'http.request' or not message.get('more_body')
    return message


def _too_large(limits: Limits) -> ApiError:
  message = f'the body has more than {limits.body_bytes:,} bytes'
  return ApiError(413, message, code='body_too_large', headers={'connection': 'close'})


def read_keys(path: str) -> tuple[str, ...]:
  """Returns the API keys of a file: its lines that are not empty.

  Raises:
    OSError: the file cannot be read.
    UserError: it has no key, or one that a header cannot carry.
  """
  text = pathlib.Path(path).read_text(encoding='utf-8', errors='replace')
  keys = tuple(line.strip() for line in text.splitlines() if line.strip())
  if not keys or not all(key.isascii() and key.isprintable() and ' ' not in key for key in keys):
    allowed = 'a file with a key on each line, of printable ASCII without spaces'
    raise UserError(field='--api-key-file', value=path, allowed=allowed)
  return keys


def _digest(key: str) -> bytes:
  """Returns a digest of a key, so that comparing does not tell its length."""
  return hashlib.sha256(key.encode('utf-8', 'replace')).digest()


def _host(value: str) -> str:
  """Returns the host of a header Host, without its port."""
  if value.startswith('['):
    return value.partition(']')[0][1:].lower()
  return value.partition(':')[0].lower()
