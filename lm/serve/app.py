"""The HTTP application: its routes, and how to mount more of them.

    model = ServedModel('smollm2', config, params, chat_format, EngineThread(engine, mesh))
    service = Service({model.name: model}, mesh)
    app = make_app(service, routes=[Route('/x', x), Mount('/assets', StaticFiles(...))],
                   open_paths=['/x', '/assets/*'])

`routes` are Starlette's, and come behind those of the API. A path needs an API key, where the
server has keys, unless `open_paths` has it. Every handler reaches the state of the server:

    service = request.app.state.service            lm/serve/service.py
    model = service.model(name)                    the first: next(iter(service.models.values()))
    model.config, model.params, model.chat_format, model.chat_format.tokenizer, service.tokenizers
    answer = submit(model, request)                lm.infer.requests.Request -> engine_thread.Answer
    async for piece in answer: ...                 pieces as they come; answer.cancel() ends it
    body = await read_body(request, schema)        of a pydantic model; others get a 400

`submit`, `read_body` and `while_connected`, which cancels what a client no longer waits for, are in
lm/serve/handling.py. A handler raises `ApiError` (lm/serve/api_errors.py) or `UserError`. What
takes long, such as a tokenizer on a long text or a program of jax, runs in `asyncio.to_thread`; a
program of jax there needs `with jax.set_mesh(service.mesh)`.
"""

import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lm.base.errors import UserError
from lm.serve import monitoring, openapi
from lm.serve.api_errors import ApiError
from lm.serve.chat_completions import create_chat_completion
from lm.serve.completions import create_completion
from lm.serve.gate import Gate
from lm.serve.service import ServedModel, Service

OPEN_PATHS = ('/health', '/openapi.json')


def make_app(
  service: Service, *, routes: Sequence[BaseRoute] = (), open_paths: Collection[str] = ()
) -> Starlette:
  """Returns the application, which starts and ends the engines of `service`.

  Args:
    routes: more routes, for pages.
    open_paths: paths of `routes` that need no API key; one that ends with '*' stands for all that
      begin so.
  """
  app = Starlette(
    routes=[
      Route('/health', health),
      Route('/metrics', metrics),
      Route('/v1/models', list_models),
      Route('/v1/models/{name:path}', show_model),
      Route('/v1/completions', create_completion, methods=['POST']),
      Route('/v1/chat/completions', create_chat_completion, methods=['POST']),
      Route('/openapi.json', describe),
      *routes,
    ],
    middleware=[Middleware(Gate, service=service, open_paths=(*OPEN_PATHS, *open_paths))],
    exception_handlers={
      ApiError: answer_error,
      UserError: answer_error,
      HTTPException: answer_error,
    },
    lifespan=_lifespan,
  )
  app.router.redirect_slashes = False
  app.state.service = service
  return app


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
  app.state.service.start()
  try:
    yield
  finally:
    app.state.service.stop()


async def answer_error(request: Request, error: Exception) -> Response:
  """Returns an error in the form of `ApiError`."""
  if isinstance(error, UserError):
    error = ApiError.of(error)
  elif isinstance(error, HTTPException):
    message = {404: 'there is nothing at this path', 405: 'the path does not take this method'}
    detail = message.get(error.status_code, str(error.detail))
    error = ApiError(error.status_code, detail, headers=dict(error.headers or {}))
  return error.response()


async def health(request: Request) -> Response:
  """Says whether the server takes requests."""
  service = request.app.state.service
  status = 'draining' if service.draining else 'ok' if service.is_healthy else 'failed'
  return JSONResponse({'status': status}, 200 if service.is_healthy else 503)


async def metrics(request: Request) -> Response:
  """Returns the metrics in Prometheus' text format."""
  text = request.app.state.service.monitor.text()
  return Response(text, headers={'content-type': monitoring.CONTENT_TYPE})


async def describe(request: Request) -> Response:
  """Returns the OpenAPI description."""
  return JSONResponse(openapi.description())


async def list_models(request: Request) -> Response:
  """Lists the models."""
  models = [_card(model) for model in request.app.state.service.models.values()]
  return JSONResponse({'object': 'list', 'data': models})


async def show_model(request: Request) -> Response:
  """Describes one model."""
  return JSONResponse(_card(request.app.state.service.model(request.path_params['name'])))


def _card(model: ServedModel) -> dict[str, Any]:
  """Returns what the API says of a model."""
  return {
    'id': model.name,
    'object': 'model',
    'created': model.created,
    'owned_by': 'deepdive',
    'max_model_len': model.context,
  }
