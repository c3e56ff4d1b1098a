"""What handlers share: bodies, submitting requests, and clients that leave."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import pydantic
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lm.infer.requests import QueueFull, Request
from lm.serve.api_errors import ApiError
from lm.serve.engine_thread import Answer, EngineFailed
from lm.serve.service import ServedModel

T = TypeVar('T')
Schema = TypeVar('Schema', bound=pydantic.BaseModel)


async def read_body(request: HttpRequest, schema: type[Schema]) -> Schema:
  """Returns the body of a request, checked.

  Raises:
    ApiError: it is not JSON, or not of this form.
  """
  content_type = request.headers.get('content-type', '').partition(';')[0].strip().lower()
  if content_type != 'application/json':
    # Pages of other sites may send other types without asking first.
    raise ApiError(415, 'the body must have content-type application/json')
  body = await request.body()
  try:
    return await asyncio.to_thread(schema.model_validate_json, body)
  except pydantic.ValidationError as error:
    raise ApiError.of_body(error) from None


async def submit(model: ServedModel, request: Request) -> Answer:
  """Hands a request to a model's engine.

  Raises:
    ApiError: the queue is full, or the engine has ended.
    UserError: the request cannot be served.
  """
  loop = asyncio.get_running_loop()
  try:
    return await asyncio.to_thread(model.engine.submit, request, loop)
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

  The first event is made before the status is sent, so that an error by then has its own status.
  """

  media_type = 'text/event-stream'

  def __init__(
    self, events: AsyncIterator[bytes], failed: Callable[[Exception], bytes], seconds: float
  ):
    """Creates the response.

    Args:
      events: the events, each with its empty line.
      failed: returns the event that tells of an exception.
      seconds: the most time that all events may take.
    """
    super().__init__(headers={'cache-control': 'no-store', 'x-accel-buffering': 'no'})
    del self.headers['content-length']
    self._events, self._failed, self._seconds = events, failed, seconds

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    await while_connected(receive, self._write(send))

  async def _write(self, send: Send) -> None:
    async def write(data: bytes, more: bool = True) -> None:
      await send({'type': 'http.response.body', 'body': data, 'more_body': more})

    async with contextlib.aclosing(self._events) as events:
      async with asyncio.timeout(self._seconds):
        first = await anext(events, b'')
      head = {'status': self.status_code, 'headers': self.raw_headers}
      await send({'type': 'http.response.start', **head})
      try:
        await write(first)
        async with asyncio.timeout(self._seconds):
          async for event in events:
            await write(event)
      except Exception as error:  # noqa: BLE001  The status is sent: it is told as an event.
        await write(self._failed(error))
    await write(b'', more=False)
