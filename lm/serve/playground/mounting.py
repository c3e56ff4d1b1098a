"""The playground as routes for `lm.serve.app.make_app`: files of the page, and its questions."""

from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lm.base.files import Path
from lm.serve.playground.views import Views
from lm.serve.playground.votes import VoteFile

TYPES = {
  'css': 'text/css; charset=utf-8',
  'html': 'text/html; charset=utf-8',
  'js': 'text/javascript; charset=utf-8',
  'svg': 'image/svg+xml',
}
# Nothing is loaded from elsewhere, no script or style is written in the page, and no script may
# turn text into HTML: what a model writes stays text.
POLICY = '; '.join(
  [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ]
)
HEADERS = {
  'content-security-policy': POLICY,
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-cache',
}


def read_assets() -> dict[str, bytes]:
  """Returns the files of the page by the path at which they are served."""
  folder = resources.files('lm.serve.playground') / 'static'
  files = {f'/playground/{file.name}': file.read_bytes() for file in folder.iterdir()}
  return {'/': files.pop('/playground/index.html')} | files


def routes(arena_file: Path | None = None) -> list[BaseRoute]:
  """Returns the routes of the playground.

  Args:
    arena_file: the file that votes are appended to; None takes no votes.
  """
  views = Views(VoteFile(arena_file) if arena_file else None)
  return [
    *(asset(path, content) for path, content in read_assets().items()),
    Route('/playground/about', views.about),
    Route('/playground/tokens', views.tokens, methods=['POST']),
    Route('/playground/inside', views.inside, methods=['POST']),
    Route('/playground/vote', views.vote, methods=['POST']),
  ]


def asset(path: str, content: bytes) -> Route:
  """Returns the route of a file of the page."""
  suffix = 'html' if path == '/' else path.rpartition('.')[2]

  async def respond(request: Request) -> Response:
    return Response(content, headers=HEADERS | {'content-type': TYPES[suffix]})

  return Route(path, respond)


def open_paths() -> list[str]:
  """Returns the paths that need no key: the files of the page, which asks for the key itself."""
  return list(read_assets())
