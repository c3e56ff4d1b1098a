"""Serves models over HTTP, in the form of OpenAI's API: python -m lm.serve --checkpoint=RUN"""

import argparse
import asyncio
import concurrent.futures
import datetime
import functools
import socket
from collections.abc import Sequence
from typing import Any

from data.tools import toolbox
from lm.base import choices, errors
from lm.base import config as config_lib

# Functions import the rest where they need it: --help has no use for jax.
LOOPBACK = ('127.0.0.1', 'localhost', '::1')
CALLS = 4  # calls of tools that run at once


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command with these arguments, those of the process where they are None."""
  args = _parse(argv)
  from lm.serve import listening

  with listening.bind(args.host, args.port) as listener:  # before the models, which take a while
    _serve(args, listener)


def _serve(args: argparse.Namespace, listener: socket.socket) -> None:
  """Loads the models and serves them at a socket until a signal ends the process."""
  import jax

  from configs import base
  from lm.parallel import sharding
  from lm.serve import app, gate, listening, service
  from lm.serve.playground import mounting

  keys = gate.read_keys(args.api_key_file) if args.api_key_file else ()
  pages = mounting.routes(args.arena_file)
  mesh = sharding.make_mesh(base.get_config().mesh)
  tools = toolbox.open_tools(config_lib.names(args.tools), index=args.index)
  calls = concurrent.futures.ThreadPoolExecutor(CALLS, thread_name_prefix='tool')
  named = service.named(args.checkpoint + args.model)
  with jax.set_mesh(mesh):
    models = {name: _open(name, path, args, mesh, tools, calls) for name, path in named.items()}
  limits = service.Limits(
    new_tokens=args.max_new_tokens, answers=args.max_waiting, request_seconds=args.timeout
  )
  hosts = LOOPBACK if args.host in LOOPBACK else ()
  state = service.Service(
    models, mesh, limits=limits, thinking=args.thinking, api_keys=keys, hosts=hosts
  )
  ready = f'serving {", ".join(models)} at {listening.url(args.host, listener)}'
  served = app.make_app(state, routes=pages, open_paths=mounting.open_paths())
  options = {'drain_seconds': args.timeout, 'ready': functools.partial(print, ready, flush=True)}
  asyncio.run(listening.serve(served, listener, **options))


def _open(
  name: str, path: str, args: argparse.Namespace, mesh: Any, tools: toolbox.Toolbox, calls: Any
) -> Any:
  """Returns a `service.ServedModel`, whose engine runs calls of tools in the executor `calls`."""
  from configs import base
  from data.chat import chat_formats
  from data.tokenizers import gguf_vocabulary
  from lm.infer.engine import Engine
  from lm.model import apart, quantize
  from lm.serve import service
  from lm.serve.engine_thread import EngineThread
  from lm.weights import gguf, pretrained

  defaults = base.get_config().model
  path = gguf.find(path, defaults, gguf_vocabulary.convert, chat_formats.fingerprint)
  model = pretrained.load(path, defaults, defaults, mesh)
  chat_format = chat_formats.load(model.tokenizer, today=datetime.date.today())
  model.check_tokenizer(chat_format.tokenizer.fingerprint)
  params = apart.for_inference(quantize.quantize(args.quantize, model.params, model.axes))
  limits = {'rows': args.rows, 'max_waiting': args.max_waiting, 'reads': 1}
  capacity = args.context or model.config.max_len
  engine = Engine(model.config, params, capacity=capacity, executor=calls, **limits)
  thread = EngineThread(engine, mesh, name)
  served = service.ServedModel(name, model.config, params, chat_format, thread, tools, tools.about)
  served.check_tools(tools.names)
  return served


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog='python -m lm.serve', description=__doc__)

  def add(flag: str, help: str, **options: object) -> None:
    default = f' (default {options["default"]})' if options.get('default') else ''
    parser.add_argument(flag, help=help + default, **options)

  many = {'action': 'append', 'default': []}
  add('--checkpoint', '[NAME=]DIR, a run or a Hugging Face folder; repeatable', **many)
  add('--model', 'one that a Python package carries; repeatable', choices=choices.MODELS, **many)
  add('--host', 'address to listen at; all but loopback are open to others', default='127.0.0.1')
  add('--port', 'port; 0 chooses one', type=int, default=8000)
  add('--api-key-file', 'file of keys, one a line, of which requests must bring one')
  add('--arena-file', 'file that votes of the playground are appended to; default: none are taken')
  add('--tools', 'what models may call, of ' + ', '.join(toolbox.TOOLS), default=toolbox.DEFAULT)
  add('--index', 'folder that the tool search reads', default='')
  add('--rows', 'requests that are answered at once', type=int, default=8)
  add('--context', "tokens of a prompt and its answer; default the model's", type=int)
  add('--quantize', 'of the weights', default='none', choices=choices.QUANTIZATIONS)
  add('--thinking', 'thoughts that leave the process', default='show', choices=choices.THINKING)
  add('--max-waiting', 'requests that wait for a row; more get status 429', type=int, default=256)
  add('--max-new-tokens', 'longest answer; default the context', type=int)
  add('--timeout', 'seconds for an answer, and for the last at the end', type=float, default=600.0)
  args = parser.parse_args(argv)
  if not (args.checkpoint or args.model):
    parser.error('--checkpoint or --model is needed')
  return args


if __name__ == '__main__':
  errors.run(main)
