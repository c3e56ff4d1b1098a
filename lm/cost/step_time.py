"""Times the training step on random tokens, and transformers' GPT-2 by turns with it.

Each system runs in a worker of its own (lm/cost/workers.py). `compare` starts them and tells them
when to make an update; `work` is what a worker does. The default shape is GPT-2's at a sixth of its
size: learned positions, LayerNorm, biases, GELU, a tied head.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from lm.base import allocator
from lm.base.errors import UserError
from lm.cost.workers import Worker

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
    action='store_true',
    help='loop over one compiled layer instead of unrolling all',
  )
  parser.add_argument(
    '--beside',
    choices=['transformers', 'transformers-tuned'],
    help='a second system to time, by turns with ours',
  )
  # A worker is this command with --system.
  parser.add_argument('--system', choices=SYSTEMS, help=argparse.SUPPRESS)


def model_config(args: argparse.Namespace) -> Any:
  """Returns the config.model that is timed."""
  from configs import base

  c = base.get_config().model
  c.update(
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
    attention_bias='all',
    mlp_bias=True,
    dtype=args.dtype,
    remat=args.remat,
    scan_layers=args.scan_layers,
  )
  return c


def build_ours(args: argparse.Namespace) -> tuple[Callable[[], float], dict[str, Any]]:
  """Returns a function that makes one update of ours and returns its loss, and facts about it."""
  allocator.keep_freed_memory()
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
  params = nn.unbox(boxed)
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
  state = train_step.init_state(params, tx)

  def update():
    nonlocal state
    state, metrics = step(state, batch, 1)
    return float(jax.block_until_ready(metrics)['train/loss'])

  return update, {
    'system': f'deepdive on jax {jax.__version__}, {jax.devices()[0].platform}',
    'params': sum(x.size for x in jax.tree.leaves(params)),
  }


def build_transformers(args: argparse.Namespace) -> tuple[Callable[[], float], dict[str, Any]]:
  """Returns the same for transformers' GPT-2 under torch.compile, as it ships or tuned."""
  try:
    import torch
    import transformers
  except ModuleNotFoundError as error:
    raise UserError(
      field='--beside-python', value=sys.executable, allowed=f'a Python that has {error.name}'
    ) from error

  if args.optimizer != 'adamw' or args.dtype != 'float32':
    raise UserError(
      field='--beside',
      value=args.system,
      allowed='only with --optimizer=adamw and --dtype=float32',
    )
  torch.manual_seed(0)
  tuned = args.system == 'transformers-tuned'
  dropout = dict.fromkeys(('resid_pdrop', 'embd_pdrop', 'attn_pdrop'), 0.0) if tuned else {}
  config = transformers.GPT2Config(
    vocab_size=args.vocab,
    n_positions=args.seq_len,
    n_embd=args.width,
    n_layer=args.layers,
    n_head=args.heads,
    use_cache=False,
    **dropout,
  )
  net = transformers.GPT2LMHeadModel(config)
  forward = torch.compile(net)
  optimizer = torch.optim.AdamW(
    net.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=tuned
  )
  tokens = torch.randint(args.vocab, (args.batch, args.seq_len))

  def update():
    # transformers shifts the labels by one itself.
    loss = forward(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()

  return update, {
    'system': f'{args.system} {transformers.__version__} on torch {torch.__version__}',
    'params': sum(p.numel() for p in net.parameters()),
  }


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
SYSTEMS = {
  'deepdive': build_ours,
  'transformers': build_transformers,
  'transformers-tuned': build_transformers,
}


def work(args: argparse.Namespace) -> None:
  """Makes a first update, then one for each line of stdin, and prints the time of each as JSON."""
  update, facts = SYSTEMS[args.system](args)
  for n, _ in enumerate(['first', *range(args.steps)]):
    if n:
      sys.stdin.readline()
    start = time.perf_counter()
    loss = update()
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux: kilobytes
    print(json.dumps(facts | {'seconds': took, 'loss': loss, 'peak_rss_bytes': peak}), flush=True)


def summarize(worker: Worker, args: argparse.Namespace) -> dict[str, Any]:
  """Returns the speed and the memory of what a worker did."""
  from lm.cost.flops import flops_per_token

  first, *rest = worker.seen
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
    'params': first['params'],
    'first_loss': first['loss'],
    'last_loss': rest[-1]['loss'],
  }


def compare(args: argparse.Namespace, argv: list[str]) -> dict[str, Any]:
  """Times our step and, with --beside, another system's by turns.

  Args:
    args: the arguments of the command.
    argv: the same as text, for the workers.

  Raises:
    UserError: --heads does not divide --width.
  """

  def start(system: str, python: str) -> Worker:
    return Worker(system, python, ['train', *argv, f'--system={system}'])

  if args.width % args.heads:
    raise UserError(
      field='--heads', value=args.heads, allowed=f'a divisor of --width, {args.width}'
    )
  ours = start('deepdive', sys.executable)
  workers = [ours]
  if args.beside:
    workers.append(start(args.beside, args.beside_python))
  for _ in range(args.steps):
    for worker in workers:
      worker.ask()
  for worker in workers:
    worker.close()
  results = [summarize(worker, args) for worker in workers]
  result = results[0] | {'shape': {name: getattr(args, name) for name in SHAPE}}
  if args.beside:
    theirs = workers[1].seen[1:]
    ratios = [b['seconds'] / a['seconds'] for a, b in zip(ours.seen[1:], theirs, strict=True)]
    result |= {'beside': results[1], 'ratio': statistics.median(ratios)}
  return result
