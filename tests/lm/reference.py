"""The Transformer written again in NumPy, from the papers' formulas, one row and one head at a time."""

import math

import numpy as np


def normed(x, kind, p, eps):
  """RMSNorm: x / rms(x) * g. LayerNorm: (x - mean) / std * g + b."""
  if kind == 'rmsnorm':
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p['scale']
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * p['scale'] + p['bias']


def rotated(x, position, theta):
  """One head vector as half complex numbers x_i + j x_{i+H/2}, turned by position * theta^(-2i/H)."""
  half = len(x) // 2
  turned = (x[:half] + 1j * x[half:]) * np.exp(1j * position * theta ** (-2 * np.arange(half) / len(x)))
  return np.concatenate([turned.real, turned.imag])


def activated(c, x, p):
  """The feed-forward block of one token."""

  def line(name, x):
    return x @ p[name]['kernel'] + (p[name]['bias'] if c.mlp_bias else 0)

  def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

  up = line('up', x)
  h = {'gelu': lambda: gelu(up), 'relu2': lambda: np.maximum(up, 0) ** 2,
       'swiglu': lambda: line('gate', x) / (1 + np.exp(-line('gate', x))) * up,
       'geglu': lambda: gelu(line('gate', x)) * up}[c.activation]()
  return line('down', h)


def attended(c, x, p, positions, segments):
  """Attention of one row x [T, D]."""
  T = len(x)

  def heads(name):
    y = np.einsum('td,dnh->tnh', x, p[name]['kernel'])
    return y + (p[name]['bias'] if c.attention_bias else 0)

  q, k, v = heads('q'), heads('k'), heads('v')
  if c.qk_norm:
    q, k = (normed(y, 'rmsnorm', p[n], c.norm_eps) for y, n in ((q, 'q_norm'), (k, 'k_norm')))
  if c.position == 'rope':
    q, k = (np.array([[rotated(h, positions[t], c.rope_theta) for h in y[t]] for t in range(T)]) for y in (q, k))
  out = np.zeros((T, c.embed_dim))
  for n in range(c.num_heads):
    m = n * c.num_kv_heads // c.num_heads
    for t in range(T):
      seen = [s for s in range(t + 1) if segments[s] == segments[t]]
      scores = np.array([q[t, n] @ k[s, m] for s in seen]) / math.sqrt(c.head_dim)
      weights = np.exp(scores - scores.max())
      weights /= weights.sum()
      out[t] += sum(w * v[s, m] for w, s in zip(weights, seen, strict=True)) @ p['o']['kernel'][n]
  return out + (p['o']['bias'] if c.attention_bias else 0)


def logits(c, params, tokens, positions=None, segments=None):
  """Logits [T, V] in float64 of one row of tokens."""
  positions = range(len(tokens)) if positions is None else positions
  segments = [0] * len(tokens) if segments is None else segments

  def tree(node, layer=None):
    if isinstance(node, dict):
      return {name: tree(x, layer) for name, x in node.items()}
    return np.asarray(node, np.float64) if layer is None else np.asarray(node, np.float64)[layer]

  top = tree({name: x for name, x in params.items() if name != 'layers'})
  x = top['embedding'][list(tokens)]
  if c.position == 'learned':
    x = x + top['position_table'][list(positions)]
  for layer in range(c.num_layers):
    p = tree(params['layers'], layer)
    x = x + attended(c, normed(x, c.norm, p['attention_norm'], c.norm_eps), p['attention'], positions, segments)
    x = x + activated(c, normed(x, c.norm, p['mlp_norm'], c.norm_eps), p['mlp'])
  return normed(x, c.norm, top['final_norm'], c.norm_eps) @ (top['embedding'] if c.tie_embeddings else top['head']).T
