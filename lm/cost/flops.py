"""Formulas for the floating-point operations of a training step.

Model FLOPs are PaLM's (arXiv 2204.02311, appendix B): for each token 6 for each parameter of a
matrix, the head included and the tables not, and 12 L T N H for attention, the half that the causal
mask hides included. Of the 6, the forward pass takes 2, the gradients of activations 2, and the
gradient of the parameter 2, which one that is not trained does not have. Recomputation does not
count. Executed FLOPs are what a chip carries out: with recomputation, and without the blocks of
attention that a kernel skips.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm.base import config as config_lib
from lm.base.errors import unknown
from lm.cost.chips import LANES
from lm.cost.step_shapes import Product, StepShapes, mlp_matrices

# No jax at the top: workers of lm/cost/step_time.py may run where jax is not installed.

# Matrix products of attention: in the forward pass, where that is recomputed, in the backward pass.
ATTENTION_PRODUCTS = {
  'reference': (2, 1, 5),
  'splash': (2, 2, 7),
  'cudnn': (2, 2, 5),
  'ring': (2, 2, 5),
}
# Matrix products in a call of each kernel that XLA cannot see into, by the beginning of its name.
KERNEL_PRODUCTS = {
  'splash_mha_fwd': 2,
  'splash_mha_dkv': 4,
  'splash_mha_dq': 3,
  'ragged-dot-none': 1,
  'ragged-dot-metadata': 0,
}


def flops_per_token(model: Mapping[str, Any], num_params: int, seq_len: int) -> float:
  """Returns the model FLOPs of a token, forward and backward, where all parameters are trained.

  Args:
    model: config.model.
    num_params: the parameters of the whole model.
    seq_len: the tokens of its row.
  """
  tables = 0 if model['tie_embeddings'] else model['vocab_size'] * model['embed_dim']
  if model['position'] == 'learned':
    tables += model['max_len'] * model['embed_dim']
  expert = mlp_matrices(model) * model['embed_dim'] * model['mlp_dim']
  idle_experts = max(0, model['num_experts'] - model['experts_per_token'])
  idle = model['num_layers'] * idle_experts * expert
  return 6 * (num_params - tables - idle) + 6 * _attention_per_token(model, seq_len)


def _attention_per_token(model: Mapping[str, Any], seq_len: int) -> int:
  """Returns the multiplications of a token's attention in the forward pass, over all layers."""
  keys = 0
  for kind in config_lib.layer_types(model):
    keys += min(seq_len, model['window']) if kind == 'window' else seq_len
  return 2 * keys * model['num_heads'] * model['head_dim']


def rows_flops(shapes: StepShapes, lengths: Iterable[int]) -> float:
  """Returns the model FLOPs, forward and backward, of rows of these lengths in tokens."""
  model, total = shapes.model, 0.0
  for n in lengths:
    whole = flops_per_token(model, shapes.num_params, n)
    total += n * (whole - _unneeded_per_token(shapes, n))
  return total


def _unneeded_per_token(shapes: StepShapes, seq_len: int) -> float:
  """Returns the model FLOPs of a token that are left out because parameters are not trained."""
  multiplications = shapes.frozen_per_token
  if not shapes.gradients_reach_layers:
    # A product has two gradients; of a matrix, one is that of a parameter.
    multiplications += shapes.layer_params_per_token
    multiplications += 2 * _attention_per_token(shapes.model, seq_len)
  if not shapes.gradients_reach_head:
    multiplications += shapes.width * shapes.model.vocab_size
  return 2 * multiplications


def model_flops(shapes: StepShapes) -> float:
  """Returns the model FLOPs of an update, for one chip."""
  config = shapes.config
  return rows_flops(shapes, [config.seq_len]) * config.batch_size / shapes.chips


def executed_flops(shapes: StepShapes) -> float:
  """Returns the FLOPs that one chip carries out in an update."""
  layer = sum(_product_flops(shapes, p) for p in shapes.products()) + _attention_flops(shapes)
  return shapes.config.microbatches * (shapes.num_layers * layer + _head_flops(shapes))


def _product_flops(shapes: StepShapes, product: Product) -> float:
  """Returns the FLOPs of a product of a layer for a microbatch, and those of its gradients."""
  model = shapes.model
  forward = 2 * shapes.tokens * product.inputs * product.outputs
  if product.is_routed:
    forward *= shapes.choices
  if not shapes.gradients_reach_layers:
    return forward
  times = 2  # the forward pass, and the gradient of the activations
  if product.is_trained:
    # XLA forms the gradient of each expert's matrix from the rows of all experts.
    times += model.num_experts if product.is_routed else 1
  if model.remat == 'full':
    # The output of the last product is not needed again where only the residual stream reads it.
    only_added = product.is_last and model.norm_position == 'pre' and not model.num_experts
    times += 0 if only_added else 1
  return times * forward


def _head_flops(shapes: StepShapes) -> float:
  """Returns the FLOPs of the vocabulary head for a microbatch, and those of its gradients."""
  gradients = shapes.gradients_reach_head + shapes.head_is_trained
  computes_logits_again = shapes.vocab_blocks or shapes.stage.recomputes_logits
  times = 1 + gradients + (1 if gradients and computes_logits_again else 0)
  return times * 2 * shapes.tokens * shapes.width * shapes.vocab


def _attention_flops(shapes: StepShapes) -> float:
  """Returns the FLOPs of a layer's attention for a microbatch, its projections not included."""
  model, seq_len = shapes.model, shapes.config.seq_len
  forward, again, backward = ATTENTION_PRODUCTS[model.attention]
  products = forward
  if shapes.gradients_reach_layers:
    products += backward
    if shapes.is_recomputed:
      products += again
    elif model.attention == 'reference' and not model.scan_layers:
      products -= 1  # XLA sees that both passes compute the same scores
  fraction = attention_fraction(model, seq_len, shapes.mesh['context'])
  return products * 2 * shapes.tokens * seq_len * shapes.query_width * fraction


def attention_fraction(model: Mapping[str, Any], seq_len: int, context: int) -> float:
  """Returns the fraction of all (query, key) pairs that a device computes, as a mean over layers.

  Splash skips blocks of 512 that are masked (lm/model/attention/kernels.py), and the reference the
  keys after each quarter of the queries (lm/model/attention/reference.py). cuDNN is taken to
  compute half. In a ring the result is that of the last device along `context`, which computes
  most.
  """
  kind = model['attention']
  if kind == 'cudnn':
    return 0.5
  if kind == 'reference':
    return _reference_fraction(seq_len)
  if kind == 'ring':
    return sum(ring_stops(model, seq_len, context)) / context / model['num_layers']
  return _splash_fraction(model, seq_len)


def _reference_fraction(seq_len: int) -> float:
  from lm.model.attention.reference import block_size

  size = block_size(seq_len)
  pairs = 0
  for start in range(0, seq_len, size):
    stop = min(start + size, seq_len)
    pairs += (stop - start) * stop
  return pairs / seq_len**2


def _splash_fraction(model: Mapping[str, Any], seq_len: int) -> float:
  from lm.model.attention.kernels import BLOCK

  fitting = (size for size in range(min(BLOCK, seq_len), 0, -1) if seq_len % size == 0)
  block = next(size for size in fitting if size % LANES == 0)
  blocks = seq_len // block
  fractions = []
  for kind in config_lib.layer_types(model):
    # The number of blocks of keys that a block of queries sees at most.
    seen = -(-(model['window'] - 1) // block) + 1 if kind == 'window' else blocks
    fractions.append(sum(min(i + 1, seen) for i in range(blocks)) / blocks**2)
  return sum(fractions) / len(fractions)


def ring_stops(model: Mapping[str, Any], seq_len: int, context: int) -> list[int]:
  """Returns for each layer the number of devices that a block of keys visits in ring attention."""
  from lm.model.attention import ring

  stops = []
  for kind in config_lib.layer_types(model):
    window = model['window'] if kind == 'window' else 0
    stops.append(ring.stops(context, seq_len // context, window))
  return stops


def kernel_flops(
  model: Mapping[str, Any], mesh: Mapping[str, int], kernels: Sequence[Any]
) -> float:
  """Returns the FLOPs of the kernel calls of a compiled program, which XLA cannot count.

  Args:
    model: config.model.
    mesh: the size of each axis.
    kernels: the calls (`lm.cost.hlo.Kernel`), of Splash and of XLA's products of experts.

  Raises:
    UserError: another kernel is called.
  """
  total = 0.0
  for kernel in kernels:
    name = next((name for name in KERNEL_PRODUCTS if kernel.name.startswith(name)), None)
    if name is None:
      raise unknown('kernel', kernel.name, KERNEL_PRODUCTS)
    floats = [shape for kind, shape in kernel.operands if kind in ('bf16', 'f32')]
    if name.startswith('splash'):
      # [B, N, T, H] and [B, K, S, H], without B where it is 1.
      queries, (*_, num_keys, _) = floats[:2]
      fraction = attention_fraction(model, num_keys, mesh['context'])
      multiplications = math.prod(queries) * num_keys * fraction
    else:
      # The rows of all choices, of which each device along `expert` computes its part.
      expert = model['embed_dim'] * model['mlp_dim'] / mesh['tensor'] / mesh['expert']
      rows = [shape for shape in floats if len(shape) == 2]
      multiplications = sum(math.prod(shape) / shape[1] * expert for shape in rows)
    total += kernel.count * KERNEL_PRODUCTS[name] * 2 * multiplications
  return total
