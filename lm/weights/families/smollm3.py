"""SmolLM3: Llama, with some layers that have no positions."""

import dataclasses

from lm.base.config import layer_types
from lm.base.errors import UserError
from lm.weights.families import tensor_names
from lm.weights.families.family import Family, Fields
from lm.weights.families.field_rules import (
  ATTENTION_BIAS,
  FULL,
  MLP_BIAS,
  Rope,
  Unread,
  common_fields,
  given,
  need,
  num_layers,
)


@dataclasses.dataclass(frozen=True)
class NoPositions:
  """Layers without rotary positions: a list with 0 for each of them, or every n-th layer."""

  names = (
    'no_rope_layers',
    'no_rope_layer_interval',
    'layer_types',
    'use_sliding_window',
    'sliding_window',
  )

  def read(self, hf: Fields) -> Fields:
    layers = num_layers(hf)
    if hf.get('use_sliding_window'):
      raise UserError(
        field='use_sliding_window in config.json', value=hf['use_sliding_window'], allowed='false'
      )
    if any(kind != FULL for kind in hf.get('layer_types') or ()):
      raise UserError(
        field='layer_types in config.json', value=hf['layer_types'], allowed=f'{FULL} alone'
      )
    if given(hf, 'no_rope_layers'):
      rotated = need(hf, 'no_rope_layers', list)
      if len(rotated) < layers:
        raise UserError(
          field='no_rope_layers in config.json',
          value=rotated,
          allowed=f'a list of {layers}, one for each layer',
        )
    else:
      interval = hf.get('no_rope_layer_interval', 4)
      rotated = [(i + 1) % interval for i in range(layers)]
    return {'layer_types': ['full' if r else 'nope' for r in rotated[:layers]]}

  def write(self, ours: Fields) -> Fields:
    return {
      'no_rope_layers': [int(kind != 'nope') for kind in layer_types(ours)],
      'use_sliding_window': False,
    }


SMOLLM3 = Family(
  architecture='SmolLM3ForCausalLM',
  model_type='smollm3',
  rules=(
    *common_fields(tie=True),
    Rope(2_000_000.0),
    NoPositions(),
    ATTENTION_BIAS,
    MLP_BIAS,
    Unread(('max_window_layers',)),
  ),
  tensors=tensor_names.LLAMA,
)
