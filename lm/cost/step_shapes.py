"""The sizes that the formulas of this room share: what one chip holds of the arrays of a step."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from lm.cost.chips import LANES

# No jax at the top: workers of lm/cost/step_time.py may run where jax is not installed.


@dataclasses.dataclass(frozen=True)
class Product:
  """A matrix product of a layer, with the widths that one chip computes.

  Attributes:
    inputs: the width that is summed over.
    outputs: the width of the result.
    is_routed: whether each expert has a matrix of its own.
  """

  inputs: float
  outputs: float
  is_routed: bool = False


class StepShapes:
  """The sizes of a training step on one chip of a mesh.

  Attributes:
    config: the config of the run.
    model: the config of the model.
    mesh: the size of each axis of the mesh.
    stage: the stage of the run (`lm.stages.stage.Stage`).
    num_params: parameters of the whole model.
    state_bytes, batch_bytes: the train state and the batch.
    num_frozen: those of them that are not trained.
    gradient_bytes, layer_gradient_bytes, head_gradient_bytes: the gradients of all parameters that
      are trained, of those of the layers, and of the vocabulary head.
    item_bytes: bytes of a number in matrix products and activations.
    param_item_bytes: bytes of a number in the parameters.
    tokens: tokens of a microbatch.
    is_recomputed: whether the backward pass computes activations again.
    width: embed_dim, which is whole in activations.
    query_width, key_width: the widths of all query heads and of all key heads.
    mlp_width: the width of the feed-forward block.
    vocab: the number of logits.
    choices: the experts that each token is computed by, 1 without experts.
    held: the rows that a layer's feed-forward block holds for each token: the experts of a group of
      chips hold the tokens of all of them.
    has_narrow_shards: whether the shards of embed_dim are no multiple of a TPU's lanes wide.
    vocab_blocks: the blocks that the loss cuts the vocabulary into. 0: it cuts the tokens instead.
    loss_parts: the number of blocks, or of chunks of tokens.
  """

  def __init__(
    self, config: ConfigDict, model: FrozenConfigDict, mesh: Mapping[str, int], program: Any
  ):
    """Reads the sizes from the config and the shapes of an `lm.train.program.Program`."""
    import jax

    from lm.model import adapters, param_rules
    from lm.parallel.sharding import BATCH

    params = program.state['params']
    self.config, self.model, self.mesh, self.stage = config, model, mesh, program.stage
    self.num_params = sum(x.size for x in jax.tree.leaves(params))
    self.state_bytes, self.batch_bytes = _held_bytes(program.state), _held_bytes(program.batch)
    trained = param_rules.select(params, adapters.trained(config.train.params, params))
    self.num_frozen = self.num_params - sum(x.size for x in jax.tree.leaves(trained))
    table = 'embedding' if model.tie_embeddings else 'head'
    self.gradient_bytes = _held_bytes(trained)
    self.layer_gradient_bytes = _held_bytes(trained['layers']) if 'layers' in trained else 0
    self.head_gradient_bytes = _held_bytes(trained[table]) if table in trained else 0
    self.item_bytes = 2 if model.dtype == 'bfloat16' else 4
    self.param_item_bytes = 2 if model.param_dtype == 'bfloat16' else 4
    rows = config.batch_size // config.microbatches  # of a microbatch, on all chips
    chips_of_tokens = math.prod(mesh[axis] for axis in BATCH) * mesh['context']
    self.tokens = rows * config.seq_len / chips_of_tokens
    self.is_recomputed = model.remat != 'none'
    self.width = model.embed_dim
    self.query_width = model.num_heads * model.head_dim / mesh['tensor']
    self.key_width = model.num_kv_heads * model.head_dim / mesh['tensor']
    self.mlp_width = model.mlp_dim / mesh['tensor']
    self.vocab = model.vocab_size / mesh['tensor']
    self.choices = model.experts_per_token if model.num_experts else 1
    self.held = self.choices * (mesh['expert'] if model.num_experts else 1)
    self.has_narrow_shards = mesh['fsdp'] > 1 and model.embed_dim // mesh['fsdp'] % LANES > 0
    self.vocab_blocks = config.loss.vocab_blocks if self.stage.blocks_vocabulary else 0
    chunk_tokens = max(1, config.loss.chunk // rows)
    self.loss_parts = self.vocab_blocks or -(-config.seq_len // chunk_tokens)

  @property
  def chips(self) -> int:
    """The number of chips in the mesh."""
    return math.prod(self.mesh.values())

  @property
  def num_layers(self) -> int:
    return self.model.num_layers

  def attention_products(self) -> list[Product]:
    """Returns the products of a layer's attention, and its router's if it has one."""
    products = [
      Product(self.width, self.query_width),
      Product(self.width, self.key_width),
      Product(self.width, self.key_width),
      Product(self.query_width, self.width),
    ]
    if self.model.num_experts:
      products.append(Product(self.width, self.model.num_experts))
    return products

  def mlp_products(self) -> list[Product]:
    """Returns the products of a layer's feed-forward block, the last one last."""
    is_routed = self.model.num_experts > 0
    up = Product(self.width, self.mlp_width, is_routed)
    down = Product(self.mlp_width, self.width, is_routed)
    return [up] * (mlp_matrices(self.model) - 1) + [down]

  def products(self) -> list[Product]:
    """Returns all products of a layer, the last one last."""
    return self.attention_products() + self.mlp_products()

  def layer_bytes(self, mlp_blocks: int = 1) -> float:
    """Returns the bytes of a layer's matrices, gathered over fsdp, in the type of the products.

    Args:
      mlp_blocks: the blocks that the feed-forward matrices are cut into, only one of which counts.
    """
    experts = self.model.num_experts / self.mesh['expert']

    def numbers(products: list[Product]) -> float:
      return sum(p.inputs * p.outputs * (experts if p.is_routed else 1) for p in products)

    mlp = numbers(self.mlp_products()) / mlp_blocks
    return self.item_bytes * (numbers(self.attention_products()) + mlp)


def mlp_matrices(model: Mapping[str, Any]) -> int:
  """Returns the number of weight matrices in a feed-forward block: 3 if gated, else 2."""
  return 3 if model['activation'] in ('swiglu', 'geglu') else 2


def _held_bytes(tree: Any) -> int:
  """Returns the bytes that one device holds of a tree of shapes with shardings."""
  import jax

  total = 0
  for x in jax.tree.leaves(tree):
    total += math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
  return total
