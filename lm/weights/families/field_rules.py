"""The rules that families are made of: each translates some fields of config.json, both ways.

They follow the model and config classes of transformers 5 and the published files.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from lm.base.config import layer_types
from lm.base.errors import UserError, unknown
from lm.weights.families.family import PLAIN, Fields, Rule

REQUIRED = object()  # in the place of a default: the field must be there
FULL, SLIDING = 'full_attention', 'sliding_attention'  # layer types of transformers
SCALINGS = {  # for each RoPE type of transformers, our field for each of its keys
  'default': {},
  'linear': {'factor': 'rope_factor'},
  'llama3': {
    'factor': 'rope_factor',
    'low_freq_factor': 'rope_low_freq_factor',
    'high_freq_factor': 'rope_high_freq_factor',
    'original_max_position_embeddings': 'rope_original_len',
  },
}
SILU = {'silu': 'swiglu', 'gelu_pytorch_tanh': 'geglu', 'gelu_new': 'geglu'}


def given(hf: Fields, name: str) -> bool:
  """Returns whether config.json has the field; null counts as absent."""
  return hf.get(name) is not None


def need(hf: Fields, name: str, kind: type | tuple[type, ...], parent: str = '') -> Any:
  """Returns a field of config.json, or of its dictionary `parent`.

  Raises:
    UserError: the field is absent or has another type.
  """
  field = f'{parent}.{name} in config.json' if parent else f'{name} in config.json'
  if not given(hf, name):
    raise UserError(field=field)
  value = hf[name]
  kinds = kind if isinstance(kind, tuple) else (kind,)
  accepted = (*kinds, int) if float in kinds else kinds  # JSON may write 1.0 as 1
  is_boolean_by_mistake = isinstance(value, bool) and bool not in kinds  # bool is a kind of int
  if not isinstance(value, accepted) or is_boolean_by_mistake:
    allowed = ' or '.join(k.__name__ for k in kinds)
    raise UserError(field=field, value=value, allowed=f'a value of type {allowed}')
  return float(value) if kind is float else value


def num_layers(hf: Fields) -> int:
  """Returns the number of layers of a config.json that is not GPT-2's."""
  return need(hf, 'num_hidden_layers', int)


@dataclasses.dataclass(frozen=True)
class Field:
  """A field that means the same as one of ours.

  Attributes:
    hf: its name in config.json.
    ours: the name of our field.
    kind: its type.
    default: the value that transformers takes where the field is absent or null, or a function that
      computes that value from the other fields.
    values: our value for each value that is allowed. None: any value of that type, unchanged.
    off: our value for null. The default then applies only where the field is absent.
    also: another name that some versions of transformers give the field.
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
    return (self.hf, self.also) if self.also else (self.hf,)

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
    if self.values is None:
      return {self.hf: value}
    # The first value that means ours. If none does, any will do: reading it back then shows the
    # difference.
    same = [theirs for theirs, our in self.values.items() if our == value]
    return {self.hf: (same or list(self.values))[0]}


@dataclasses.dataclass(frozen=True)
class Only:
  """A field that must have one of the values that we can run; the first of them is written."""

  hf: str
  allowed: tuple[Any, ...]

  @property
  def names(self) -> tuple[str, ...]:
    return (self.hf,)

  def read(self, hf: Fields) -> Fields:
    if given(hf, self.hf) and hf[self.hf] not in self.allowed:
      raise UserError(field=f'{self.hf} in config.json', value=hf[self.hf], allowed=self.allowed)
    return {}

  def write(self, ours: Fields) -> Fields:
    return {} if self.allowed[0] is None else {self.hf: self.allowed[0]}


@dataclasses.dataclass(frozen=True)
class Computed:
  """A field of ours that config.json does not have, and that follows from its other fields."""

  ours: str
  compute: Callable[[Fields], Any]
  names = ()

  def read(self, hf: Fields) -> Fields:
    return {self.ours: self.compute(hf)}

  def write(self, ours: Fields) -> Fields:
    return {}


@dataclasses.dataclass(frozen=True)
class Unread:
  """Fields that may have any value, since the other rules of the family decide without them."""

  names: tuple[str, ...]

  def read(self, hf: Fields) -> Fields:
    return {}

  def write(self, ours: Fields) -> Fields:
    return {}


@dataclasses.dataclass(frozen=True)
class Rope:
  """Rotary positions.

  They are the fields `rope_theta` and `rope_scaling`, or the one dictionary `rope_parameters` of
  transformers 5. With `theta_window`, window layers have a theta of their own (Gemma 3), and
  `rope_parameters` holds a dictionary for each type of layer.

  Attributes:
    theta: the default of `rope_theta`.
    theta_window: the default of `rope_local_base_freq`. 0: the family does not have that field.
  """

  theta: float
  theta_window: float = 0.0

  @property
  def names(self) -> tuple[str, ...]:
    local = ('rope_local_base_freq',) if self.theta_window else ()
    return ('rope_theta', 'rope_scaling', 'rope_parameters', 'partial_rotary_factor', *local)

  def read(self, hf: Fields) -> Fields:
    _check_partial_rotary_factor(hf)
    if given(hf, 'rope_scaling') and given(hf, 'rope_parameters'):
      raise UserError(
        field='rope_scaling in config.json',
        value=hf['rope_scaling'],
        allowed='null beside rope_parameters, which says the same',
      )
    theta = {'rope_theta': hf['rope_theta']} if given(hf, 'rope_theta') else {}
    if not self.theta_window:
      where = 'rope_parameters' if given(hf, 'rope_parameters') else 'rope_scaling'
      parameters = need(hf, where, dict) if given(hf, where) else {}
      return self._read_parameters(theta | parameters, where)
    if given(hf, 'rope_parameters'):
      return self._read_by_layer_type(theta, need(hf, 'rope_parameters', dict))
    ours = self._read_parameters(theta | (hf.get('rope_scaling') or {}), 'rope_scaling')
    local = self.theta_window
    if given(hf, 'rope_local_base_freq'):
      local = need(hf, 'rope_local_base_freq', float)
    return ours | {'rope_theta_window': local}

  def _read_by_layer_type(self, theta: Fields, by_type: Fields) -> Fields:
    """Returns our fields for a `rope_parameters` with a dictionary for each type of layer."""
    if more := by_type.keys() - {FULL, SLIDING}:
      raise unknown('key of rope_parameters in config.json', min(more), (FULL, SLIDING))
    full = by_type.get(FULL) or {}
    sliding = by_type.get(SLIDING) or {}
    where = f'rope_parameters.{SLIDING}'
    local = self._read_parameters({'rope_theta': self.theta_window} | sliding, where)
    if local['rope_scaling'] != 'none':
      raise UserError(
        field=f'{where}.rope_type in config.json', value=local['rope_scaling'], allowed='default'
      )
    ours = self._read_parameters(theta | full, f'rope_parameters.{FULL}')
    return ours | {'rope_theta_window': local['rope_theta']}

  def _read_parameters(self, parameters: Fields, where: str) -> Fields:
    """Returns our fields for one dictionary of RoPE parameters, found at `where`."""
    parameters = dict(parameters)
    old_name = parameters.pop('type', None)
    kind = parameters.pop('rope_type', old_name) or 'default'
    if kind not in SCALINGS:
      raise unknown(f'RoPE type in {where} of config.json', kind, SCALINGS)
    theta = self.theta
    if given(parameters, 'rope_theta'):
      theta = need(parameters, 'rope_theta', float, where)
    ours = {'rope_theta': theta, 'rope_scaling': 'none' if kind == 'default' else kind}
    for key, field in SCALINGS[kind].items():
      ours[field] = need(parameters, key, type(PLAIN[field]), where)
    known = {'rope_theta', 'partial_rotary_factor', *SCALINGS[kind]}
    if more := parameters.keys() - known:
      raise unknown(f'key in {where} of config.json', min(more), sorted(known))
    _check_partial_rotary_factor(parameters, f'{where}.')
    return ours

  def write(self, ours: Fields) -> Fields:
    kind = ours['rope_scaling']
    scaling = None
    if kind != 'none':
      fields = SCALINGS[kind]
      scaling = {'rope_type': kind} | {key: ours[field] for key, field in fields.items()}
    hf = {'rope_theta': ours['rope_theta'], 'rope_scaling': scaling}
    if self.theta_window:
      hf['rope_local_base_freq'] = ours['rope_theta_window'] or ours['rope_theta']
    return hf


def _check_partial_rotary_factor(parameters: Fields, parent: str = '') -> None:
  """Raises UserError where only a part of each head is rotated, which our model cannot do."""
  if given(parameters, 'partial_rotary_factor') and parameters['partial_rotary_factor'] != 1:
    raise UserError(
      field=f'{parent}partial_rotary_factor in config.json',
      value=parameters['partial_rotary_factor'],
      allowed='1.0',
    )


@dataclasses.dataclass(frozen=True)
class Windows:
  """Which layers attend to a window of recent tokens: a list `layer_types`, or a pattern.

  Attributes:
    pattern: returns the type of every layer where a config.json with windows has no list.
    switch: the field that turns windows on at all. '': the family has none.
    listed: whether the family has the list at all.
    size: the default of `sliding_window`. None: no window.
    reads: the fields that `pattern` reads.
  """

  pattern: Callable[[Fields, int], list[str]]
  switch: str = ''
  listed: bool = True
  size: int | None = None
  reads: tuple[str, ...] = ()

  @property
  def names(self) -> tuple[str, ...]:
    switch = (self.switch,) if self.switch else ()
    types = ('layer_types',) if self.listed else ()
    return ('sliding_window', *switch, *types, *self.reads)

  def read(self, hf: Fields) -> Fields:
    layers, window = num_layers(hf), self._window(hf)
    if self.listed and given(hf, 'layer_types'):
      return {'layer_types': _read_layer_types(hf, layers, window), 'window': window}
    types = self.pattern(hf, layers) if window else ['full'] * layers
    return {'layer_types': types, 'window': window}

  def _window(self, hf: Fields) -> int:
    """Returns the number of tokens in a window, 0 where windows are off."""
    size = hf.get('sliding_window', self.size)
    is_off = self.switch and not hf.get(self.switch, False)
    if size is None or is_off:
      return 0
    return need({'sliding_window': size}, 'sliding_window', int)

  def write(self, ours: Fields) -> Fields:
    types = layer_types(ours)
    windowed = 'window' in types
    hf = {'sliding_window': ours['window'] if windowed else None}
    if self.switch:
      hf[self.switch] = windowed
    if self.listed:
      hf['layer_types'] = [SLIDING if kind == 'window' else FULL for kind in types]
    return hf


def _read_layer_types(hf: Fields, layers: int, window: int) -> list[str]:
  """Returns our layer types for the list in a config.json."""
  field = 'layer_types in config.json'
  names = {FULL: 'full', SLIDING: 'window'}
  for kind in need(hf, 'layer_types', list):
    if kind not in names:
      raise unknown(field, kind, names)
  types = [names[kind] for kind in hf['layer_types']]
  if len(types) != layers:
    raise UserError(
      field=field, value=hf['layer_types'], allowed=f'a list of {layers}, one for each layer'
    )
  if 'window' in types and not window:
    raise UserError(
      field=field, value=hf['layer_types'], allowed=f'{FULL} alone, since sliding_window is off'
    )
  return types


def all_windows(hf: Fields, layers: int) -> list[str]:
  """The pattern of `Windows` in which every layer has a window."""
  return ['window'] * layers


def head_width(hf: Fields) -> int:
  """Returns the width of a head where it is the model's width divided among the heads."""
  return need(hf, 'hidden_size', int) // need(hf, 'num_attention_heads', int)


def as_many_as_heads(hf: Fields) -> int:
  """Returns the number of key/value heads where each query head has its own."""
  return need(hf, 'num_attention_heads', int)


ATTENTION_BIAS = Field(
  'attention_bias', 'attention_bias', bool, default=False, values={False: 'none', True: 'all'}
)
MLP_BIAS = Field('mlp_bias', 'mlp_bias', bool, default=False)


def common_fields(
  *,
  mlp: str = 'intermediate_size',
  eps: float = 1e-6,
  tie: bool = False,
  kv_heads: Any = REQUIRED,
  head_dim: Any = head_width,
  activation: Field | None = None,
) -> tuple[Rule, ...]:
  """Returns the rules that all families but GPT-2 have.

  Args:
    mlp: the name of the field for the width of the feed-forward block.
    eps: the default of `rms_norm_eps`.
    tie: the default of `tie_word_embeddings`.
    kv_heads: the default of `num_key_value_heads`.
    head_dim: the default of `head_dim`.
    activation: the rule of the activation, if not `hidden_act` with SiLU as its default.
  """
  return (
    Field('vocab_size', 'vocab_size'),
    Field('hidden_size', 'embed_dim'),
    Field(mlp, 'mlp_dim'),
    Field('num_hidden_layers', 'num_layers'),
    Field('num_attention_heads', 'num_heads'),
    Field('num_key_value_heads', 'num_kv_heads', default=kv_heads),
    Field('head_dim', 'head_dim', default=head_dim),
    Field('max_position_embeddings', 'max_len'),
    Field('rms_norm_eps', 'norm_eps', float, default=eps),
    Field('tie_word_embeddings', 'tie_embeddings', bool, default=tie),
    activation or Field('hidden_act', 'activation', str, default='silu', values=SILU),
  )
