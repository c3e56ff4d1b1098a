"""Mistral 7B, whose layers may all have windows, and Mixtral, which routes tokens to experts."""

from lm.weights.families import tensor_names
from lm.weights.families.family import Family
from lm.weights.families.field_rules import Field, Rope, Windows, all_windows, common_fields

MISTRAL = Family(
  architecture='MistralForCausalLM',
  model_type='mistral',
  rules=(*common_fields(), Rope(10_000.0), Windows(all_windows, listed=False, size=4096)),
  tensors=tensor_names.LLAMA,
)

MIXTRAL = Family(
  architecture='MixtralForCausalLM',
  model_type='mixtral',
  rules=(
    *common_fields(eps=1e-5),
    Rope(1_000_000.0),
    Windows(all_windows, listed=False),
    Field('num_local_experts', 'num_experts', also='num_experts'),
    Field('num_experts_per_tok', 'experts_per_token'),
  ),
  tensors=tensor_names.BASE
  | tensor_names.PRE_NORMS
  | tensor_names.routed_mlp(
    router='block_sparse_moe.gate',
    expert='block_sparse_moe.experts.{e}',
    gate='w1',
    up='w3',
    down='w2',
  ),
)
