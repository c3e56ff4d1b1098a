"""Formulas for the memory of a training step, and for the bytes that move between memory and chip.

The state and the batch are exact. The rest is what XLA keeps when it scans over the layers: the
weights of all layers once in the type of the products, the inputs that the backward pass of each
layer needs, the gradients of all layers, and the working set of one layer, which is its
activations, their gradients, and its weights gathered from all shards. tests/lm/test_aot.py
compares this with compiled programs.
"""

from lm.cost.chips import LANES
from lm.cost.step_shapes import StepShapes, mlp_matrices

FLOAT32 = 4  # bytes


def phases(shapes: StepShapes) -> dict[str, dict[str, float]]:
  """Returns for each phase of a step what holds memory at its peak, in bytes on one chip."""
  model, tokens, fsdp = shapes.model, shapes.tokens, shapes.mesh['fsdp']
  always = {'state': shapes.state_bytes, 'batch': shapes.batch_bytes}
  if shapes.config.microbatches > 1:
    always['sums of gradients'] = shapes.gradient_bytes
  saved = shapes.num_layers * tokens * _saved_bytes_per_token(shapes)
  kept = always | {'saved for the backward pass': saved}
  if shapes.item_bytes != shapes.param_item_bytes:
    kept['weights as bfloat16'] = shapes.num_layers * shapes.layer_bytes() / fsdp
  if model.attention == 'reference':
    kept['mask'] = tokens * shapes.config.seq_len
  gradients = shapes.layer_gradient_bytes + shapes.head_gradient_bytes
  return {
    'loss': kept | _loss_memory(shapes),
    'backward pass': kept | {'gradients': gradients} | _layer_memory(shapes),
    'update': always | {'gradients': shapes.gradient_bytes},
  }


def _saved_bytes_per_token(shapes: StepShapes) -> float:
  """Returns the bytes that a layer saves of each token for the backward pass."""
  queries, keys = shapes.query_width, shapes.key_width
  mlp = shapes.mlp_width * shapes.held
  ups = mlp_matrices(shapes.model) - 1
  if shapes.model.remat == 'full':  # the input of the layer
    return shapes.item_bytes * shapes.width
  if shapes.model.remat == 'dots':  # the input, q, k, v, o, and the outputs of gate and up
    return shapes.item_bytes * (2 * shapes.width + queries + 2 * keys + ups * mlp)
  # The input and its norm, q, k, v, the output of attention, with a kernel also before a change of
  # layout, the residual stream after attention and its norm; gate and up, and of experts also the
  # activation and the product.
  if shapes.model.num_experts:
    mlp *= 2
  of_queries = 2 if shapes.model.attention == 'reference' else 3
  return shapes.item_bytes * (4 * shapes.width + of_queries * queries + 2 * keys + ups * mlp)


def _loss_memory(shapes: StepShapes) -> dict[str, float]:
  """Returns what the loss holds at its peak."""
  tokens, fsdp, blocks = shapes.tokens, shapes.mesh['fsdp'], shapes.vocab_blocks
  head = shapes.width * shapes.vocab
  # Chunks of tokens need the whole head at each chip, beside its shard.
  copies = 1 if blocks or fsdp == 1 else 1 + fsdp
  hidden = shapes.item_bytes + (FLOAT32 if blocks else shapes.item_bytes)
  return {
    'logits': FLOAT32 * tokens * shapes.vocab / shapes.loss_parts * (2 if blocks else 1.5),
    'gradient of the head': FLOAT32 * head / fsdp * copies,
    'head': shapes.item_bytes * head / fsdp * copies,
    'hidden states and their gradient': hidden * tokens * shapes.width,
  }


def _layer_memory(shapes: StepShapes) -> dict[str, float]:
  """Returns what one layer holds in its backward pass."""
  model, tokens, item = shapes.model, shapes.tokens, shapes.item_bytes
  queries, keys, heads = shapes.query_width, shapes.key_width, shapes.query_width / model.head_dim
  ups = mlp_matrices(model) - 1
  mlp = ups * item * tokens * shapes.mlp_width * shapes.held / model.mlp_blocks
  terms = {
    'residual stream and its gradient': 4 * item * tokens * shapes.width,
    'feed-forward and its gradient': 2 * mlp,
  }
  if model.num_experts:
    terms['tokens by expert'] = 2 * item * tokens * shapes.width * shapes.held
  if shapes.is_recomputed:
    terms['queries, keys, values, output'] = item * tokens * (2 * queries + 2 * keys)
  if model.attention == 'splash' and shapes.is_recomputed:
    # The kernel writes each of them once in every lane.
    terms['logarithms of attention'] = FLOAT32 * LANES * tokens * heads
  if model.attention == 'reference':
    from lm.model.attention.reference import block_size

    length = shapes.config.seq_len
    share = min(1, block_size(length) / length)
    terms['scores of attention'] = 2 * FLOAT32 * tokens * share * length * heads
  if model.attention == 'ring':
    from lm.model.attention import ring

    block = ring.block(shapes.config.seq_len // shapes.mesh['context'])
    terms['scores of attention'] = 2 * FLOAT32 * tokens * block * heads
    sums = FLOAT32 * (queries + 2 * keys)
    terms['keys that travel, and sums of gradients'] = tokens * (item * 2 * keys + sums)
  if shapes.mesh['fsdp'] > 1:
    terms['gathered weights'] = shapes.layer_bytes(model.mlp_blocks)
  return terms


def traffic(shapes: StepShapes) -> float:
  """Returns the bytes that an update moves between memory and chip at least.

  Each product reads its inputs and writes its output once, and nothing else moves.
  """
  tokens, item = shapes.tokens, shapes.item_bytes
  passes = 4 if shapes.model.remat == 'full' else 3
  layer = shapes.layer_bytes()
  for p in shapes.products():
    layer += item * tokens * (p.inputs + p.outputs) * (shapes.choices if p.is_routed else 1)
  weights = item * shapes.width * shapes.vocab * shapes.loss_parts
  head = (4 if shapes.vocab_blocks else 3) * (FLOAT32 * tokens * shapes.vocab + weights)
  update = 2 * shapes.state_bytes  # is read and written
  return shapes.config.microbatches * (shapes.num_layers * passes * layer + head) + update
