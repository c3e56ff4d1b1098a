"""The config.json, as transformers writes it, of the model that a GGUF file's metadata describe.

Metadata that a file leaves out has the default of llama.cpp for that architecture.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import FrozenConfigDict

from lm.base.errors import UserError, unknown
from lm.model import rope
from lm.weights.families import Fields

ORIGINAL_LEN = 8192  # tokens; the context of every Llama 3.x before its positions were scaled
Metadata = dict[str, Any]

_NAMES = {  # of parts of a tensor's name, in transformers
  'token_embd': 'model.embed_tokens',
  'output': 'lm_head',
  'output_norm': 'model.norm',
  'attn_norm': 'input_layernorm',
  'attn_q': 'self_attn.q_proj',
  'attn_k': 'self_attn.k_proj',
  'attn_v': 'self_attn.v_proj',
  'attn_output': 'self_attn.o_proj',
  'attn_q_norm': 'self_attn.q_norm',
  'attn_k_norm': 'self_attn.k_norm',
  'ffn_norm': 'post_attention_layernorm',
  'ffn_gate': 'mlp.gate_proj',
  'ffn_up': 'mlp.up_proj',
  'ffn_down': 'mlp.down_proj',
}
_GEMMA_NAMES = _NAMES | {
  'ffn_norm': 'pre_feedforward_layernorm',
  'post_attention_norm': 'post_attention_layernorm',
  'post_ffw_norm': 'post_feedforward_layernorm',
}


@dataclasses.dataclass(frozen=True)
class Architecture:
  """An architecture of llama.cpp and how it differs from the one in transformers.

  Attributes:
    hf: the name of the architecture in transformers.
    model_type: the `model_type` in config.json.
    keys: metadata keys that only this architecture has.
    names: for each part of a tensor's name, the one in transformers.
    permuted: whether the rows of queries and keys are in the order of llama.cpp's rotation.
    norm_offset: what llama.cpp added to the weights of norms.
    windows: every so-many-th layer has full attention, the others have a window. 0: no windows.
    wide: the number of layers of the family's largest model, which divides queries by the square
      root of embed_dim / num_heads instead of head_dim. 0: the family has no such model.
  """

  hf: str
  model_type: str
  keys: tuple[str, ...] = ()
  names: Mapping[str, str] = dataclasses.field(default_factory=lambda: _NAMES)
  permuted: bool = False
  norm_offset: float = 0.0
  windows: int = 0
  wide: int = 0


_GEMMA_KEYS = (
  'attention.sliding_window',
  'attention.sliding_window_pattern',
  'attn_logit_softcapping',
  'final_logit_softcapping',
)
ARCHITECTURES = {
  'llama': Architecture('LlamaForCausalLM', 'llama', permuted=True),
  'qwen2': Architecture('Qwen2ForCausalLM', 'qwen2'),
  'qwen3': Architecture('Qwen3ForCausalLM', 'qwen3'),
  'gemma2': Architecture(
    'Gemma2ForCausalLM',
    'gemma2',
    keys=_GEMMA_KEYS,
    names=_GEMMA_NAMES,
    norm_offset=1.0,
    windows=2,
    wide=46,
  ),
  'gemma3': Architecture(
    'Gemma3ForCausalLM',
    'gemma3_text',
    keys=(*_GEMMA_KEYS, 'rope.freq_base_swa'),
    names=_GEMMA_NAMES,
    norm_offset=1.0,
    windows=6,
    wide=62,
  ),
}
_KEYS = (  # metadata keys that every architecture may have
  'vocab_size',
  'context_length',
  'embedding_length',
  'block_count',
  'feed_forward_length',
  'attention.head_count',
  'attention.head_count_kv',
  'attention.key_length',
  'attention.value_length',
  'attention.layer_norm_rms_epsilon',
  'rope.dimension_count',
  'rope.freq_base',
  'rope.scaling.type',
  'rope.scaling.factor',
  'rope.scaling.original_context_length',
  'rope.scaling.finetuned',
)


def architecture_of(metadata: Metadata) -> Architecture:
  """Returns the architecture of a file. Raises UserError if it is not one of ARCHITECTURES."""
  name = metadata.get('general.architecture')
  if name not in ARCHITECTURES:
    raise unknown('architecture', name, ARCHITECTURES)
  return ARCHITECTURES[name]


def config_json(
  metadata: Metadata,
  shapes: Mapping[str, tuple[int, ...]],
  factors_H: np.ndarray | None,
  ignore: set[str],
) -> Fields:
  """Returns the config.json of a file.

  Args:
    metadata: that of the file.
    shapes: the shapes of its tensors, by their names in it, rows before columns.
    factors_H: its tensor rope_freqs.weight, where it has one (see `llama3_scaling`).
    ignore: metadata keys of the architecture that may be present without being known.

  Raises:
    UserError: a key is missing, unknown, or has a value that we cannot run.
  """
  architecture, name = architecture_of(metadata), metadata['general.architecture']
  if metadata.get('split.count', 1) > 1:
    raise UserError(
      field='split.count',
      value=metadata['split.count'],
      allowed='1',
      message='The model is in several files; llama-gguf-split --merge joins them.',
    )
  own = {key: value for key, value in metadata.items() if key.startswith(f'{name}.')}
  fields = {key.removeprefix(f'{name}.'): own[key] for key in own.keys() - ignore}
  if more := sorted(fields.keys() - {*_KEYS, *architecture.keys}):
    raise UserError(
      field=f'metadata key {name}.{more[0]}',
      value=fields[more[0]],
      message='It is not known, and may change what the model computes. If it does not, name it in '
      '--ignore.',
    )
  get = _Getter(name, fields)
  config = _config(architecture, get, shapes)
  config['rope_scaling'] = _rope_scaling(get, factors_H)
  for theirs, ours in (('bos', 'bos'), ('eos', 'eos'), ('padding', 'pad')):
    config[f'{ours}_token_id'] = metadata.get(f'tokenizer.ggml.{theirs}_token_id')
  return config


@dataclasses.dataclass(frozen=True)
class _Getter:
  """The metadata of one architecture, with types checked."""

  prefix: str
  fields: Metadata

  def __call__(self, key: str, kind: type, default: Any = None) -> Any:
    """Returns a value. Raises UserError for another type, or none where there is no default."""
    value = self.fields.get(key, default)
    field = f'metadata key {self.prefix}.{key}'
    if value is None:
      raise UserError(field=field)
    if type(value) is not kind:
      raise UserError(field=field, value=value, allowed=f'a value of type {kind.__name__}')
    return value


def _config(
  architecture: Architecture, get: _Getter, shapes: Mapping[str, tuple[int, ...]]
) -> Fields:
  """Returns the config.json without the scaling of positions and the special tokens."""
  if 'token_embd.weight' not in shapes:
    raise UserError(field="tensor 'token_embd.weight'")
  layers = get('block_count', int)
  width = get('embedding_length', int)
  heads = get('attention.head_count', int)
  head_dim = get('attention.key_length', int, width // heads)
  for key in ('attention.value_length', 'rope.dimension_count'):
    value = get(key, int, head_dim)
    if value != head_dim:
      raise UserError(
        field=f'metadata key {get.prefix}.{key}',
        value=value,
        allowed=f'the width of a head, {head_dim}',
      )
  config = {
    'architectures': [architecture.hf],
    'model_type': architecture.model_type,
    'hidden_size': width,
    'vocab_size': shapes['token_embd.weight'][0],
    'num_hidden_layers': layers,
    'num_attention_heads': heads,
    'num_key_value_heads': get('attention.head_count_kv', int, heads),
    'head_dim': head_dim,
    'intermediate_size': get('feed_forward_length', int),
    'max_position_embeddings': get('context_length', int),
    'rms_norm_eps': _shortest(get('attention.layer_norm_rms_epsilon', float)),
    'tie_word_embeddings': 'output.weight' not in shapes,
    'rope_theta': _shortest(get('rope.freq_base', float, 10_000.0)),
  }
  if architecture.hf == 'LlamaForCausalLM':
    config['attention_bias'] = 'blk.0.attn_q.bias' in shapes
    config['mlp_bias'] = 'blk.0.ffn_up.bias' in shapes
  if architecture.windows:
    every = get.fields.get('attention.sliding_window_pattern', architecture.windows)
    windowed = every if isinstance(every, list) else [bool((i + 1) % every) for i in range(layers)]
    is_wide = layers == architecture.wide
    config['sliding_window'] = get('attention.sliding_window', int)
    config['layer_types'] = ['sliding_attention' if w else 'full_attention' for w in windowed]
    config['query_pre_attn_scalar'] = width // heads if is_wide else head_dim
    for key in ('attn_logit_softcapping', 'final_logit_softcapping'):
      config[key] = _shortest(get.fields[key]) if key in get.fields else None
  if 'rope.freq_base_swa' in architecture.keys:
    config['rope_local_base_freq'] = _shortest(get('rope.freq_base_swa', float, 10_000.0))
  return config


def _shortest(value: float) -> float:
  """Returns the shortest number that rounds to this float32: 1e-5 for 9.999999747e-6."""
  return float(str(np.float32(value)))


def _rope_scaling(get: _Getter, factors_H: np.ndarray | None) -> Fields | None:
  """Returns the scaling of positions, of Llama 3 where its factors are given."""
  field = f'metadata key {get.prefix}.rope.scaling.type'
  kind = get('rope.scaling.type', str, 'none')
  if kind not in ('none', 'linear'):
    raise unknown(field, kind, ('none', 'linear'))
  if factors_H is None:
    if kind == 'none':
      return None
    return {'rope_type': 'linear', 'factor': _shortest(get('rope.scaling.factor', float))}
  if kind != 'none' or get.prefix != 'llama':
    raise UserError(
      field=field,
      value=kind,
      allowed="none, and the architecture llama, beside a tensor 'rope_freqs.weight'",
    )
  return llama3_scaling(
    factors_H,
    _shortest(get('rope.freq_base', float, 10_000.0)),
    get('rope.scaling.original_context_length', int, ORIGINAL_LEN),
  )


def llama3_scaling(factors_H: np.ndarray, theta: float, original_len: int) -> Fields:
  """Returns the Llama 3 scaling that gives these factors of the rotations of a head, [H/2].

  A GGUF file has the factors but not the fields that they come from. low_freq_factor and
  high_freq_factor are 1 and 4 in every release; the original context then follows from any factor
  between the two ends.

  Args:
    factors_H: how many times slower each pair of a head's axes rotates.
    theta: the base of the rotations.
    original_len: the original context, where no factor tells it, in tokens.

  Raises:
    UserError: these fields do not give these factors.
  """
  factor, low, high = _shortest(factors_H.max()), 1.0, 4.0
  plain = {
    'head_dim': 2 * len(factors_H),
    'rope_theta': theta,
    'rope_scaling': 'none',
    'rope_theta_window': 0.0,
  }
  frequency_H = rope.frequencies(FrozenConfigDict(plain))
  between = np.flatnonzero((factors_H > 1.001) & (factors_H < 0.999 * factor))
  if len(between):
    i = between[0]
    kept = (1 / factors_H[i] - 1 / factor) / (1 - 1 / factor)
    original_len = round(float((low + kept * (high - low)) * 2 * math.pi / frequency_H[i]))
  scaling = {
    'rope_scaling': 'llama3',
    'rope_factor': factor,
    'rope_low_freq_factor': low,
    'rope_high_freq_factor': high,
    'rope_original_len': original_len,
  }
  scaled_H = rope.frequencies(FrozenConfigDict(plain | scaling))
  if not np.allclose(frequency_H / scaled_H, factors_H, rtol=1e-3):
    raise UserError(
      field="tensor 'rope_freqs.weight'",
      value=factors_H.tolist(),
      allowed='factors of a Llama 3 model with low_freq_factor 1 and high_freq_factor 4',
      message='Others are not read from a tensor.',
    )
  return {
    'rope_type': 'llama3',
    'factor': factor,
    'low_freq_factor': low,
    'high_freq_factor': high,
    'original_max_position_embeddings': original_len,
  }
