"""Gemma 2, and the text models of Gemma 3."""

import dataclasses
from collections.abc import Callable

from lm.weights.families import tensor_names
from lm.weights.families.family import Family, Fields
from lm.weights.families.field_rules import (
  ATTENTION_BIAS,
  Field,
  Only,
  Rope,
  Unread,
  Windows,
  common_fields,
  given,
  need,
)

_PATTERN_FIELDS = ('sliding_window_pattern', '_sliding_window_pattern')
_GELU = {'gelu_pytorch_tanh': 'geglu', 'gelu_new': 'geglu', 'silu': 'swiglu'}
_FIXED = {'norm_position': 'both', 'norm_offset': True, 'scale_embeddings': True}


@dataclasses.dataclass(frozen=True)
class AttentionScale:
  """The field `query_pre_attn_scalar`: scores are divided by its square root."""

  names = ('query_pre_attn_scalar',)

  def read(self, hf: Fields) -> Fields:
    scalar = 256
    if given(hf, 'query_pre_attn_scalar'):
      scalar = need(hf, 'query_pre_attn_scalar', (int, float))
    return {'attention_scale': scalar**-0.5}

  def write(self, ours: Fields) -> Fields:
    scale = ours['attention_scale'] or ours['head_dim'] ** -0.5
    whole = round(scale**-2)
    return {'query_pre_attn_scalar': whole if whole and whole**-0.5 == scale else scale**-2}


def _full_every(n: int) -> Callable[[Fields, int], list[str]]:
  """Returns the pattern in which every n-th layer is full, unless config.json has another n."""

  def pattern(hf: Fields, layers: int) -> list[str]:
    every = next((hf[name] for name in _PATTERN_FIELDS if given(hf, name)), n)
    return ['window' if (i + 1) % every else 'full' for i in range(layers)]

  return pattern


_RULES = (
  *common_fields(
    activation=Field(
      'hidden_activation', 'activation', str, default='gelu_pytorch_tanh', values=_GELU
    ),
    tie=True,
    head_dim=256,
  ),
  AttentionScale(),
  ATTENTION_BIAS,
  Unread(('hidden_act',)),  # an older name of hidden_activation, which transformers does not read
  Only('use_bidirectional_attention', (None, False)),
)

GEMMA2 = Family(
  architecture='Gemma2ForCausalLM',
  model_type='gemma2',
  rules=(
    *_RULES,
    Rope(10_000.0),
    Windows(_full_every(2), size=4096),
    Field('attn_logit_softcapping', 'attention_softcap', float, default=50.0, off=0.0),
    Field('final_logit_softcapping', 'logit_softcap', float, default=30.0, off=0.0),
  ),
  tensors=tensor_names.BASE | tensor_names.MLP | tensor_names.BOTH_NORMS,
  fixed=_FIXED,
)

GEMMA3 = Family(
  architecture='Gemma3ForCausalLM',
  model_type='gemma3_text',
  rules=(
    *_RULES,
    Rope(1_000_000.0, theta_window=10_000.0),
    Windows(_full_every(6), size=4096, reads=_PATTERN_FIELDS),
    Field('attn_logit_softcapping', 'attention_softcap', float, default=0.0, off=0.0),
    Field('final_logit_softcapping', 'logit_softcap', float, default=0.0, off=0.0),
  ),
  tensors=tensor_names.BASE | tensor_names.MLP | tensor_names.BOTH_NORMS | tensor_names.HEAD_NORMS,
  fixed=_FIXED | {'qk_norm': 'head'},
)
