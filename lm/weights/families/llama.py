"""Llama 2 to 3.2, SmolLM2, and many others that are published as Llama."""

from lm.weights.families import tensor_names
from lm.weights.families.family import Family
from lm.weights.families.field_rules import (
  ATTENTION_BIAS,
  MLP_BIAS,
  Only,
  Rope,
  as_many_as_heads,
  common_fields,
)

LLAMA = Family(
  architecture='LlamaForCausalLM',
  model_type='llama',
  rules=(
    *common_fields(kv_heads=as_many_as_heads),
    Rope(10_000.0),
    ATTENTION_BIAS,
    MLP_BIAS,
    Only('rope_interleaved', (None, False)),
  ),
  tensors=tensor_names.LLAMA,
)
