"""A plain GPT in PyTorch, beside which the benchmark times our training step.

It is what people write who follow GPT-2 with PyTorch's fast parts and nothing else: learned
positions, LayerNorm without offset, one product for queries, keys and values, no biases,
`scaled_dot_product_attention`, a tied head, and AdamW fused into one kernel. This module needs
torch, which only workers of the benchmark import, and no jax.
"""

import torch
from torch import nn
from torch.nn import functional


class Layer(nn.Module):
  """Attention and a feed-forward part, each added to the residual stream behind a norm."""

  def __init__(self, width: int, heads: int):
    super().__init__()
    self.heads = heads
    self.norm_1 = nn.LayerNorm(width, bias=False)
    self.qkv = nn.Linear(width, 3 * width, bias=False)
    self.out = nn.Linear(width, width, bias=False)
    self.norm_2 = nn.LayerNorm(width, bias=False)
    self.up = nn.Linear(width, 4 * width, bias=False)
    self.down = nn.Linear(4 * width, width, bias=False)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Returns [batch, length, width] of the same."""
    batch, length, width = x.shape
    qkv = self.qkv(self.norm_1(x)).view(batch, length, 3, self.heads, width // self.heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
    return x + self.down(functional.gelu(self.up(self.norm_2(x))))


class PlainGPT(nn.Module):
  """The whole model; it returns the mean loss of predicting `targets`."""

  def __init__(self, *, layers: int, width: int, heads: int, vocab: int, seq_len: int):
    super().__init__()
    self.embedding = nn.Embedding(vocab, width)
    self.positions = nn.Parameter(torch.zeros(seq_len, width))
    self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
    self.norm = nn.LayerNorm(width, bias=False)
    for weight in self.parameters():
      if weight.ndim == 2:
        nn.init.normal_(weight, std=0.02)
    for layer in self.layers:
      for linear in (layer.out, layer.down):
        nn.init.normal_(linear.weight, std=0.02 / (2 * layers) ** 0.5)

  def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Returns the mean cross entropy of targets [batch, length] behind tokens of that shape."""
    x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
    for layer in self.layers:
      x = layer(x)
    logits = functional.linear(self.norm(x), self.embedding.weight)
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

  def make_optimizer(self) -> torch.optim.Optimizer:
    """Returns AdamW in one kernel, with weight decay on matrices alone."""
    matrices = [x for x in self.parameters() if x.ndim == 2]
    vectors = [x for x in self.parameters() if x.ndim < 2]
    groups = [{'params': matrices, 'weight_decay': 0.1}, {'params': vectors, 'weight_decay': 0.0}]
    return torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)
