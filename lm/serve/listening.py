"""The listening server: connections with limits, and an end that finishes what runs.

uvicorn speaks HTTP. `Connection` adds what it does not limit: how many connections are open, how
long the head of a request may take, how much of a body may come behind its response, and how long a
client may leave a response unread.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from lm.serve.api_errors import ApiError
from lm.serve.service import Service

POLL_SECONDS = 0.05  # how often an ending server looks whether something still runs
CANCEL_SECONDS = 5  # for handlers that are cancelled at the end
KEEP_ALIVE_SECONDS = 15  # that a connection may wait for its next request
HEAD_BYTES = 64 << 10  # of the head of a request


def bind(host: str, port: int) -> socket.socket:
  """Returns a listening socket.

  Raises:
    OSError: the address is in use, or is not this machine's.
  """
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  return socket.create_server((host, port), family=family, backlog=256)


def url(host: str, listener: socket.socket) -> str:
  """Returns the address of a socket that listens at a host, as a browser takes it."""
  where = f'[{host}]' if ':' in host else host
  return f'http://{where}:{listener.getsockname()[1]}'


async def serve(
  app: Starlette,
  listener: socket.socket,
  *,
  drain_seconds: float,
  ready: Callable[[], None] = lambda: None,
  signals: bool = True,
) -> None:
  """Serves until SIGTERM or SIGINT.

  Then new work is refused, and what runs is finished. A second signal ends it at once.

  Args:
    app: of `lm.serve.app.make_app`.
    listener: a listening socket.
    drain_seconds: the most time to finish in.
    ready: called when requests are accepted.
    signals: whether to handle signals, which only the main thread of a process can.
  """
  service: Service = app.state.service
  config = uvicorn.Config(
    app,
    http=connection_class(service),
    ws='none',
    lifespan='on',
    log_config=None,
    access_log=False,
    server_header=False,
    proxy_headers=False,
    timeout_keep_alive=KEEP_ALIVE_SECONDS,
    timeout_graceful_shutdown=CANCEL_SECONDS,
    h11_max_incomplete_event_size=HEAD_BYTES,
  )
  server = _Server(config, ready)
  loop = asyncio.get_running_loop()
  draining: list[asyncio.Task[None]] = []

  async def drain() -> None:
    service.draining = True
    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(drain_seconds):
        while service.num_open:
          await asyncio.sleep(POLL_SECONDS)
    server.should_exit = True

  def end() -> None:
    if draining:
      server.should_exit = True
      for task in list(server.server_state.tasks):
        task.cancel()
    else:
      draining.append(loop.create_task(drain()))

  caught = (signal.SIGTERM, signal.SIGINT) if signals else ()
  for number in caught:
    loop.add_signal_handler(number, end)
  service.end = lambda: loop.call_soon_threadsafe(end)
  try:
    await server.serve(sockets=[listener])
  finally:
    for number in caught:
      loop.remove_signal_handler(number)


class _Server(uvicorn.Server):
  """uvicorn's server, without its handling of signals, which ends a process by the signal again."""

  def __init__(self, config: uvicorn.Config, ready: Callable[[], None]):
    super().__init__(config)
    self._ready = ready

  @contextlib.contextmanager
  def capture_signals(self) -> Iterator[None]:
    yield

  async def startup(self, sockets: list[socket.socket] | None = None) -> None:
    await super().startup(sockets)
    self._ready()


def connection_class(service: Service) -> type[H11Protocol]:
  """Returns the class of a server's connections."""
  limits = service.limits

  class Connection(H11Protocol):
    """A connection of a client."""

    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _late_bytes = 0  # of a body whose response is complete

    def connection_made(self, transport: Any) -> None:
      super().connection_made(transport)
      if len(self.connections) > limits.connections:
        self._refuse(ApiError(503, 'too many connections are open', code='too_many_connections'))
      else:
        self._watch_head()

    def data_received(self, data: bytes) -> None:
      if self.transport.is_closing():
        return
      if self._is_late():
        self._late_bytes += len(data)
        if self._late_bytes > limits.body_bytes:
          self.transport.close()
          return
      super().data_received(data)
      self._watch_head()

    def on_response_complete(self) -> None:
      self._late_bytes = 0
      super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
      for timer in (self._head_timer, self._write_timer):
        if timer is not None:
          timer.cancel()
      super().connection_lost(exc)

    def pause_writing(self) -> None:
      super().pause_writing()
      self._write_timer = self.loop.call_later(limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
      super().resume_writing()
      if self._write_timer is not None:
        self._write_timer.cancel()
        self._write_timer = None

    def send_400_response(self, msg: str) -> None:
      self._refuse(ApiError(400, 'the request is not HTTP'))

    def _refuse(self, error: ApiError) -> None:
      """Answers an error before there is a request, and closes the connection."""
      response = error.response()
      headers = ''.join(f'{name}: {value}\r\n' for name, value in response.headers.items())
      head = f'HTTP/1.1 {error.status} Error\r\n{headers}connection: close\r\n\r\n'
      self.transport.write(head.encode('latin-1') + response.body)
      self.transport.close()

    def _is_late(self) -> bool:
      """Returns whether a response is complete and its request is not: nobody reads the rest."""
      is_answered = self.cycle is not None and self.cycle.response_complete
      return is_answered and self.conn.their_state is h11.SEND_BODY

    def _watch_head(self) -> None:
      """Starts or ends the time in which the head of a request must arrive.

      What comes between a response and the next head, such as the rest of a body that was answered
      before its end, is part of that time: uvicorn gives it none.
      """
      is_waiting = self.cycle is None or (
        self.cycle.response_complete and self.timeout_keep_alive_task is None
      )
      if is_waiting and self._head_timer is None:
        self._head_timer = self.loop.call_later(limits.header_seconds, self.transport.close)
      elif not is_waiting and self._head_timer is not None:
        self._head_timer.cancel()
        self._head_timer = None

  return Connection
