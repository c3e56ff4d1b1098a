"""Times the training step on random tokens, and that of a peer by turns with it.

Each system runs in a worker of its own (lm/cost/workers.py). `results` starts them and tells them
when to make an update; `work` is what a worker does. The default shape is GPT-2's at a sixth of its
size: learned positions, LayerNorm, biases, GELU, a tied head. The peers are those of
lm/cost/torch_steps.py.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from lm.base import allocator
from lm.base.errors import UserError
from lm.cost import machine, torch_steps
from lm.cost.workers import FromData, Worker, require

# No jax at the top: a worker that runs torch may run where jax is not installed.


# The numbers of the shape, with their defaults.
NUMBERS = {
  'layers': 6,
  'width': 384,
  'heads': 6,
  'vocab': 4096,
  'seq-len': 256,
  'batch': 16,
  'chunk': 1024,
  'steps': 10,
}


# What differs between the models that can be timed.
FAMILIES = {
  'gpt2': {'attention_bias': 'all', 'mlp_bias': True},
  'gpt': {'attention_bias': 'none', 'mlp_bias': False},
  'llama': {'norm': 'rmsnorm', 'position': 'rope', 'activation': 'swiglu'},
}


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of the command."""
  for name, default in NUMBERS.items():
    parser.add_argument(f'--{name}', type=int, default=default, help=f'default {default}')
  parser.add_argument(
    '--optimizer', choices=['adamw', 'muon'], default='adamw', help='default adamw'
  )
  parser.add_argument(
    '--dtype',
    choices=['float32', 'bfloat16'],
    default='float32',
    help='the type of activations (default float32)',
  )
  parser.add_argument(
    '--remat',
    choices=['none', 'full', 'dots'],
    default='none',
    help='which activations the backward pass recomputes (default none)',
  )
  parser.add_argument(
    '--scan-layers',
    action=argparse.BooleanOptionalAction,
    default=True,
    help='whether to loop over one compiled layer instead of unrolling all',
  )
  parser.add_argument(
    '--cache', help='folder of compiled programs (default none: the first step compiles its own)'
  )
  parser.add_argument(
    '--family',
    choices=FAMILIES,
    help="the model: GPT-2, a GPT without biases, or Llama (default the peer's, else gpt2)",
  )
  parser.add_argument(
    '--beside', choices=torch_steps.PEERS, help='a second system to time, by turns with ours'
  )


def model_config(args: argparse.Namespace) -> Any:
  """Returns the config.model that is timed."""
  from configs import base

  c = base.get_config().model
  shape = dict(
    num_layers=args.layers,
    embed_dim=args.width,
    num_heads=args.heads,
    num_kv_heads=args.heads,
    head_dim=args.width // args.heads,
    mlp_dim=4 * args.width,
    vocab_size=args.vocab,
    max_len=args.seq_len,
    activation='gelu',
    norm='layernorm',
    position='learned',
    tie_embeddings=True,
    dtype=args.dtype,
    remat=args.remat,
    scan_layers=args.scan_layers,
  )
  c.update(shape | FAMILIES[args.family])
  return c


def make_step(args: argparse.Namespace) -> tuple[Any, Any, Any]:
  """Returns our jitted step, (state, batch, count) -> (state, metrics), a state and a batch."""
  import flax.linen as nn
  import jax
  import numpy as np
  from ml_collections import FrozenConfigDict

  from configs import base
  from lm.model import transformer
  from lm.parallel import sharding
  from lm.stages import pretrain
  from lm.train import optimizers, train_step

  c = base.get_config()
  c.optim.update(name=args.optimizer, schedule='constant', warmup=0)
  c.loss.chunk = args.chunk
  config = FrozenConfigDict(model_config(args))
  transformer.check(config)
  boxed = transformer.init(config, jax.random.key(0))
  tx, schedule = optimizers.make(c.optim, args.steps + 1, sharding.axis_names(boxed))
  step = jax.jit(
    train_step.make_train_step(pretrain.make_loss(config, c.loss), tx, schedule), donate_argnums=0
  )
  tokens = np.random.default_rng(0).integers(
    args.vocab, size=(1, args.batch, args.seq_len + 1), dtype=np.int32
  )
  inputs, targets = tokens[:, :, :-1], tokens[:, :, 1:]
  batch = jax.device_put(
    {
      'inputs': inputs,
      'targets': targets,
      'segment_ids': np.ones_like(inputs),
      'positions': np.broadcast_to(np.arange(args.seq_len, dtype=np.int32), inputs.shape),
      'weights': np.ones(inputs.shape, np.float32),
    }
  )
  return step, train_step.init_state(nn.unbox(boxed), tx), batch


def build_ours(args: argparse.Namespace) -> tuple[Callable[[], float], dict[str, Any]]:
  """Returns a function that makes one update of ours and returns its loss, and facts about it."""
  import jax

  from lm.parallel import compilation

  compilation.use_cache()
  compilation.trim_after_compiling()
  step, state, batch = make_step(args)
  params = sum(x.size for x in jax.tree.leaves(state['params']))

  def update():
    nonlocal state
    state, metrics = step(state, batch, 1)
    return float(jax.block_until_ready(metrics)['train/loss'])

  system = f'deepdive on jax {jax.__version__}, {jax.devices()[0].platform}'
  return update, {'system': system, 'params': params}


SHAPE = (  # the arguments that the result repeats
  'layers',
  'width',
  'heads',
  'vocab',
  'seq_len',
  'batch',
  'optimizer',
  'dtype',
  'remat',
  'scan_layers',
  'chunk',
  'steps',
)
CEILING = 'ceiling'  # What a worker is asked for the speed of products.


def work(args: argparse.Namespace, from_data: FromData) -> None:
  """Makes a first update, then one for each line of stdin, and prints the time of each as JSON.

  Where the line says CEILING, it measures how fast matrix products are instead.
  """
  del from_data  # The tokens are random.
  _choose_family(args)
  ours = args.system == 'deepdive'
  update, facts = build_ours(args) if ours else torch_steps.PEERS[args.system].build(args)

  def measure() -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    loss = update()
    took = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    return facts | {
      'seconds': took,
      'loss': loss,
      'peak_rss_bytes': after.ru_maxrss * 1024,  # Linux: kilobytes
      'page_faults': after.ru_minflt - before.ru_minflt,
    }

  print(json.dumps(measure()), flush=True)
  for line in sys.stdin:
    asked = json.loads(line)
    told = {'flops_per_s': machine.flops_per_s()} if asked == CEILING else measure()
    print(json.dumps(told), flush=True)


def summarize(updates: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
  """Returns the speed and the memory of the updates that a worker made; the first is told apart."""
  from lm.cost.flops import flops_per_token

  first, *rest = updates
  seconds = [s['seconds'] for s in rest]
  median = statistics.median(seconds)
  tokens_per_s = args.batch * args.seq_len / median
  flops = flops_per_token(model_config(args), first['params'], args.seq_len)
  return {
    'system': first['system'],
    'tokens_per_s': tokens_per_s,
    'model_flops_per_s': tokens_per_s * flops,
    'first_step_s': first['seconds'],
    'peak_rss_bytes': rest[-1]['peak_rss_bytes'],
    'step_s': {'median': median, 'min': min(seconds), 'max': max(seconds)},
    'page_faults': statistics.median(s['page_faults'] for s in rest),
    'params': first['params'],
    'first_loss': first['loss'],
    'last_loss': rest[-1]['loss'],
  }


def _choose_family(args: argparse.Namespace) -> None:
  """Fills in --family where it was not given.

  Raises:
    UserError: the peer has no such model, or not what other arguments ask for.
  """
  families = torch_steps.PEERS[args.beside].families if args.beside else tuple(FAMILIES)
  args.family = args.family or families[0]
  if args.family not in families:
    raise UserError(field='--family', value=args.family, allowed=families)
  if args.beside and (args.optimizer != 'adamw' or args.dtype != 'float32'):
    allowed = 'only with --optimizer=adamw and --dtype=float32'
    raise UserError(field='--beside', value=args.beside, allowed=allowed)


def results(
  args: argparse.Namespace, argv: list[str], from_data: FromData
) -> Iterator[dict[str, Any]]:
  """Times our step and, with --beside, another system's by turns; yields one result.

  Args:
    args: the arguments of the command.
    argv: the same as text, for the workers.
    from_data: not needed here.

  Raises:
    UserError: --heads does not divide --width, or the peer cannot do what is asked.
  """
  del from_data
  _choose_family(args)
  if args.width % args.heads:
    raise UserError(
      field='--heads', value=args.heads, allowed=f'a divisor of --width, {args.width}'
    )
  if args.beside:
    packages = torch_steps.PEERS[args.beside].packages
    require(args.beside_python, packages, f'--beside={args.beside}')

  # Without --cache, every system compiles anew.
  env = {'JAX_ENABLE_COMPILATION_CACHE': 'false', 'TORCHINDUCTOR_FORCE_DISABLE_CACHES': '1'}
  if args.cache:
    env = {'JAX_COMPILATION_CACHE_DIR': args.cache}

  def start(system: str, python: str, env: dict[str, str]) -> Worker:
    return Worker(system, python, [*argv, f'--system={system}'], env)

  ours = start('deepdive', sys.executable, env | allocator.huge_pages())  # As train.py has them.
  workers = [ours]
  if args.beside:
    workers.append(start(args.beside, args.beside_python, env))
  for _ in range(args.steps):
    for worker in workers:
      worker.ask()
  updates = [list(worker.seen) for worker in workers]
  ceiling = ours.ask(CEILING)['flops_per_s']
  for worker in workers:
    worker.close()
  each = [summarize(seen, args) for seen in updates]
  for result in each:
    result['share_of_ceiling'] = result['model_flops_per_s'] / ceiling
  shape = {'family': args.family} | {name: getattr(args, name) for name in SHAPE}
  result = each[0] | {'ceiling_flops_per_s': ceiling, 'shape': shape}
  if args.beside:
    pairs = zip(*(seen[1:] for seen in updates), strict=True)
    ratios = [b['seconds'] / a['seconds'] for a, b in pairs]
    memory = each[0]['peak_rss_bytes'] / each[1]['peak_rss_bytes']
    result |= {
      'beside': each[1],
      'ratio': statistics.median(ratios),
      'ratio_range': [min(ratios), max(ratios)],
      'memory_ratio': memory,
    }
  yield result
