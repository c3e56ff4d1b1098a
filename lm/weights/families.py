"""Open-weight families: how the fields of a Hugging Face config.json and the names of its tensors
stand to ours.

A family is data: a field map, a name map, and what all its models have in common. Everything that
changes what a model computes is translated, or has the one value that we run, or is an error that
names it. Read from the model and config classes of transformers 5 and from the published files.

Names of axes, those of lm/model/transformer.py: a tensor's layout reads 'DNH -> (NH)D': ours [D, N, H] is
stored as [N * H, D].
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lm.base.config import layer_types
from lm.base.errors import UserError, unknown

Fields = dict[str, Any]

REQUIRED = object()
# Fields of config.json that say nothing about what the model computes when it runs: where it came
# from, how it is to be trained (dropout, router losses), saved, stored or sampled from, which
# tokens are special, heads that are not used.
IGNORED = frozenset((
  '_attn_implementation', '_attn_implementation_autoset', '_name_or_path', 'architectures', 'attention_dropout', 'attn_pdrop',
  'bos_token_id', 'cache_implementation', 'chunk_size_feed_forward', 'do_sample', 'dtype', 'embd_pdrop', 'eos_token_id',
  'gradient_checkpointing', 'id2label', 'initializer_range', 'is_decoder', 'is_encoder_decoder', 'is_llama_config',
  'label2id', 'max_length', 'model_type', 'n_ctx', 'num_labels', 'output_attentions', 'output_hidden_states',
  'output_router_logits', 'pad_token_id', 'prefix', 'pretraining_tp', 'problem_type', 'resid_pdrop', 'return_dict',
  'router_aux_loss_coef', 'router_jitter_noise', 'summary_activation', 'summary_first_dropout', 'summary_proj_to_labels',
  'summary_type', 'summary_use_proj', 'task_specific_params', 'temperature', 'tokenizer_class', 'top_k', 'top_p',
  'torch_dtype', 'transformers.js_config', 'transformers_version', 'unsloth_version', 'use_cache',
))  # fmt: skip
PLAIN = {  # of what a family does not have
  'norm': 'rmsnorm', 'position': 'rope', 'rope_theta': 10_000.0, 'rope_theta_window': 0.0, 'rope_scaling': 'none',
  'rope_factor': 1.0, 'rope_low_freq_factor': 1.0, 'rope_high_freq_factor': 4.0, 'rope_original_len': 0,
  'layer_types': ('full',), 'window': 0, 'attention_scale': 0.0, 'attention_softcap': 0.0, 'attention_bias': 'none',
  'qk_norm': 'none', 'norm_position': 'pre', 'norm_offset': False, 'mlp_bias': False, 'num_experts': 0,
  'experts_per_token': 2, 'normalize_experts': True, 'scale_embeddings': False, 'logit_softcap': 0.0,
}  # fmt: skip
SIZES = (
  'vocab_size',
  'num_layers',
  'embed_dim',
  'num_heads',
  'num_kv_heads',
  'head_dim',
  'mlp_dim',
  'activation',
  'norm_eps',
  'max_len',
  'tie_embeddings',
)
SCALINGS = {  # RoPE types, and our field of each key
  'default': {},
  'linear': {'factor': 'rope_factor'},
  'llama3': {'factor': 'rope_factor', 'low_freq_factor': 'rope_low_freq_factor',
             'high_freq_factor': 'rope_high_freq_factor', 'original_max_position_embeddings': 'rope_original_len'},
}  # fmt: skip
ARCHITECTURE = (*SIZES, *PLAIN)  # the fields of config.model that change what the weights mean


# ---- Field maps: each rule reads some fields of config.json into ours, and writes them -----------


def given(hf: Fields, name: str) -> bool:
  """Whether config.json has the field; null is as absent."""
  return hf.get(name) is not None


def need(hf: Fields, name: str, kind: type | tuple[type, ...]) -> Any:
  """A field of config.json. Raises UserError if it is absent or of another type."""
  if not given(hf, name):
    raise UserError(f'config.json: field {name!r} is missing')
  value, kinds = hf[name], kind if isinstance(kind, tuple) else (kind,)
  if not isinstance(value, (*kinds, int) if float in kinds else kinds) or (
    isinstance(value, bool) and bool not in kinds
  ):
    raise UserError(
      f'config.json: {name} is {value!r}, not {" or ".join(k.__name__ for k in kinds)}'
    )
  return float(value) if kind is float else value


@dataclasses.dataclass(frozen=True)
class Field:
  """One field that means the same as one of ours.

  Attributes:
    default: what transformers takes when the field is absent or null, or how it computes that from
      the others.
    values: ours for each value that is allowed; None: any of that type, the same as ours.
    off: our value that null stands for; only a field that is absent then takes the default.
    also: another name that some versions of transformers give it.
  """

  hf: str
  ours: str
  kind: type = int
  default: Any = REQUIRED
  values: Mapping[Any, Any] | None = None
  off: Any = None
  also: str = ''

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(filter(None, (self.hf, self.also)))

  def read(self, hf: Fields) -> Fields:
    name = next((n for n in self.names if given(hf, n)), self.hf)
    if name in hf and hf[name] is None and self.off is not None:
      return {self.ours: self.off}
    if given(hf, name) or self.default is REQUIRED:
      value = need(hf, name, self.kind)
    else:
      value = self.default(hf) if callable(self.default) else self.default
    if self.values is None:
      return {self.ours: value}
    if value not in self.values:
      raise unknown(f'{name} in config.json', value, self.values)
    return {self.ours: self.values[value]}

  def write(self, ours: Fields) -> Fields:
    value = ours[self.ours]
    if self.off is not None and value == self.off:
      return {self.hf: None}
    # the first that means it; any if none does: reading it back then shows the difference
    if self.values is not None:
      value = next(
        (theirs for theirs, our in self.values.items() if our == value), next(iter(self.values))
      )
    return {self.hf: value}


@dataclasses.dataclass(frozen=True)
class Only:
  """A field that must have one of the values that we run, the first of which is written."""

  hf: str
  allowed: tuple[Any, ...]

  @property
  def names(self) -> tuple[str, ...]:
    return (self.hf,)

  def read(self, hf: Fields) -> Fields:
    if given(hf, self.hf) and hf[self.hf] not in self.allowed:
      raise UserError(
        f'config.json: {self.hf} is {hf[self.hf]!r}; allowed: {", ".join(map(repr, self.allowed))}'
      )
    return {}

  def write(self, ours: Fields) -> Fields:
    return {} if self.allowed[0] is None else {self.hf: self.allowed[0]}


@dataclasses.dataclass(frozen=True)
class Rope:
  """Rotary positions: `rope_theta` and `rope_scaling`, or in transformers 5 the one dictionary
  `rope_parameters`.

  With `theta_window`, the default of `rope_local_base_freq`, window layers have a theta of their
  own (Gemma 3); `rope_parameters` then holds a dictionary for each type of layer.
  """

  theta: float
  theta_window: float = 0.0

  @property
  def names(self) -> tuple[str, ...]:
    local = ('rope_local_base_freq',) if self.theta_window else ()
    return ('rope_theta', 'rope_scaling', 'rope_parameters', 'partial_rotary_factor', *local)

  def read(self, hf: Fields) -> Fields:
    if given(hf, 'partial_rotary_factor') and hf['partial_rotary_factor'] != 1:
      raise UserError(
        f'config.json: partial_rotary_factor is {hf["partial_rotary_factor"]!r}; allowed: 1.0'
      )
    if given(hf, 'rope_scaling') and given(hf, 'rope_parameters'):
      raise UserError(
        'config.json: it has both rope_scaling and rope_parameters; one of them must go'
      )
    thetas = {'rope_theta': hf['rope_theta']} if given(hf, 'rope_theta') else {}
    if not self.theta_window:
      where = 'rope_parameters' if given(hf, 'rope_parameters') else 'rope_scaling'
      return self._read(thetas | (need(hf, where, dict) if given(hf, where) else {}), where)
    if not given(hf, 'rope_parameters'):
      ours = self._read(thetas | (hf.get('rope_scaling') or {}), 'rope_scaling')
      local = (
        need(hf, 'rope_local_base_freq', float)
        if given(hf, 'rope_local_base_freq')
        else self.theta_window
      )
      return ours | {'rope_theta_window': local}
    by_type = dict(hf['rope_parameters'])
    full, window = (
      by_type.pop(kind, None) or {} for kind in ('full_attention', 'sliding_attention')
    )
    if by_type:
      allowed = ('full_attention', 'sliding_attention')
      raise unknown('key of rope_parameters in config.json', min(by_type), allowed)
    local = self._read(
      {'rope_theta': self.theta_window} | window, 'rope_parameters.sliding_attention'
    )
    if local['rope_scaling'] != 'none':
      raise UserError(
        f'config.json: rope_parameters.sliding_attention.rope_type is {local["rope_scaling"]!r}; '
        "allowed: 'default'"
      )
    return self._read(thetas | full, 'rope_parameters.full_attention') | {
      'rope_theta_window': local['rope_theta']
    }

  def _read(self, parameters: Fields, where: str) -> Fields:
    parameters = dict(parameters)
    old_name = parameters.pop('type', None)
    kind = parameters.pop('rope_type', old_name) or 'default'
    if kind not in SCALINGS:
      raise unknown(f'RoPE type in {where} of config.json', kind, SCALINGS)
    theta = need(parameters, 'rope_theta', float) if given(parameters, 'rope_theta') else self.theta
    ours = {'rope_theta': theta, 'rope_scaling': 'none' if kind == 'default' else kind}
    for key, field in SCALINGS[kind].items():
      ours[field] = need(parameters, key, type(PLAIN[field]))
    known = {'rope_theta', 'partial_rotary_factor', *SCALINGS[kind]}
    if more := parameters.keys() - known:
      raise unknown(f'key in {where} of config.json', min(more), known)
    if parameters.get('partial_rotary_factor', 1) != 1:
      raise UserError(
        f'config.json: partial_rotary_factor in {where} is '
        f'{parameters["partial_rotary_factor"]!r}; allowed: 1.0'
      )
    return ours

  def write(self, ours: Fields) -> Fields:
    kind = ours['rope_scaling']
    scaling = {'rope_type': kind} | {
      key: ours[field] for key, field in SCALINGS.get(kind, {}).items()
    }
    hf = {'rope_theta': ours['rope_theta'], 'rope_scaling': None if kind == 'none' else scaling}
    if self.theta_window:
      hf['rope_local_base_freq'] = ours['rope_theta_window'] or ours['rope_theta']
    return hf


@dataclasses.dataclass(frozen=True)
class Windows:
  """Which layers see a window only: a list `layer_types`, or what stands for it when it is absent.

  Attributes:
    default: layer types from config.json, one for each layer, when there is no list.
    switch: the field that turns windows on at all, '' if none does.
    listed: whether this family has the list at all.
    size: the default of `sliding_window`; None: there is no window.
    reads: fields that `default` reads.
  """

  default: Callable[[Fields, int], list[str]]
  switch: str = ''
  listed: bool = True
  size: int | None = None
  reads: tuple[str, ...] = ()

  @property
  def names(self) -> tuple[str, ...]:
    return (
      'sliding_window',
      *filter(None, (self.switch, 'layer_types' if self.listed else '')),
      *self.reads,
    )

  def read(self, hf: Fields) -> Fields:
    layers = num_layers(hf)
    size = hf.get('sliding_window', self.size)
    if size is None or (self.switch and not hf.get(self.switch, False)):
      window = 0
    else:
      window = need({'sliding_window': size}, 'sliding_window', int)
    if self.listed and given(hf, 'layer_types'):
      names = {'full_attention': 'full', 'sliding_attention': 'window'}
      for kind in need(hf, 'layer_types', list):
        if kind not in names:
          raise unknown('layer_types in config.json', kind, names)
      types = [names[kind] for kind in hf['layer_types']]
      if len(types) != layers:
        raise UserError(f'config.json: layer_types has {len(types)} layers, the model has {layers}')
      if 'window' in types and not window:
        raise UserError('config.json: layer_types has sliding_attention, but sliding_window is off')
    else:
      types = self.default(hf, layers) if window else ['full'] * layers
    return {'layer_types': types, 'window': window}

  def write(self, ours: Fields) -> Fields:
    types = layer_types(ours)
    windowed = 'window' in types
    hf = {'sliding_window': ours['window'] if windowed else None}
    if self.switch:
      hf[self.switch] = windowed
    if self.listed:
      hf['layer_types'] = [
        'sliding_attention' if kind == 'window' else 'full_attention' for kind in types
      ]
    return hf


@dataclasses.dataclass(frozen=True)
class NoPositions:
  """Layers without rotary positions (SmolLM3): a list of 0 for those and 1 for the others, or each
  n-th.
  """

  names = (
    'no_rope_layers',
    'no_rope_layer_interval',
    'layer_types',
    'use_sliding_window',
    'sliding_window',
  )

  def read(self, hf: Fields) -> Fields:
    layers = num_layers(hf)
    if hf.get('use_sliding_window') or any(
      kind != 'full_attention' for kind in hf.get('layer_types') or ()
    ):
      raise UserError(
        'config.json: use_sliding_window is true or layer_types has sliding_attention; a SmolLM3 '
        'model is run '
        'with full attention only'
      )
    if given(hf, 'no_rope_layers'):
      rotated = need(hf, 'no_rope_layers', list)
      if len(rotated) < layers:
        raise UserError(
          f'config.json: no_rope_layers has {len(rotated)} layers, the model has {layers}'
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


@dataclasses.dataclass(frozen=True)
class AttentionScale:
  """Gemma's `query_pre_attn_scalar`: scores are divided by its root."""

  names = ('query_pre_attn_scalar',)

  def read(self, hf: Fields) -> Fields:
    value = (
      need(hf, 'query_pre_attn_scalar', (int, float)) if given(hf, 'query_pre_attn_scalar') else 256
    )
    return {'attention_scale': value**-0.5}

  def write(self, ours: Fields) -> Fields:
    scale = ours['attention_scale'] or ours['head_dim'] ** -0.5
    whole = round(scale**-2)
    return {'query_pre_attn_scalar': whole if whole and whole**-0.5 == scale else scale**-2}


@dataclasses.dataclass(frozen=True)
class Computed:
  """One of our fields that config.json does not have, but that follows from others."""

  ours: str
  compute: Callable[[Fields], Any]
  names = ()

  def read(self, hf: Fields) -> Fields:
    return {self.ours: self.compute(hf)}

  def write(self, ours: Fields) -> Fields:
    return {}


@dataclasses.dataclass(frozen=True)
class Unread:
  """Fields that are allowed whatever their value, since the rules of this family decide without
  them.
  """

  names: tuple[str, ...]

  def read(self, hf: Fields) -> Fields:
    return {}

  def write(self, ours: Fields) -> Fields:
    return {}


def num_layers(hf: Fields) -> int:
  """Of a config.json that is not GPT-2's."""
  return need(hf, 'num_hidden_layers', int)


def canonical(config: Mapping[str, Any]) -> Fields:
  """The architecture of a config.model, the same for all configs that compute the same: what has no
  effect is plain.
  """
  c = {field: config[field] for field in ARCHITECTURE}
  types = tuple(layer_types(c))
  period = next(
    n for n in range(1, len(types) + 1) if all(t == types[i % n] for i, t in enumerate(types))
  )
  c['layer_types'] = types[:period]
  dull = []
  if 'window' not in types:
    dull += ['window', 'rope_theta_window']
  if c['position'] == 'learned':
    dull += [field for field in PLAIN if field.startswith('rope_')]
  if c['rope_scaling'] == 'none':
    dull += ['rope_factor']
  if c['rope_scaling'] != 'llama3':
    dull += ['rope_low_freq_factor', 'rope_high_freq_factor', 'rope_original_len']
  if c['rope_scaling'] == 'none' and c['rope_theta_window'] == c['rope_theta']:
    dull += ['rope_theta_window']
  if not c['num_experts']:
    dull += ['experts_per_token', 'normalize_experts']
  if c['attention_scale'] == c['head_dim'] ** -0.5:
    dull += ['attention_scale']
  return c | {field: PLAIN[field] for field in dull}


# ---- Name maps -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Where one of our parameters is stored.

  Attributes:
    name: of the tensor, with {l} for the layer and {e} for the expert where there is one for each.
    layout: 'DNH -> (NH)D', ours (but for the axes of layers and experts) and theirs; one side when
      they are equal.
    part: which third of the stored tensor's last axis it is (GPT-2 keeps queries, keys and values
      in one); None: all.
  """

  name: str
  layout: str
  part: int | None = None

  @property
  def axes(self) -> str:
    """Our axes, one letter each, those of layers and experts included."""
    return 'L' * ('{l}' in self.name) + 'E' * ('{e}' in self.name) + self.layout.split(' -> ')[0]

  @property
  def stored(self) -> list[str]:
    """The axes of each axis of the stored tensor."""
    return [group.strip('()') for group in re.findall(r'\(\w+\)|\w', self.layout.split(' -> ')[-1])]


def _norm(ours: str, theirs: str) -> dict[str, Tensor]:
  return {f'{ours}/scale': Tensor(f'{theirs}.weight', 'D')}


def _linear(ours: str, theirs: str, weight: str, bias: str) -> dict[str, Tensor]:
  return {
    f'{ours}/kernel': Tensor(f'{theirs}.weight', weight),
    f'{ours}/bias': Tensor(f'{theirs}.bias', bias),
  }


_LAYER = 'model.layers.{l}.'
_BASE = {
  'embedding': Tensor('model.embed_tokens.weight', 'VD'),
  'head': Tensor('lm_head.weight', 'VD'),
  **_norm('final_norm', 'model.norm'),
  **_linear('layers/attention/q', _LAYER + 'self_attn.q_proj', 'DNH -> (NH)D', 'NH -> (NH)'),
  **_linear('layers/attention/k', _LAYER + 'self_attn.k_proj', 'DKH -> (KH)D', 'KH -> (KH)'),
  **_linear('layers/attention/v', _LAYER + 'self_attn.v_proj', 'DKH -> (KH)D', 'KH -> (KH)'),
  **_linear('layers/attention/o', _LAYER + 'self_attn.o_proj', 'NHD -> D(NH)', 'D'),
}
_MLP = {
  **_linear('layers/mlp/gate', _LAYER + 'mlp.gate_proj', 'DF -> FD', 'F'),
  **_linear('layers/mlp/up', _LAYER + 'mlp.up_proj', 'DF -> FD', 'F'),
  **_linear('layers/mlp/down', _LAYER + 'mlp.down_proj', 'FD -> DF', 'D'),
}
_HEAD_NORMS = {
  'layers/attention/q_norm/scale': Tensor(_LAYER + 'self_attn.q_norm.weight', 'H'),
  'layers/attention/k_norm/scale': Tensor(_LAYER + 'self_attn.k_norm.weight', 'H'),
}
_PRE_NORMS = {
  **_norm('layers/attention_norm', _LAYER + 'input_layernorm'),
  **_norm('layers/mlp_norm', _LAYER + 'post_attention_layernorm'),
}
_POST_NORMS = {
  **_norm('layers/attention_post_norm', _LAYER + 'post_attention_layernorm'),
  **_norm('layers/mlp_post_norm', _LAYER + 'post_feedforward_layernorm'),
}
_BOTH_NORMS = {
  **_POST_NORMS,
  **_norm('layers/attention_norm', _LAYER + 'input_layernorm'),
  **_norm('layers/mlp_norm', _LAYER + 'pre_feedforward_layernorm'),
}
_LLAMA_TENSORS = _BASE | _MLP | _PRE_NORMS


def _experts(router: str, expert: str, gate: str, up: str, down: str) -> dict[str, Tensor]:
  return {
    'layers/mlp/router/kernel': Tensor(_LAYER + router + '.weight', 'DE -> ED'),
    'layers/mlp/gate/kernel': Tensor(_LAYER + expert + f'.{gate}.weight', 'DF -> FD'),
    'layers/mlp/up/kernel': Tensor(_LAYER + expert + f'.{up}.weight', 'DF -> FD'),
    'layers/mlp/down/kernel': Tensor(_LAYER + expert + f'.{down}.weight', 'FD -> DF'),
  }


def _gpt2_tensors() -> dict[str, Tensor]:
  layer = 'transformer.h.{l}.'
  tensors = {
    'embedding': Tensor('transformer.wte.weight', 'VD'),
    'position_table': Tensor('transformer.wpe.weight', 'PD'),
    'head': Tensor('lm_head.weight', 'VD'),
    # its Conv1D keeps [in, out]
    **_linear('layers/attention/o', layer + 'attn.c_proj', 'NHD -> (NH)D', 'D'),
    **_linear('layers/mlp/up', layer + 'mlp.c_fc', 'DF', 'F'),
    **_linear('layers/mlp/down', layer + 'mlp.c_proj', 'FD', 'D'),
  }
  for part, name in enumerate('qkv'):
    heads = 'NH' if name == 'q' else 'KH'
    tensors[f'layers/attention/{name}/kernel'] = Tensor(
      layer + 'attn.c_attn.weight', f'D{heads} -> D({heads})', part
    )
    tensors[f'layers/attention/{name}/bias'] = Tensor(
      layer + 'attn.c_attn.bias', f'{heads} -> ({heads})', part
    )
  norms = {
    'layers/attention_norm': layer + 'ln_1',
    'layers/mlp_norm': layer + 'ln_2',
    'final_norm': 'transformer.ln_f',
  }
  for ours, theirs in norms.items():
    tensors |= {
      f'{ours}/scale': Tensor(f'{theirs}.weight', 'D'),
      f'{ours}/bias': Tensor(f'{theirs}.bias', 'D'),
    }
  return tensors


# ---- Families ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Family:
  """One architecture of transformers.

  Attributes:
    rules: its field map.
    tensors: its name map, by our parameter's path. More than a model with some config has.
    fixed: our fields that are the same in all its models and are not plain.
    buffers: regular expression of stored tensors that are no weights.
  """

  architecture: str
  model_type: str
  rules: tuple[Any, ...]
  tensors: Mapping[str, Tensor]
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  buffers: str = r'.*\.rotary_emb\.inv_freq'

  @property
  def prefix(self) -> str:
    """What the names of most tensors begin with; files saved from the model without its head lack
    it.
    """
    return self.tensors['embedding'].name.split('.')[0] + '.'

  def read(self, hf: Fields, ignore: Iterable[str] = ()) -> Fields:
    """Our architecture (`ARCHITECTURE`) of a config.json.

    Args:
      ignore: names of fields that we do not know and that are to be passed over.

    Raises:
      UserError: naming the field that is missing, unknown, or not what we can run.
    """
    known = {name for rule in self.rules for name in rule.names}
    if more := sorted(hf.keys() - known - IGNORED - set(ignore)):
      raise UserError(
        f'config.json: field {more[0]!r}, {hf[more[0]]!r:.80}, is not known of {self.architecture} '
        'and might '
        'change what it computes; take it out, or name it in --ignore, if it does not'
      )
    ours = {}
    for rule in self.rules:
      ours |= rule.read(hf)
    return canonical(PLAIN | self.fixed | ours)

  def write(self, ours: Fields) -> Fields:
    """A config.json for our architecture; where the family lacks something, reading it back shows
    the difference.
    """
    # some families have defaults that do not fit
    special = dict.fromkeys(('bos_token_id', 'eos_token_id', 'pad_token_id'))
    hf = {'architectures': [self.architecture], 'model_type': self.model_type} | special
    for rule in self.rules:
      hf |= rule.write(ours)
    return hf


def _widths(hf: Fields) -> int:
  return need(hf, 'hidden_size', int) // need(hf, 'num_attention_heads', int)


_SILU = {'silu': 'swiglu', 'gelu_pytorch_tanh': 'geglu', 'gelu_new': 'geglu'}
_GELU = {'gelu_pytorch_tanh': 'geglu', 'gelu_new': 'geglu', 'silu': 'swiglu'}
_ATTENTION_BIAS = Field(
  'attention_bias', 'attention_bias', bool, False, {False: 'none', True: 'all'}
)
_MLP_BIAS = Field('mlp_bias', 'mlp_bias', bool, False)


def _fields(
  *,
  mlp: str = 'intermediate_size',
  eps: float = 1e-6,
  tie: bool = False,
  kv_heads: Any = REQUIRED,
  head_dim: Any = _widths,
  activation: Field | None = None,
) -> tuple[Any, ...]:
  """What all families but GPT-2 have, with their defaults."""
  return (
    Field('vocab_size', 'vocab_size'),
    Field('hidden_size', 'embed_dim'),
    Field(mlp, 'mlp_dim'),
    Field('num_hidden_layers', 'num_layers'),
    Field('num_attention_heads', 'num_heads'),
    Field('num_key_value_heads', 'num_kv_heads', default=kv_heads),
    Field('head_dim', 'head_dim', default=head_dim),
    Field('max_position_embeddings', 'max_len'),
    Field('rms_norm_eps', 'norm_eps', float, eps),
    Field('tie_word_embeddings', 'tie_embeddings', bool, tie),
    activation or Field('hidden_act', 'activation', str, 'silu', _SILU),
  )


def _same_as_heads(hf: Fields) -> int:
  return need(hf, 'num_attention_heads', int)


def _all_windows(hf: Fields, layers: int) -> list[str]:
  return ['window'] * layers


def _windows_above(hf: Fields, layers: int) -> list[str]:
  first = hf.get('max_window_layers', 28)
  return ['window' if i >= first else 'full' for i in range(layers)]


def _full_every(n: int) -> Callable[[Fields, int], list[str]]:
  def types(hf: Fields, layers: int) -> list[str]:
    every = next((hf[name] for name in _PATTERN if given(hf, name)), n)
    return ['window' if (i + 1) % every else 'full' for i in range(layers)]

  return types


_PATTERN = ('sliding_window_pattern', '_sliding_window_pattern')
_GEMMA = {
  'activation': Field('hidden_activation', 'activation', str, 'gelu_pytorch_tanh', _GELU),
  'tie': True,
  'head_dim': 256,
}
_GEMMA_RULES = (
  AttentionScale(),
  _ATTENTION_BIAS,
  Unread(('hidden_act',)),
  Only('use_bidirectional_attention', (None, False)),
)
_GEMMA_FIXED = {'norm_position': 'both', 'norm_offset': True, 'scale_embeddings': True}
_QWEN_WINDOWS = Windows(
  _windows_above, switch='use_sliding_window', size=4096, reads=('max_window_layers',)
)
_MROPE = Only('use_mrope', (None, False))

FAMILIES = (
  Family('LlamaForCausalLM', 'llama', (  # Llama 2 to 3.2, SmolLM2, and many others
    *_fields(kv_heads=_same_as_heads), Rope(10_000.0), _ATTENTION_BIAS, _MLP_BIAS, Only('rope_interleaved', (None, False)),
  ), _LLAMA_TENSORS),
  Family('MistralForCausalLM', 'mistral', (
    *_fields(), Rope(10_000.0), Windows(_all_windows, listed=False, size=4096),
  ), _LLAMA_TENSORS),
  Family('Qwen2ForCausalLM', 'qwen2', (
    *_fields(), Rope(10_000.0), _QWEN_WINDOWS, _MROPE,
  ), _LLAMA_TENSORS, {'attention_bias': 'qkv'}),
  Family('Qwen3ForCausalLM', 'qwen3', (
    *_fields(head_dim=128), Rope(10_000.0), _QWEN_WINDOWS, _ATTENTION_BIAS,
  ), _LLAMA_TENSORS | _HEAD_NORMS, {'qk_norm': 'head'}),
  Family('SmolLM3ForCausalLM', 'smollm3', (
    *_fields(tie=True), Rope(2_000_000.0), NoPositions(), _ATTENTION_BIAS, _MLP_BIAS, Unread(('max_window_layers',)),
  ), _LLAMA_TENSORS),
  Family('Gemma2ForCausalLM', 'gemma2', (
    *_fields(**_GEMMA), *_GEMMA_RULES, Rope(10_000.0), Windows(_full_every(2), size=4096),
    Field('attn_logit_softcapping', 'attention_softcap', float, 50.0, off=0.0),
    Field('final_logit_softcapping', 'logit_softcap', float, 30.0, off=0.0),
  ), _BASE | _MLP | _BOTH_NORMS, _GEMMA_FIXED),
  Family('Gemma3ForCausalLM', 'gemma3_text', (
    *_fields(**_GEMMA), *_GEMMA_RULES, Rope(1_000_000.0, 10_000.0), Windows(_full_every(6), size=4096, reads=_PATTERN),
    Field('attn_logit_softcapping', 'attention_softcap', float, 0.0, off=0.0),
    Field('final_logit_softcapping', 'logit_softcap', float, 0.0, off=0.0),
  ), _BASE | _MLP | _BOTH_NORMS | _HEAD_NORMS, _GEMMA_FIXED | {'qk_norm': 'head'}),
  Family('Olmo2ForCausalLM', 'olmo2', (
    *_fields(kv_heads=_same_as_heads, eps=1e-5), Rope(10_000.0), _ATTENTION_BIAS,
  ), _BASE | _MLP | _POST_NORMS | {
    # all heads together
    'layers/attention/q_norm/scale': Tensor(_LAYER + 'self_attn.q_norm.weight', 'X'),
    'layers/attention/k_norm/scale': Tensor(_LAYER + 'self_attn.k_norm.weight', 'X'),
  }, {'qk_norm': 'projection', 'norm_position': 'post'}),
  Family('MixtralForCausalLM', 'mixtral', (
    *_fields(eps=1e-5), Rope(1_000_000.0), Windows(_all_windows, listed=False),
    Field('num_local_experts', 'num_experts', also='num_experts'), Field('num_experts_per_tok', 'experts_per_token'),
  ), _BASE | _PRE_NORMS | _experts('block_sparse_moe.gate', 'block_sparse_moe.experts.{e}', 'w1', 'w3', 'w2')),
  Family('Qwen3MoeForCausalLM', 'qwen3_moe', (
    *_fields(mlp='moe_intermediate_size'), Rope(10_000.0), _ATTENTION_BIAS,
    Windows(_all_windows, switch='use_sliding_window', listed=False, size=4096),
    Field('num_experts', 'num_experts', also='num_local_experts'), Field('num_experts_per_tok', 'experts_per_token'),
    Field('norm_topk_prob', 'normalize_experts', bool, False), Only('decoder_sparse_step', (1,)),
    # there are no dense layers
    Only('mlp_only_layers', ([],)), Unread(('intermediate_size', 'max_window_layers')),
  ), _BASE | _PRE_NORMS | _HEAD_NORMS | _experts('mlp.gate', 'mlp.experts.{e}', 'gate_proj', 'up_proj', 'down_proj'),
    {'qk_norm': 'head'}),
  Family('GPT2LMHeadModel', 'gpt2', (
    Field('vocab_size', 'vocab_size'), Field('n_embd', 'embed_dim'), Field('n_layer', 'num_layers'),
    Field('n_inner', 'mlp_dim', default=lambda hf: 4 * need(hf, 'n_embd', int)),
    Field('n_head', 'num_kv_heads'), Field('n_head', 'num_heads'),
    Computed('head_dim', lambda hf: need(hf, 'n_embd', int) // need(hf, 'n_head', int)),
    Field('n_positions', 'max_len'), Field('layer_norm_epsilon', 'norm_eps', float, 1e-5),
    Field('tie_word_embeddings', 'tie_embeddings', bool, True),
    Field('activation_function', 'activation', str, 'gelu_new',
          {'gelu_new': 'gelu', 'gelu_pytorch_tanh': 'gelu', 'relu2': 'relu2'}),
    Only('scale_attn_weights', (True,)), Only('scale_attn_by_inverse_layer_idx', (False,)),
    Only('add_cross_attention', (False,)), Unread(('reorder_and_upcast_attn',)),  # rounding only
  ), _gpt2_tensors(), {'norm': 'layernorm', 'position': 'learned', 'attention_bias': 'all', 'mlp_bias': True},
    buffers=r'(transformer\.)?h\.\d+\.attn\.(masked_)?bias'),
)  # fmt: skip


def of(hf: Fields) -> Family:
  """The family of a config.json. Raises UserError that names an architecture that we do not run."""
  architectures = hf.get('architectures') or []
  if architectures:
    found = [family for family in FAMILIES if family.architecture == architectures[0]]
  else:
    found = [family for family in FAMILIES if family.model_type == hf.get('model_type')]
  if not found:
    allowed = [family.architecture for family in FAMILIES]
    raise unknown(
      'architecture in config.json',
      architectures[0] if architectures else hf.get('model_type'),
      allowed,
    )
  return found[0]


def express(config: Mapping[str, Any], origin: Fields | None = None) -> tuple[Family, Fields]:
  """The family that has this model, and its config.json.

  Args:
    config: a config.model.
    origin: the config.json that the model was imported with, given back where it still says what
      the model is.

  Raises:
    UserError: naming a field whose value no family has together with the others.
  """
  wanted = canonical(config)
  first = of(origin) if origin else None
  if first:
    hf = dict(origin) | {'vocab_size': wanted['vocab_size']}  # fine-tuning may have added tokens
    if first.read(hf, ignore=hf) == wanted:
      return first, hf
  nearest = None
  for family in sorted(FAMILIES, key=lambda family: family is not first):
    hf = family.write(wanted)
    back = family.read(hf)
    differing = [field for field in ARCHITECTURE if back[field] != wanted[field]]
    if not differing:
      return family, hf
    if nearest is None or len(differing) < len(nearest[1]):
      nearest = family, differing, back
  family, (field, *_), back = nearest
  raise UserError(
    f'config.model.{field} is {wanted[field]!r}, and no architecture that we export has that '
    'together with the '
    f'other fields; the nearest, {family.architecture}, has {back[field]!r}'
  )
