"""Web sites on a loopback port for the crawler to meet, well-behaved and hostile."""

import contextlib
import http.server
import socket
import struct
import threading


def links(*targets):
  """Returns a page that links to each target."""
  return (
    '<html><body>'
    + ' '.join(f'<a href="{target}">to {target}</a>' for target in targets)
    + '</body></html>'
  )


def tree(size=40):
  """Returns the pages of a site of `size` pages, each linking to two others and to the root."""
  pages = {'/': links('p1', 'p2')}
  for i in range(1, size):
    pages[f'/p{i}'] = (
      links('/', *(f'p{j}' for j in (2 * i + 1, 2 * i + 2) if j < size)) + f'<p>page {i}' * i
    )
  return pages


class Site:
  """Serves `pages` {path?query: answer} from a thread until the block ends.

  An answer is HTML, (status, headers, body), bytes that are sent as they are instead of a response,
  a function that is given the handler and returns one of these or sends what it likes and returns
  None, or a list of answers, one a hit; the last one stays. `otherwise` answers for the paths that
  `pages` lacks.

  Attributes:
    hits: [(path, headers)] of the requests so far.
    tls: SSL context of an https site; None for http.
    hold: number of the request, from 1, that gets no answer before the block ends.
    held: event that is set when that request comes.
    down: answers every request with what is no HTTP.
    closing: event that is set when the block ends; slow answers wait for it.
  """

  def __init__(self, pages, otherwise=(404, {}, 'absent'), hold=0, tls=None):
    self.pages, self.otherwise, self.hits, self.hold, self.down = pages, otherwise, [], hold, False
    self.held, self.closing = threading.Event(), threading.Event()
    site = self

    class Handler(http.server.BaseHTTPRequestHandler):
      timeout = 20

      def do_GET(self):
        site.hits.append((self.path, dict(self.headers)))
        if len(site.hits) == site.hold:
          site.held.set()
          site.closing.wait()
        with contextlib.suppress(ConnectionError, TimeoutError):
          if site.down:
            self.wfile.write(b'down for good\r\n')
          else:
            self.answer(site.pages.get(self.path, site.otherwise))

      def answer(self, answer):
        if isinstance(answer, list):
          answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
          answer = answer(self)
        if answer is None:
          return
        if isinstance(answer, bytes):
          self.wfile.write(answer)
          return
        status, headers, body = (200, {}, answer) if isinstance(answer, str) else answer
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in (
          {'Content-Type': 'text/html', 'Content-Length': str(len(body))} | headers
        ).items():
          self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

      def log_message(self, *_):
        pass

    class Server(http.server.ThreadingHTTPServer):
      daemon_threads = False  # closing the server waits for its threads

      def handle_error(self, *_):
        pass  # the crawler hung up

    self.server = Server(('127.0.0.1', 0), Handler)
    self.url = f'http{"s" if tls else ""}://127.0.0.1:{self.server.server_port}/'
    if tls:
      self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
    self.thread = threading.Thread(target=self.server.serve_forever, kwargs={'poll_interval': 0.02})

  def __enter__(self):
    self.thread.start()
    return self

  def __exit__(self, *_):
    self.closing.set()
    self.server.shutdown()
    self.thread.join()
    self.server.server_close()

  @property
  def paths(self):
    return [path for path, _ in self.hits if path != '/robots.txt']

  def drip(self, start=b'', piece=b'x', seconds=0.05, started=lambda: None):
    """Returns an answer that sends `piece` again and again until the crawler hangs up.

    `started` is called once `start` is sent.
    """

    def answer(handler):
      handler.wfile.write(start)
      started()
      while not self.closing.wait(seconds):
        handler.wfile.write(piece)

    return answer

  @staticmethod
  def reset(handler):
    """Breaks the connection with a TCP reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    handler.connection.close()
