"""The sizes that the formulas of this room share: what one chip holds of the arrays of a step."""

import dataclasses
import math
import re
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
    is_trained: whether the backward pass forms the gradient of the matrix.
    is_routed: whether each expert has a matrix of its own.
    is_last: whether the result is that of the feed-forward block.
  """

  inputs: float
  outputs: float
  is_trained: bool
  is_routed: bool = False
  is_last: bool = False


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
    frozen_per_token: those of them that are in matrices and work on a token: of experts that are
      not trained, those that the token is computed by.
    layer_params_per_token: the same of all matrices of layers, trained or not.
    head_is_trained: whether the matrix of the vocabulary head is trained.
    gradients_reach_layers, gradients_reach_head: whether anything is trained in or before the
      layers, and before the head; otherwise activations there have no gradients.
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
    from lm.train import losses

    params = program.state['params']
    self.config, self.model, self.mesh, self.stage = config, model, mesh, program.stage
    self.num_params = sum(x.size for x in jax.tree.leaves(params))
    self.state_bytes, self.batch_bytes = _held_bytes(program.state), _held_bytes(program.batch)
    self._names = frozenset(param_rules.leaf_names(params))
    self._trained = adapters.trained(config.train.params, params)
    trained = param_rules.select(params, self._trained)
    self.num_frozen = self.num_params - sum(x.size for x in jax.tree.leaves(trained))
    table = 'embedding' if model.tie_embeddings else 'head'
    per_token = _params_per_token(params, model, table)
    self.frozen_per_token = sum(n for name, n in per_token.items() if name not in self._trained)
    self.layer_params_per_token = sum(
      n for name, n in per_token.items() if name.startswith('layers/')
    )
    self.head_is_trained = table in self._trained
    first = {name.partition('/')[0] for name in self._trained}
    self.gradients_reach_layers = bool(first & {'embedding', 'position_table', 'layers'})
    self.gradients_reach_head = self.gradients_reach_layers or 'final_norm' in first
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
    is_sparse = self.stage.is_sparse and self.chips == 1
    self.loss_parts = self.vocab_blocks or losses.num_chunks(
      rows, config.seq_len, config.loss.chunk, is_sparse
    )

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
      *self._linear('attention/q', self.width, self.query_width),
      *self._linear('attention/k', self.width, self.key_width),
      *self._linear('attention/v', self.width, self.key_width),
      *self._linear('attention/o', self.query_width, self.width),
    ]
    if self.model.num_experts:
      products += self._linear('mlp/router', self.width, self.model.num_experts)
    return products

  def mlp_products(self) -> list[Product]:
    """Returns the products of a layer's feed-forward block."""
    kind = {'is_routed': self.model.num_experts > 0}
    kind['is_merged'] = kind['is_routed'] or self.model.mlp_blocks > 1
    products = []
    for name in ('up', 'gate')[: mlp_matrices(self.model) - 1]:
      products += self._linear(f'mlp/{name}', self.width, self.mlp_width, **kind)
    return products + self._linear('mlp/down', self.mlp_width, self.width, is_last=True, **kind)

  def products(self) -> list[Product]:
    """Returns all products of a layer."""
    return self.attention_products() + self.mlp_products()

  def _linear(
    self,
    name: str,
    inputs: float,
    outputs: float,
    *,
    is_routed: bool = False,
    is_merged: bool = False,
    is_last: bool = False,
  ) -> list[Product]:
    """Returns the product with a kernel, and those with its adapter if it has one.

    An adapter that is merged into its kernel has no products of its own, but the gradient of the
    sum is formed for it.
    """
    from lm.model import adapters

    kernel = f'layers/{name}/kernel'
    first, second = adapters.pair_of(kernel)
    is_trained = kernel in self._trained
    if is_merged:
      is_trained |= not self._trained.isdisjoint((first, second))
    products = [Product(inputs, outputs, is_trained, is_routed, is_last)]
    if first in self._names and not is_merged:
      rank = self.model.lora_rank
      products.append(Product(inputs, rank, first in self._trained))
      products.append(Product(rank, outputs, second in self._trained, is_last=is_last))
    return products

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


def _params_per_token(
  params: Mapping[str, Any], model: FrozenConfigDict, table: str
) -> dict[str, float]:
  """Returns by name how many numbers of each matrix of layers and of the head work on a token.

  Vectors count too, which are few.

  Args:
    params: the shapes of the parameters.
    model: the config of the model.
    table: the name of the head's matrix.
  """
  from lm.model import param_rules

  leaves = dict(param_rules.leaves(params))
  share = model.experts_per_token / model.num_experts if model.num_experts else 1.0
  numbers = {}
  for name, x in leaves.items():
    if name in ('embedding', 'position_table') and name != table:
      continue  # A token reads one row of these tables.
    is_routed = re.fullmatch(r'layers/mlp/(gate|up|down)/.*', name)
    numbers[name] = x.size * (share if is_routed else 1.0)
  return numbers


def _held_bytes(tree: Any) -> int:
  """Returns the bytes that one device holds of a tree of shapes with shardings."""
  import jax

  total = 0
  for x in jax.tree.leaves(tree):
    total += math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
  return total
