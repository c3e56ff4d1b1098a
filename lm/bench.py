"""Speed of the training step: python -m lm.bench train --json [--layers=6 --width=384 ...]
[--beside=transformers]

It times the step that train.py jits (`lm.steps.common.make_train_step` over
`lm.steps.pretrain.make_loss`) on random tokens, one update at a time, each run to its end. The
default shape is GPT-2's at a sixth of its size: learned positions, LayerNorm, biases, GELU, tied
head.

`--beside=transformers` times transformers' GPT-2 of that shape, as it ships (dropout 0.1, torch's
AdamW), under torch.compile in the interpreter --beside-python, on the same cores: one update of
ours, one of theirs, by turns, so that a load which comes and goes meets both.
`--beside=transformers-tuned` takes its dropout out and fuses its AdamW.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from lm import errors, host
from lm.errors import UserError

# No jax at the top: a worker that runs torch has no use for it and may live where it is not
# installed.


def model_config(args: argparse.Namespace) -> Any:
  """The `config.model` that is timed."""
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
  """(one update -> its loss, facts): our training step."""
  host.keep_freed_memory()
  import flax.linen as nn
  import jax
  import numpy as np
  from ml_collections import FrozenConfigDict

  from configs import base
  from lm import model, optim, sharding
  from lm.steps import common, pretrain

  c = base.get_config()
  c.optim.update(name=args.optimizer, schedule='constant', warmup=0)
  c.loss.chunk = args.chunk
  config = FrozenConfigDict(model_config(args))
  model.check(config)
  boxed = model.init(config, jax.random.key(0))
  params = nn.unbox(boxed)
  tx, schedule = optim.make(c.optim, args.steps + 1, sharding.axis_names(boxed))
  step = jax.jit(
    common.make_train_step(pretrain.make_loss(config, c.loss), tx, schedule), donate_argnums=0
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
  state = common.init_state(params, tx)

  def update():
    nonlocal state
    state, metrics = step(state, batch, 1)
    return float(jax.block_until_ready(metrics)['train/loss'])

  return update, {
    'system': f'deepdive on jax {jax.__version__}, {jax.devices()[0].platform}',
    'params': sum(x.size for x in jax.tree.leaves(params)),
  }


def build_transformers(args: argparse.Namespace) -> tuple[Callable[[], float], dict[str, Any]]:
  """(one update -> its loss, facts): transformers' GPT-2 under torch.compile, as it ships or
  tuned.
  """
  try:
    import torch
    import transformers
  except ModuleNotFoundError as error:
    raise UserError(
      f'{sys.executable} has no {error.name}; --beside-python names a Python that has it'
    ) from error

  if args.optimizer != 'adamw' or args.dtype != 'float32':
    raise UserError('--beside compares --optimizer=adamw in --dtype=float32 only')
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
    # transformers moves the labels by one itself
    loss = forward(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()

  return update, {
    'system': f'{args.system} {transformers.__version__} on torch {torch.__version__}',
    'params': sum(p.numel() for p in net.parameters()),
  }


SYSTEMS = {
  'deepdive': build_ours,
  'transformers': build_transformers,
  'transformers-tuned': build_transformers,
}


def work(args: argparse.Namespace) -> None:
  """A worker: the first update, then one for each line of stdin; says in a line of JSON what each
  took.
  """
  update, facts = SYSTEMS[args.system](args)
  for n, _ in enumerate(['first', *range(args.steps)]):
    if n:
      sys.stdin.readline()
    start = time.perf_counter()
    loss = update()
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux: kilobytes
    print(json.dumps(facts | {'seconds': took, 'loss': loss, 'peak_rss_bytes': peak}), flush=True)


class Worker:
  """The parent's end of a worker process."""

  def __init__(self, system: str, python: str, argv: list[str]):
    command = [python, '-m', 'lm.bench', 'train', *argv, f'--system={system}']
    self._process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    self.seen: list[dict[str, Any]] = []
    self._read()

  def step(self) -> None:
    """Has it make one update."""
    self._process.stdin.write('\n')
    self._process.stdin.flush()
    self._read()

  def _read(self):
    line = self._process.stdout.readline()
    if not line:
      raise UserError(
        f'the benchmark of {self._process.args[-1].removeprefix("--system=")} ended early (see '
        'above)'
      )
    self.seen.append(json.loads(line))

  def result(self, args: argparse.Namespace) -> dict[str, Any]:
    """What it came to; ends it."""
    from lm import budget

    self._process.stdin.close()
    self._process.wait()
    first, *rest = self.seen
    seconds = [s['seconds'] for s in rest]
    middle = statistics.median(seconds)
    tokens_per_s = args.batch * args.seq_len / middle
    flops = budget.flops_per_token(model_config(args), first['params'], args.seq_len)
    return {
      'system': first['system'],
      'tokens_per_s': tokens_per_s,
      'model_flops_per_s': tokens_per_s * flops,
      'first_step_s': first['seconds'],
      'peak_rss_bytes': rest[-1]['peak_rss_bytes'],
      'step_s': {'median': middle, 'min': min(seconds), 'max': max(seconds)},
      'params': first['params'],
      'first_loss': first['loss'],
      'last_loss': rest[-1]['loss'],
    }


def compare(args: argparse.Namespace, argv: list[str]) -> dict[str, Any]:
  """Times our step and, if asked, another system's by turns."""
  ours = Worker('deepdive', sys.executable, argv)
  workers = [ours] + ([Worker(args.beside, args.beside_python, argv)] if args.beside else [])
  for _ in range(args.steps):
    for worker in workers:
      worker.step()
  results = [worker.result(args) for worker in workers]
  shape = {
    name: getattr(args, name)
    for name in (
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
  }
  beside = {}
  if args.beside:
    pairs = zip(workers[1].seen[1:], ours.seen[1:], strict=True)
    beside = {
      'beside': results[1],
      'ratio': statistics.median(b['seconds'] / a['seconds'] for b, a in pairs),
    }
  return results[0] | {'shape': shape} | beside


def main() -> None:
  parser = argparse.ArgumentParser(
    prog='python -m lm.bench', description='Times the training step on random tokens.'
  )
  parser.add_argument('command', choices=['train'], help='the step to time')
  parser.add_argument('--json', action='store_true', help='print one line of JSON')
  for name, default in (
    ('layers', 6),
    ('width', 384),
    ('heads', 6),
    ('vocab', 4096),
    ('seq-len', 256),
    ('batch', 16),
    ('chunk', 1024),
    ('steps', 10),
  ):
    parser.add_argument(f'--{name}', type=int, default=default, help=f'default {default}')
  parser.add_argument(
    '--optimizer', choices=['adamw', 'muon'], default='adamw', help='default adamw'
  )
  parser.add_argument(
    '--dtype', choices=['float32', 'bfloat16'], default='float32', help='of activations'
  )
  parser.add_argument(
    '--remat',
    choices=['none', 'full', 'dots'],
    default='none',
    help='what the backward pass recomputes (default none)',
  )
  parser.add_argument(
    '--scan-layers', action='store_true', help='one compiled layer looped over, not all unrolled'
  )
  parser.add_argument(
    '--beside', choices=['transformers', 'transformers-tuned'], help='time this too, by turns'
  )
  parser.add_argument('--beside-python', default=sys.executable, help='an interpreter that has it')
  parser.add_argument('--system', choices=SYSTEMS, help=argparse.SUPPRESS)  # this is a worker
  args = parser.parse_args()
  if args.width % args.heads:
    raise UserError(f'--heads is {args.heads}; it must divide --width, {args.width}')
  if args.system:
    return work(args)
  result = compare(args, sys.argv[2:])
  if args.json:
    print(json.dumps(result))
  else:
    for name, value in result.items():
      print(f'{name:18} {value}')


if __name__ == '__main__':
  errors.run(main)
