"""A server of a few lines in the place of an OpenAI-compatible endpoint."""

import contextlib
import http.server
import json
import threading


@contextlib.contextmanager
def serving(answer):
  """The address of a server; `answer` makes (status, body) of the bodies that it gets."""

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
      body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
      status, said = answer(body, self.headers)
      content = said if isinstance(said, bytes) else json.dumps(said).encode()
      self.send_response(status)
      self.send_header('Content-Length', str(len(content)))
      self.end_headers()
      self.wfile.write(content)

    def log_message(self, *_):
      pass

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      yield f'http://127.0.0.1:{server.server_port}/v1'
    finally:
      server.shutdown()
      thread.join()


def choices(*texts):
  return 200, {'choices': [{'message': {'content': text}} for text in texts]}
