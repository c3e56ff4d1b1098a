"""OLMo 2, which normalizes the outputs of its blocks, and queries and keys of all heads at once."""

from lm.weights.families import tensor_names
from lm.weights.families.family import Family, Tensor
from lm.weights.families.field_rules import (
  ATTENTION_BIAS,
  Rope,
  as_many_as_heads,
  common_fields,
)

OLMO2 = Family(
  architecture='Olmo2ForCausalLM',
  model_type='olmo2',
  rules=(*common_fields(kv_heads=as_many_as_heads, eps=1e-5), Rope(10_000.0), ATTENTION_BIAS),
  tensors=tensor_names.BASE
  | tensor_names.MLP
  | tensor_names.POST_NORMS
  | {
    # X is the joined axis of all heads.
    'layers/attention/q_norm/scale': Tensor(f'{tensor_names.LAYER}self_attn.q_norm.weight', 'X'),
    'layers/attention/k_norm/scale': Tensor(f'{tensor_names.LAYER}self_attn.k_norm.weight', 'X'),
  },
  fixed={'qk_norm': 'projection', 'norm_position': 'post'},
)
