"""Times the engine on random prompts, and transformers' `generate` by turns with it.

Each system runs in a worker of its own (lm/cost/workers.py). `results` starts them and asks for one
measurement after the other; `work` is what a worker does. Beside each speed stand the machine's own
limits, measured in the same run: the time to read the weights and the cache once for each token,
and the time of the products.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from lm.base.errors import UserError
from lm.cost import machine
from lm.cost.workers import FromData, of_model, require

# No jax at the top: a worker that runs torch may run where jax is not installed.

# The prompt's length and the number of new tokens of each command, and its batches.
DEFAULTS = {'decode': (16, 64, '1,8,32'), 'prefill': (1000, 1, '1'), 'serve': (256, 64, '8')}


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of the commands."""

  def number(name: str, default: int | None, what: str) -> None:
    parser.add_argument(f'--{name}', type=int, default=default, help=what)

  parser.add_argument('--model', default='smollm2', help='a checkpoint, or smollm2 (default)')
  parser.add_argument('--batch', help='batch sizes, N,N,... (serve: the rows of the engine)')
  number('prompt', None, 'tokens of a prompt (serve: the longest, of at least 16)')
  number('new', None, 'new tokens of each answer (serve: the most, of at least 1)')
  number('turns', 3, 'measurements of each batch size; the median counts (default 3)')
  number('requests', 32, 'serve: how many there are (default 32)')
  for name in ('quantize', 'cache'):
    parser.add_argument(f'--{name}', choices=['none', 'int8'], default='none', help='default none')
  parser.add_argument('--beside', choices=['transformers'], help='a second system to time')


def prompts(args: argparse.Namespace, batch: int, vocab_size: int) -> list[list[int]]:
  """Returns the same random prompts in every process."""
  import numpy as np

  length = args.prompt or DEFAULTS[args.command][0]
  rng = np.random.default_rng(0)
  return rng.integers(3, vocab_size, size=(batch, length)).tolist()


# ---- What workers do


def ours(
  args: argparse.Namespace, locate: Callable[[str], Any]
) -> tuple[dict[str, Any], Callable[[dict], dict]]:
  """Returns facts about our engine, and what answers the parent."""
  import jax

  from configs import base
  from lm.infer.engine import Engine
  from lm.infer.requests import Request
  from lm.infer.sampling import Sampling
  from lm.model import cache as cache_lib
  from lm.model import heads, quantize
  from lm.parallel import sharding
  from lm.weights import pretrained

  defaults = base.get_config()
  mesh = sharding.make_mesh(defaults.mesh)
  jax.set_mesh(mesh)
  model = pretrained.load(locate(args.model), defaults.model, defaults.model, mesh)
  params = quantize.quantize(args.quantize, model.params, model.axes)
  config, engines = model.config, {}

  def engine(rows: int, length: int) -> Engine:
    if rows not in engines:
      engines.clear()
      engines[rows] = Engine(config, params, rows=rows, capacity=length, steps=16, cache=args.cache)
    return engines[rows]

  def answer(asked: dict) -> dict:
    if 'requests' in asked:
      return serve(engine(asked['batch'], asked['capacity']), asked)
    new = asked['new']
    told = [
      Request([*map(int, prompt)], new, Sampling(0))
      for prompt in prompts(args, asked['batch'], config.vocab_size)
    ]
    runner = engine(asked['batch'], len(told[0].prompt) + new)
    runner.forget()
    start = time.perf_counter()
    handles = [runner.submit(request) for request in told]
    runner.run()
    seconds = time.perf_counter() - start
    return {'seconds': seconds, 'tokens': [handle.result().tokens for handle in handles]}

  def serve(runner: Engine, asked: dict) -> dict:
    waiting = [
      Request(prompt, new, Sampling(0)) for prompt, new in requests(asked, config.vocab_size)
    ]
    runner.forget()
    start = time.perf_counter()
    handles = [runner.submit(request) for request in waiting]
    first: dict[int, float] = {}
    while not runner.is_idle:
      runner.step()
      for i, handle in enumerate(handles):
        if i not in first and handle.completion.tokens:
          first[i] = time.perf_counter() - start
    seconds = time.perf_counter() - start
    count = sum(len(handle.result().tokens) for handle in handles)
    return {'seconds': seconds, 'drawn': count, 'first_token_s': sorted(first.values())}

  layers, vocabulary = jax.tree.leaves(params['layers']), heads.head(model.params, config)
  head = params['head'] if args.quantize == 'int8' else vocabulary
  slot = cache_lib.init_cache(config, 1, 1, args.cache)
  facts = {
    'system': f'deepdive on jax {jax.__version__}, {jax.devices()[0].platform}',
    'layer_params': sum(x.size for x in jax.tree.leaves(model.params['layers'])),
    'vocabulary_params': vocabulary.size,
    'weight_bytes_per_token': sum(x.nbytes for x in layers) + head.nbytes,
    'cache_bytes_per_token': sum(x.nbytes for x in jax.tree.leaves(slot.layers)),
    'bytes_per_s': machine.bytes_per_s(),
    'flops_per_s': machine.flops_per_s(),
  }
  return facts, answer


def requests(asked: dict, vocab_size: int) -> list[tuple[list[int], int]]:
  """Returns (prompt, new tokens) of requests of mixed lengths."""
  import numpy as np

  rng = np.random.default_rng(0)
  return [
    (
      rng.integers(3, vocab_size, rng.integers(16, asked['prompt'], endpoint=True)).tolist(),
      int(rng.integers(1, asked['new'], endpoint=True)),
    )
    for _ in range(asked['requests'])
  ]


def theirs(args: argparse.Namespace) -> tuple[dict[str, Any], Callable[[dict], dict]]:
  """Returns the same for transformers; `args.model` is a folder in its format."""
  import torch
  import transformers

  model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
  vocab_size = model.config.vocab_size

  def generate(told: list[list[int]], new: int) -> Any:
    """Continues prompts, those that are shorter padded at their beginning."""
    longest = max(map(len, told))
    rows = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in told])
    real = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in told])
    with torch.no_grad():
      out = model.generate(
        rows,
        attention_mask=real,
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
      )
    return out[:, longest:].tolist()

  def answer(asked: dict) -> dict:
    start = time.perf_counter()
    if 'requests' in asked:  # As many at once as the engine has rows, in their order.
      waiting, rows = requests(asked, vocab_size), asked['batch']
      for i in range(0, len(waiting), rows):
        told, new = zip(*waiting[i : i + rows], strict=True)
        generate(list(told), max(new))
      tokens = []
    else:
      tokens = generate(prompts(args, asked['batch'], vocab_size), asked['new'])
    return {'seconds': time.perf_counter() - start, 'tokens': tokens}

  facts = {'system': f'transformers {transformers.__version__} on torch {torch.__version__}'}
  return facts, answer


def work(args: argparse.Namespace, from_data: FromData) -> None:
  """Prints facts, then an answer to each line of stdin, as JSON."""
  facts, answer = ours(args, from_data.locate) if args.system == 'deepdive' else theirs(args)
  print(json.dumps(facts), flush=True)
  for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)


# ---- What the parent does


def results(
  args: argparse.Namespace, argv: list[str], from_data: FromData
) -> Iterator[dict[str, Any]]:
  """Yields the result of each batch size.

  Args:
    args: the arguments of the command.
    argv: the same as text, for the workers.
    from_data: locates and exports models.

  Raises:
    UserError: an argument is not allowed.
  """
  length, new, sizes = (
    given or default
    for given, default in zip(
      (args.prompt, args.new, args.batch), DEFAULTS[args.command], strict=True
    )
  )
  try:
    batches = [int(size) for size in sizes.split(',')]
  except ValueError:
    batches = []
  if not batches or min(batches) < 1:
    raise UserError(field='--batch', value=sizes, allowed='numbers of at least 1: N,N,...')
  if args.beside and (args.quantize, args.cache) != ('none', 'none'):
    raise UserError(
      field='--beside', value=args.beside, allowed='only with --quantize=none and --cache=none'
    )
  if args.beside:
    require(args.beside_python, ('torch', 'transformers'), f'--beside={args.beside}')
  with of_model(args, argv, from_data, 'transformers') as workers:
    for batch in batches:
      asked = {'batch': batch, 'new': new}
      if args.command == 'serve':
        asked |= {'requests': args.requests, 'prompt': length, 'capacity': length + new}
      for worker in workers:
        for _ in range(2):  # It compiles, the second time what begins with another cache.
          worker.ask(asked)
      answers = [[worker.ask(asked) for worker in workers] for _ in range(args.turns)]
      yield _result(args.command, batch, length, new, [w.seen[0] for w in workers], answers)


def _result(
  command: str, batch: int, length: int, new: int, facts: list[dict], answers: list[list[dict]]
) -> dict[str, Any]:
  """Returns one line of the output from the answers of all turns."""
  mine = [turn[0] for turn in answers]
  seconds = statistics.median(answer['seconds'] for answer in mine)
  count = {
    'decode': batch * new,
    'prefill': batch * length,
    'serve': mine[0].get('drawn'),
  }[command]
  result = {
    'command': command,
    'system': facts[0]['system'],
    'batch': batch,
    'prompt': length,
    'new': new,
    'tokens_per_s': count / seconds,
    'seconds': [answer['seconds'] for answer in mine],
  }
  if command == 'prefill':
    result['first_token_s'] = seconds
  if command == 'serve':
    firsts = mine[-1]['first_token_s']
    result |= {
      'requests': len(firsts),
      'first_token_s': {
        'median': statistics.median(firsts),
        'p95': firsts[int(0.95 * (len(firsts) - 1))],
      },
    }
  else:
    result['limits'] = limits(facts[0], batch, length, new, seconds)
  if len(facts) > 1:
    other = [turn[1]['seconds'] for turn in answers]
    result['beside'] = {
      'system': facts[1]['system'],
      'tokens_per_s': count / statistics.median(other),
      'seconds': other,
    }
    result['ratio'] = statistics.median(b / a['seconds'] for a, b in zip(mine, other, strict=True))
    if command != 'serve':
      pairs = zip(mine[0]['tokens'], answers[0][1]['tokens'], strict=True)
      result['equal_answers'] = sum(a == b for a, b in pairs)
  return result


def limits(
  facts: dict[str, Any], batch: int, length: int, new: int, seconds: float
) -> dict[str, float]:
  """Returns how long the machine's memory and its products take at least, and the share of that.

  Every step reads the weights and the cache once. A token takes two operations for each weight, and
  those of the prompt do not need the vocabulary, except the last one.
  """
  read = facts['weight_bytes_per_token'] * new
  read += facts['cache_bytes_per_token'] * batch * sum(range(length, length + new))
  flops = 2 * facts['layer_params'] * batch * (length + new - 1)
  flops += 2 * facts['vocabulary_params'] * batch * new
  times = {'memory_s': read / facts['bytes_per_s'], 'products_s': flops / facts['flops_per_s']}
  return {
    'bytes_per_s': facts['bytes_per_s'],
    'flops_per_s': facts['flops_per_s'],
    **times,
    'share_of_limit': max(times.values()) / seconds,
  }
