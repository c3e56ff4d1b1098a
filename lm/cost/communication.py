"""Formulas for the bytes that a chip sends to others in an update, by mesh axis and collective.

Bytes are counted as lm/cost/hlo.py counts them in compiled programs. Small collectives, such as
those of norms and of sums for metrics, are left out.
"""

import math
from collections import Counter
from collections.abc import Mapping

from lm.cost.flops import ring_stops
from lm.cost.step_shapes import StepShapes, mlp_matrices

FLOAT32 = 4  # bytes
Sent = Counter  # (mesh axes joined by +, kind of collective) -> bytes


def sent_bytes(shapes: StepShapes) -> Sent:
  """Returns the bytes that one chip sends in an update."""
  sent: Sent = Counter()
  for part in (_parameters, _gradients, _tensor_parallel, _context_parallel, _experts):
    sent.update(part(shapes))
  return Counter({key: value * shapes.config.microbatches for key, value in sent.items()})


def _parameters(shapes: StepShapes) -> Mapping[tuple[str, str], float]:
  """Returns what is sent along fsdp to gather parameters, and to sum and scatter gradients."""
  fsdp = shapes.mesh['fsdp']
  if fsdp == 1:
    return {}
  sent: Sent = Counter()
  fraction = (fsdp - 1) / fsdp  # of an array that is spread over fsdp, the part at other chips
  layers = shapes.num_layers * shapes.layer_bytes()
  head, item = shapes.width * shapes.vocab, shapes.item_bytes
  passes = 2 if shapes.vocab_blocks else shapes.loss_parts  # that read the head
  head_gradient = head * (item if shapes.vocab_blocks else FLOAT32)
  sent['fsdp', 'all-gather'] += fraction * 2 * layers
  if shapes.has_narrow_shards:
    # XLA sums gradients whole instead of scattering them.
    all_heads = head_gradient + passes * item * head
    sent['fsdp', 'all-reduce'] += 2 * fraction * (layers + all_heads)
  else:
    # XLA computes a product whose result is scattered over more than two chips in a ring, which
    # sends one part more.
    scattered = 1 if fsdp > 2 else fraction
    sent['fsdp', 'all-gather'] += fraction * passes * item * head
    times = scattered if shapes.vocab_blocks else fraction * passes
    sent['fsdp', 'reduce-scatter'] += scattered * layers + head_gradient * times
  # The embedding looks up the tokens of all chips in its part of the width.
  sent['fsdp', 'all-to-all'] += fraction * shapes.tokens * shapes.width * (item + FLOAT32)
  return sent


def _gradients(shapes: StepShapes) -> Mapping[tuple[str, str], float]:
  """Returns what is sent to sum gradients over the replicas of the parameters."""
  sent: Sent = Counter()
  model, mesh, fsdp, dcn = shapes.model, shapes.mesh, shapes.mesh['fsdp'], shapes.mesh['dcn']
  matrices = mlp_matrices(model) * shapes.width * shapes.mlp_width * shapes.item_bytes
  experts = model.num_experts / mesh['expert'] * matrices  # of one layer
  # A tied embedding is both table and head, and has a gradient as each of them.
  positions = model.max_len if model.position == 'learned' else 0
  tables = shapes.width * shapes.vocab + shapes.width * (shapes.vocab + positions)
  others = shapes.num_layers * (shapes.layer_bytes() - experts) + FLOAT32 * tables
  for axes, size in (
    (('data', 'context'), shapes.num_layers * experts),
    (('data', 'expert', 'context'), others),
  ):
    split = [axis for axis in axes if mesh[axis] > 1]
    replicas = math.prod(mesh[axis] for axis in split)
    if split and size:
      sent['+'.join(split), 'all-reduce'] += 2 * (replicas - 1) / replicas / fsdp * size
    if dcn > 1 and size:
      # The sum is first formed within each slice; each chip then sends its part of it.
      sent['dcn', 'all-reduce'] += 2 * (dcn - 1) / dcn / fsdp / replicas * size
  return sent


def _tensor_parallel(shapes: StepShapes) -> Mapping[tuple[str, str], float]:
  """Returns what is sent along tensor to sum the outputs of attention and feed-forward blocks."""
  tensor, model = shapes.mesh['tensor'], shapes.model
  if tensor == 1:
    return {}
  stream = shapes.tokens * shapes.width * shapes.item_bytes
  # The output of attention, and again where it is recomputed; the gradients of what both blocks
  # read; the output of each block of the feed-forward matrices, and their sum.
  sums = 3 + (model.remat == 'full') + model.mlp_blocks + (model.mlp_blocks > 1)
  loss = FLOAT32 * shapes.tokens * shapes.width
  size = shapes.num_layers * sums * stream + stream + loss
  return {('tensor', 'all-reduce'): 2 * (tensor - 1) / tensor * size}


def _context_parallel(shapes: StepShapes) -> Mapping[tuple[str, str], float]:
  """Returns what is sent along context, where keys travel in a ring or are gathered."""
  sent: Sent = Counter()
  model, tokens, context = shapes.model, shapes.tokens, shapes.mesh['context']
  if context == 1:
    return {}
  keys = 2 * shapes.key_width  # keys and values
  if model.attention == 'ring':
    passes = 2 + shapes.is_recomputed
    documents = 4  # bytes of the document of each key, which travels with it
    for stops in ring_stops(model, shapes.config.seq_len, context):
      block = tokens * (shapes.item_bytes * keys + documents)
      sent['context', 'collective-permute'] += (stops - 1) * block * passes
      if stops > 1:  # the sums of gradients travel too, and then home
        sent['context', 'collective-permute'] += stops * tokens * FLOAT32 * keys
    return sent
  gathered = shapes.num_layers * shapes.item_bytes * tokens * keys * (context - 1)
  sent['context', 'all-gather'] += gathered * (1 + shapes.is_recomputed)
  sent['context', 'reduce-scatter'] += gathered
  return sent


def _experts(shapes: StepShapes) -> Mapping[tuple[str, str], float]:
  """Returns what is sent along expert, to gather tokens and to scatter the experts' outputs."""
  expert = shapes.mesh['expert']
  if expert == 1 or not shapes.model.num_experts:
    return {}
  stream = shapes.tokens * shapes.width * shapes.item_bytes
  layers = (expert - 1) * shapes.num_layers * stream
  return {
    ('expert', 'all-gather'): layers * (2 + shapes.is_recomputed),
    ('expert', 'reduce-scatter'): layers * 2,
  }
