"""Training steps in PyTorch, which the benchmark times beside ours.

plain: the GPT of lm/cost/plain_gpt.py under torch.compile, with fused AdamW.
transformers: transformers' GPT-2 under torch.compile as it ships, with dropout 0.1 and torch's
AdamW, or with --family=llama its Llama. transformers-tuned removes the dropout and fuses AdamW;
transformers-eager is as it ships, without torch.compile.

No jax here: a worker that runs torch may run where jax is not installed.
"""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

# A function that makes one update and returns its loss, and facts about the system.
System = tuple[Callable[[], float], dict[str, Any]]


def build_plain(args: argparse.Namespace) -> System:
  """Returns the plain GPT's update."""
  import torch

  from lm.cost.plain_gpt import PlainGPT

  torch.manual_seed(0)
  net = PlainGPT(
    layers=args.layers,
    width=args.width,
    heads=args.heads,
    vocab=args.vocab,
    seq_len=args.seq_len,
  )
  forward, optimizer = torch.compile(net), net.make_optimizer()
  tokens = torch.randint(args.vocab, (args.batch, args.seq_len + 1))
  inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
  return _system('plain GPT', net, optimizer, lambda: forward(inputs, targets))


def build_transformers(args: argparse.Namespace) -> System:
  """Returns the update of transformers' GPT-2 or Llama."""
  import torch
  import transformers

  torch.manual_seed(0)
  tuned = args.system == 'transformers-tuned'
  if args.family == 'llama':
    net = transformers.LlamaForCausalLM(
      transformers.LlamaConfig(
        vocab_size=args.vocab,
        max_position_embeddings=args.seq_len,
        hidden_size=args.width,
        intermediate_size=4 * args.width,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        tie_word_embeddings=True,
        use_cache=False,
      )
    )
  else:
    dropout = dict.fromkeys(('resid_pdrop', 'embd_pdrop', 'attn_pdrop'), 0.0) if tuned else {}
    net = transformers.GPT2LMHeadModel(
      transformers.GPT2Config(
        vocab_size=args.vocab,
        n_positions=args.seq_len,
        n_embd=args.width,
        n_layer=args.layers,
        n_head=args.heads,
        use_cache=False,
        **dropout,
      )
    )
  forward = net if args.system == 'transformers-eager' else torch.compile(net)
  optimizer = torch.optim.AdamW(
    net.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=tuned
  )
  tokens = torch.randint(args.vocab, (args.batch, args.seq_len))
  name = f'{args.system} {transformers.__version__}'
  # transformers shifts the labels by one itself.
  return _system(name, net, optimizer, lambda: forward(input_ids=tokens, labels=tokens).loss)


def _system(name: str, net: Any, optimizer: Any, loss_of: Callable[[], Any]) -> System:
  import torch

  def update() -> float:
    loss = loss_of()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()

  return update, {
    'system': f'{name} on torch {torch.__version__}',
    'params': sum(p.numel() for p in net.parameters()),
  }


@dataclasses.dataclass(frozen=True)
class Peer:
  """A system that the benchmark can run.

  Attributes:
    build: returns its update.
    packages: what must be installed.
    families: the models that it has; the first is its default.
  """

  build: Callable[[argparse.Namespace], System]
  packages: tuple[str, ...]
  families: tuple[str, ...]


_TRANSFORMERS = Peer(build_transformers, ('torch', 'transformers'), ('gpt2', 'llama'))
PEERS = {
  'plain': Peer(build_plain, ('torch',), ('gpt',)),
  'transformers': _TRANSFORMERS,
  'transformers-tuned': _TRANSFORMERS,
  'transformers-eager': _TRANSFORMERS,
}
