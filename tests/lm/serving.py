"""Servers of tiny models, in this process.

`Chain` is a model that writes what a test says: each token decides the next. It runs through the
engine like any other.
"""

import asyncio
import contextlib
import itertools
import json
import threading
import time

import httpx
import jax
import numpy as np

from configs import base
from data.chat import chat_formats
from lm.infer.engine import Engine
from lm.infer.requests import Piece
from lm.parallel import sharding
from lm.serve import listening
from lm.serve.app import make_app
from lm.serve.engine_thread import EngineThread
from lm.serve.service import Limits, ServedModel, Service

FORMAT = chat_formats.load('bytes')
TOKENIZER = FORMAT.tokenizer
SPECIAL = TOKENIZER.special_tokens
WIDTH = 320  # of the chain's model: at least the vocabulary
CAPACITY = 256
ROWS = 4
CHAIN = {
  'vocab_size': TOKENIZER.vocab_size,
  'embed_dim': WIDTH,
  'num_layers': 1,
  'max_len': CAPACITY,
  'tie_embeddings': False,
}


def mesh():
  """A mesh of one device."""
  return sharding.make_mesh(base.get_config().mesh, jax.devices()[:1])


def ids(*items):
  """Token ids of texts and names of special tokens."""
  return [i for item in items for i in ([SPECIAL[item]] if item in SPECIAL else item.encode())]


def drawn(tokens):
  """A piece of tokens that were drawn."""
  return Piece(list(tokens), [0.0] * len(tokens), True, [])


def served(config, params, name='tiny', chat_format=FORMAT, **options):
  """A model with its engine, not started."""
  fields = {'rows': ROWS, 'capacity': CAPACITY, 'steps': 4, 'reads': 1, 'max_waiting': 64}
  engine_options = {key: options.pop(key) for key in list(options) if key in (*fields, 'executor')}
  engine = Engine(config, params, **fields | engine_options)
  return ServedModel(name, config, params, chat_format, EngineThread(engine, mesh()), **options)


def chain(tiny, *paths):
  """(config, params) of a model in which each token of a path is followed by the next.

  A token may be in one place of all paths only, except for the last one of a path.
  """
  config, params = tiny(**CHAIN)
  zero = jax.tree.map(np.zeros_like, params)
  embedding, head = np.zeros_like(params['embedding']), np.zeros_like(params['head'])
  embedding[np.arange(config.vocab_size), np.arange(config.vocab_size)] = 1
  for path in paths:
    for now, following in itertools.pairwise(path):
      assert not head[:, now].any(), f'two tokens follow {now}'
      head[following, now] = 3
  norm = {'scale': np.ones_like(params['final_norm']['scale'])}
  return config, {**zero, 'final_norm': norm, 'embedding': embedding, 'head': head}


def application(*models, routes=(), **options):
  """The application of a server with these models, whose engines do not run yet."""
  limits = Limits(**options.pop('limits', {}))
  service = Service({model.name: model for model in models}, mesh(), limits=limits, **options)
  return make_app(service, routes=routes)


@contextlib.contextmanager
def running(*models, **options):
  """The application of a server with these models, whose engines run."""
  app = application(*models, **options)
  app.state.service.start()
  try:
    yield app
  finally:
    app.state.service.stop()


def send(app, method, path, *, headers=(), **options):
  """The response to one request."""

  async def go():
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url='http://localhost') as client:
      return await client.request(method, path, headers=dict(headers), **options)

  return asyncio.run(go())


def post(app, path, body, status=200, **options):
  """The JSON that answers a body."""
  response = send(app, 'POST', path, json=body, **options)
  assert response.status_code == status, response.text
  return response.json()


def complete(app, prompt='ab', status=200, **fields):
  return post(app, '/v1/completions', {'model': 'tiny', 'prompt': prompt} | fields, status)


def chat(app, text='Hi', status=200, messages=None, **fields):
  messages = messages or [{'role': 'user', 'content': text}]
  return post(app, '/v1/chat/completions', {'model': 'tiny', 'messages': messages} | fields, status)


def events(app, path, body):
  """The events of a stream, without [DONE], which must be the last."""
  response = send(app, 'POST', path, json={'model': 'tiny', 'stream': True} | body)
  assert response.status_code == 200, response.text
  assert response.headers['content-type'].startswith('text/event-stream')
  *found, last, rest = response.content.decode().split('\n\n')
  assert last == 'data: [DONE]' and rest == ''
  return [json.loads(event.removeprefix('data: ')) for event in found]


def wait_until(holds):
  """Whether a condition holds within some minutes, fewer than a test may take."""
  for _ in range(20_000):
    if holds():
      return True
    time.sleep(0.01)
  return False


def is_idle(app):
  """Whether no engine has anything to do."""
  engines = [model.engine for model in app.state.service.models.values()]
  return all(engine.engine.is_idle and not engine.num_answers for engine in engines)


def idle(app):
  """Whether every engine ends up with nothing to do.

  An engine forgets an answer after it has delivered its end, or a step after it was cancelled.
  """
  return wait_until(lambda: is_idle(app))


@contextlib.contextmanager
def listening_at(app, drain_seconds=60.0):
  """The address at which an application listens, in a thread of this process."""
  listener = listening.bind('127.0.0.1', 0)
  ready, failed = threading.Event(), []

  def serve():
    try:
      asyncio.run(
        listening.serve(app, listener, drain_seconds=drain_seconds, ready=ready.set, signals=False)
      )
    except BaseException as error:
      failed.append(error)
      raise
    finally:
      ready.set()

  thread = threading.Thread(target=serve)
  thread.start()
  assert ready.wait(60) and not failed
  try:
    yield listening.url('127.0.0.1', listener)
  finally:
    app.state.service.end()
    thread.join(60)
    assert not thread.is_alive() and not failed
