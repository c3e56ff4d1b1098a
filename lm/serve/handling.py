"""What handlers share: bodies, submitting requests, and clients that leave."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lm.base.errors import UserError
from lm.infer.requests import QueueFull, Request
from lm.serve import schemas
from lm.serve.api_errors import ApiError
from lm.serve.engine_thread import Answer, EngineFailed
from lm.serve.schemas import Form
from lm.serve.service import ServedModel

log = logging.getLogger(__name__)
DONE = b'data: [DONE]\n\n'  # the event that ends a stream
T = TypeVar('T')


async def read_body(request: HttpRequest, schema: type[Form]) -> Form:
  """Returns the body of a request, checked.

  Raises:
    ApiError: it is not JSON, or not of this form.
    UserError: an object has too many fields.
  """
  content_type = request.headers.get('content-type', '').partition(';')[0].strip().lower()
  if content_type != 'application/json':
    # Pages of other sites may send other types without asking first.
    raise ApiError(415, 'the body must have content-type application/json')
  return await asyncio.to_thread(schemas.read, await request.body(), schema)


def submit(model: ServedModel, request: Request) -> Answer:
  """Hands a request to a model's engine; the running event loop reads the answer.

  It does not wait, so that no cancellation of a task can lose the answer.

  Raises:
    ApiError: the queue is full, or the engine has ended.
    UserError: the request cannot be served.
  """
  try:
    return model.engine.submit(request, asyncio.get_running_loop())
  except QueueFull:
    headers = {'retry-after': '1'}
    message = 'too many requests wait already'
    raise ApiError(429, message, code='queue_full', headers=headers) from None
  except EngineFailed as error:
    raise ApiError(503, str(error), code='engine_failed') from error


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
  """Returns what `work` returns, or None if the client left before; then `work` is cancelled."""

  async def left() -> None:
    while (await receive())['type'] != 'http.disconnect':
      pass

  task, watch = asyncio.create_task(work), asyncio.create_task(left())
  try:
    await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
    return await task if task.done() else None
  finally:
    for unfinished in (task, watch):
      unfinished.cancel()
    with contextlib.suppress(asyncio.CancelledError):
      await asyncio.wait([task, watch])


class EventStream(Response):
  """A response of server-sent events that ends when the client leaves.

  The status is sent with the first event, so that an error before it has a status of its own. An
  error after it is sent as an event.
  """

  media_type = 'text/event-stream'

  def __init__(
    self, events: AsyncIterator[dict[str, Any]], close: Callable[[], None], seconds: float
  ):
    """Creates the response.

    Args:
      events: the JSON objects to send.
      close: called at the end, whatever happens, even if no event was ever asked for.
      seconds: the most time that all events may take.
    """
    super().__init__(headers={'cache-control': 'no-store', 'x-accel-buffering': 'no'})
    del self.headers['content-length']
    self._events, self._close, self._seconds = events, close, seconds

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    try:
      await while_connected(receive, self._write(send))
    finally:
      self._close()

  async def _write(self, send: Send) -> None:
    async def write(data: bytes, more: bool = True) -> None:
      await send({'type': 'http.response.body', 'body': data, 'more_body': more})

    started = False
    try:
      async with asyncio.timeout(self._seconds), contextlib.aclosing(self._events) as events:
        async for event in events:
          if not started:
            head = {'status': self.status_code, 'headers': self.raw_headers}
            started = True
            await send({'type': 'http.response.start', **head})
          await write(event_bytes(event))
    except Exception as error:
      if not started:
        raise api_error(error) from error
      await write(event_bytes(api_error(error).body()))
    await write(DONE, more=False)


def event_bytes(value: dict[str, Any]) -> bytes:
  """Returns a server-sent event, in ASCII: some clients take U+2028 for the end of a line."""
  return b'data: ' + json.dumps(value, separators=(',', ':')).encode() + b'\n\n'


def api_error(error: Exception) -> ApiError:
  """Returns what a client is told of an exception in the middle of an answer."""
  if isinstance(error, ApiError):
    return error
  if isinstance(error, UserError):
    return ApiError.of(error)
  if isinstance(error, TimeoutError):
    return ApiError(408, 'the answer took longer than the server allows', code='timeout')
  if isinstance(error, EngineFailed):
    return ApiError(503, str(error), code='engine_failed')
  log.exception('an answer failed', exc_info=error)
  return ApiError(500, 'the answer could not be completed')
