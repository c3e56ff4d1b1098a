"""Qwen2 and 2.5, and Qwen3, dense and routed."""

from lm.weights.families import tensor_names
from lm.weights.families.family import Family, Fields
from lm.weights.families.field_rules import (
  ATTENTION_BIAS,
  Field,
  Only,
  Rope,
  Unread,
  Windows,
  all_windows,
  common_fields,
)


def _windows_above(hf: Fields, layers: int) -> list[str]:
  """The pattern in which only the layers from `max_window_layers` on have a window."""
  first = hf.get('max_window_layers', 28)
  return ['window' if i >= first else 'full' for i in range(layers)]


_WINDOWS = Windows(
  _windows_above, switch='use_sliding_window', size=4096, reads=('max_window_layers',)
)

QWEN2 = Family(
  architecture='Qwen2ForCausalLM',
  model_type='qwen2',
  rules=(*common_fields(), Rope(10_000.0), _WINDOWS, Only('use_mrope', (None, False))),
  tensors=tensor_names.LLAMA,
  fixed={'attention_bias': 'qkv'},
)

QWEN3 = Family(
  architecture='Qwen3ForCausalLM',
  model_type='qwen3',
  rules=(*common_fields(head_dim=128), Rope(10_000.0), _WINDOWS, ATTENTION_BIAS),
  tensors=tensor_names.LLAMA | tensor_names.HEAD_NORMS,
  fixed={'qk_norm': 'head'},
)

QWEN3_MOE = Family(
  architecture='Qwen3MoeForCausalLM',
  model_type='qwen3_moe',
  rules=(
    *common_fields(mlp='moe_intermediate_size'),
    Rope(10_000.0),
    ATTENTION_BIAS,
    Windows(all_windows, switch='use_sliding_window', listed=False, size=4096),
    Field('num_experts', 'num_experts', also='num_local_experts'),
    Field('num_experts_per_tok', 'experts_per_token'),
    Field('norm_topk_prob', 'normalize_experts', bool, default=False),
    # These two say that every layer is routed; `intermediate_size` is the width of dense ones.
    Only('decoder_sparse_step', (1,)),
    Only('mlp_only_layers', ([],)),
    Unread(('intermediate_size', 'max_window_layers')),
  ),
  tensors=tensor_names.BASE
  | tensor_names.PRE_NORMS
  | tensor_names.HEAD_NORMS
  | tensor_names.routed_mlp(
    router='mlp.gate',
    expert='mlp.experts.{e}',
    gate='gate_proj',
    up='up_proj',
    down='down_proj',
  ),
  fixed={'qk_norm': 'head'},
)
