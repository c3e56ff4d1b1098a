"""The Transformer written again in NumPy, from the papers' formulas, one row and one head at a
time.
"""

import math

import numpy as np


def normed(c, x, p, kind='rmsnorm'):
  """RMSNorm: x / rms(x) * g. LayerNorm: (x - mean) / std * g + b. With an offset g is 1 + the
  parameter.
  """
  g = p['scale'] + (1 if c.norm_offset else 0)
  if kind == 'rmsnorm':
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + c.norm_eps) * g
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + c.norm_eps) * g + p[
    'bias'
  ]


def frequency(c, i, kind):
  """Radians per position of pair i, after Llama 3.1's cases: long waves are stretched, short ones
  kept, blended between.
  """
  if kind == 'nope':
    return 0
  if kind == 'window' and c.rope_theta_window:
    return c.rope_theta_window ** (-2 * i / c.head_dim)
  f = c.rope_theta ** (-2 * i / c.head_dim)
  if c.rope_scaling == 'linear':
    return f / c.rope_factor
  if c.rope_scaling == 'llama3':
    wave = 2 * math.pi / f
    longest, shortest = (
      c.rope_original_len / c.rope_low_freq_factor,
      c.rope_original_len / c.rope_high_freq_factor,
    )
    if wave > longest:
      return f / c.rope_factor
    if wave >= shortest:
      smooth = (c.rope_original_len / wave - c.rope_low_freq_factor) / (
        c.rope_high_freq_factor - c.rope_low_freq_factor
      )
      return (1 - smooth) * f / c.rope_factor + smooth * f
  return f


def rotated(c, x, position, kind):
  """One head vector as half complex numbers x_i + j x_{i+H/2}, turned by position * frequency."""
  half = len(x) // 2
  turned = (x[:half] + 1j * x[half:]) * np.exp(
    [1j * position * frequency(c, i, kind) for i in range(half)]
  )
  return np.concatenate([turned.real, turned.imag])


def activated(c, x, p):
  """The feed-forward block of one token."""

  def line(name, x):
    return x @ p[name]['kernel'] + (p[name]['bias'] if c.mlp_bias else 0)

  def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

  up = line('up', x)
  h = {
    'gelu': lambda: gelu(up),
    'relu2': lambda: np.maximum(up, 0) ** 2,
    'swiglu': lambda: line('gate', x) / (1 + np.exp(-line('gate', x))) * up,
    'geglu': lambda: gelu(line('gate', x)) * up,
  }[c.activation]()
  return line('down', h)


def routed(c, x, p):
  """The experts of one token: the likeliest ones, weighted by their probabilities."""
  scores = np.exp(x @ p['router']['kernel'])
  chosen = np.argsort(-scores)[: c.experts_per_token]
  weights = scores[chosen] / (scores[chosen] if c.normalize_experts else scores).sum()
  experts = [
    {name: {'kernel': p[name]['kernel'][e]} for name in p if name != 'router'} for e in chosen
  ]
  return sum(w * activated(c, x, expert) for w, expert in zip(weights, experts, strict=True))


def capped(x, cap):
  return np.tanh(x / cap) * cap if cap else x


def attended(c, x, p, positions, segments, kind):
  """Attention of one row x [T, D]."""
  T = len(x)

  def heads(name):
    y = np.einsum('td,dnh->tnh', x, p[name]['kernel'])
    return y + (p[name]['bias'] if c.attention_bias in ('qkv', 'all') else 0)

  q, k, v = heads('q'), heads('k'), heads('v')
  if c.qk_norm == 'head':
    q, k = (normed(c, y, p[n]) for y, n in ((q, 'q_norm'), (k, 'k_norm')))
  if c.qk_norm == 'projection':
    q, k = (
      normed(c, y.reshape(T, -1), p[n]).reshape(y.shape) for y, n in ((q, 'q_norm'), (k, 'k_norm'))
    )
  if c.position == 'rope':
    q, k = (
      np.array([[rotated(c, h, positions[t], kind) for h in y[t]] for t in range(T)])
      for y in (q, k)
    )
  out = np.zeros((T, c.embed_dim))
  for n in range(c.num_heads):
    m = n * c.num_kv_heads // c.num_heads
    for t in range(T):
      seen = [
        s
        for s in range(t + 1)
        if segments[s] == segments[t] and (kind != 'window' or t - s < c.window)
      ]
      scores = np.array([q[t, n] @ k[s, m] for s in seen]) * (
        c.attention_scale or 1 / math.sqrt(c.head_dim)
      )
      scores = capped(scores, c.attention_softcap)
      weights = np.exp(scores - scores.max())
      weights /= weights.sum()
      out[t] += sum(w * v[s, m] for w, s in zip(weights, seen, strict=True)) @ p['o']['kernel'][n]
  return out + (p['o']['bias'] if c.attention_bias == 'all' else 0)


def logits(c, params, tokens, positions=None, segments=None):
  """Logits [T, V] in float64 of one row of tokens."""
  positions = range(len(tokens)) if positions is None else positions
  segments = [0] * len(tokens) if segments is None else segments

  def tree(node, layer=None):
    if isinstance(node, dict):
      return {name: tree(x, layer) for name, x in node.items()}
    return np.asarray(node, np.float64) if layer is None else np.asarray(node, np.float64)[layer]

  top = tree({name: x for name, x in params.items() if name != 'layers'})
  x = top['embedding'][list(tokens)] * (math.sqrt(c.embed_dim) if c.scale_embeddings else 1)
  if c.position == 'learned':
    x = x + top['position_table'][list(positions)]
  mlp = routed if c.num_experts else activated
  for layer in range(c.num_layers):
    p, kind = tree(params['layers'], layer), c.layer_types[layer % len(c.layer_types)]
    blocks = {
      'attention': lambda x, p=p['attention'], kind=kind: attended(
        c, x, p, positions, segments, kind
      ),
      'mlp': lambda x, p=p['mlp']: np.array([mlp(c, token, p) for token in x]),
    }
    for name, block in blocks.items():
      y = block(x if c.norm_position == 'post' else normed(c, x, p[f'{name}_norm'], c.norm))
      x = x + (y if c.norm_position == 'pre' else normed(c, y, p[f'{name}_post_norm'], c.norm))
  y = (
    normed(c, x, top['final_norm'], c.norm)
    @ (top['embedding'] if c.tie_embeddings else top['head']).T
  )
  return capped(y, c.logit_softcap)
