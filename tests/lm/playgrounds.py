"""Servers of the playground, with tiny random models on bytes."""

import serving

from lm.serve.app import make_app
from lm.serve.playground import mounting
from lm.serve.service import Service


def application(tiny, names, *, arena_file=None, context=serving.CAPACITY, **options):
  """The application of a server with models of these names, no two of which are equal."""
  models = {}
  for i, name in enumerate(names):
    config, params = tiny(
      vocab_size=serving.TOKENIZER.vocab_size, max_len=context, tie_embeddings=i == 0
    )
    models[name] = serving.served(config, params, name, capacity=context)
  service = Service(models, serving.mesh(), **options)
  return make_app(service, routes=mounting.routes(arena_file), open_paths=mounting.open_paths())
