"""What a family is: rules that translate its config.json, and the names of its tensors.

A family is data. Everything in a config.json that changes what a model computes is translated, or
has the one value that our model can run, or is an error that names it.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from lm.base.config import layer_types
from lm.base.errors import UserError

Fields = dict[str, Any]  # the fields of a config.json, or those of our config.model, by name

# Fields of config.json that do not change what the model computes when it runs: where it came from,
# how it is to be trained (dropout, router losses), saved, stored or sampled from, which tokens are
# special, and heads that are not used.
IGNORED = frozenset((
  '_attn_implementation', '_attn_implementation_autoset', '_name_or_path', 'architectures',
  'attention_dropout', 'attn_pdrop', 'bos_token_id', 'cache_implementation',
  'chunk_size_feed_forward', 'do_sample', 'dtype', 'embd_pdrop', 'eos_token_id',
  'gradient_checkpointing', 'id2label', 'initializer_range', 'is_decoder', 'is_encoder_decoder',
  'is_llama_config', 'label2id', 'max_length', 'model_type', 'n_ctx', 'num_labels',
  'output_attentions', 'output_hidden_states', 'output_router_logits', 'pad_token_id', 'prefix',
  'pretraining_tp', 'problem_type', 'resid_pdrop', 'return_dict', 'router_aux_loss_coef',
  'router_jitter_noise', 'summary_activation', 'summary_first_dropout', 'summary_proj_to_labels',
  'summary_type', 'summary_use_proj', 'task_specific_params', 'temperature', 'tokenizer_class',
  'top_k', 'top_p', 'torch_dtype', 'transformers.js_config', 'transformers_version',
  'unsloth_version', 'use_cache',
))  # fmt: skip
# The fields of config.model that every family sets.
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
# The other fields of config.model that change what the weights mean, with the values that they have
# in a model without the feature.
PLAIN = {
  'norm': 'rmsnorm',
  'position': 'rope',
  'rope_theta': 10_000.0,
  'rope_theta_window': 0.0,
  'rope_scaling': 'none',
  'rope_factor': 1.0,
  'rope_low_freq_factor': 1.0,
  'rope_high_freq_factor': 4.0,
  'rope_original_len': 0,
  'layer_types': ('full',),
  'window': 0,
  'attention_scale': 0.0,
  'attention_softcap': 0.0,
  'attention_bias': 'none',
  'qk_norm': 'none',
  'norm_position': 'pre',
  'norm_offset': False,
  'mlp_bias': False,
  'num_experts': 0,
  'experts_per_token': 2,
  'normalize_experts': True,
  'scale_embeddings': False,
  'logit_softcap': 0.0,
}
ARCHITECTURE = (*SIZES, *PLAIN)  # all fields of config.model that change what the weights mean


class Rule(Protocol):
  """Translates some fields of a config.json into fields of config.model, and back.

  Attributes:
    names: the fields of config.json that the rule knows.
  """

  names: tuple[str, ...]

  def read(self, hf: Fields) -> Fields:
    """Returns our fields. Raises UserError that names a field whose value we cannot run."""

  def write(self, ours: Fields) -> Fields:
    """Returns the fields of config.json that say what `ours` says."""


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Where one of our parameters is stored in a file of the family.

  Attributes:
    name: the name of the stored tensor, with {l} for the layer and {e} for the expert where there
      is one for each.
    layout: 'DNH -> (NH)D' says that our axes [D, N, H], named as in lm/model/transformer.py and
      without those of layers and experts, are stored as [N * H, D]. One side alone: both are equal.
    part: which third of the stored tensor's last axis holds the parameter (GPT-2 stores queries,
      keys and values in one tensor). None: the whole tensor.
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
    """For each axis of the stored tensor, which of our axes it joins."""
    return [group.strip('()') for group in re.findall(r'\(\w+\)|\w', self.layout.split(' -> ')[-1])]


@dataclasses.dataclass(frozen=True)
class Family:
  """One architecture of transformers.

  Attributes:
    architecture: the name in the field `architectures` of a config.json.
    model_type: the field of that name.
    rules: translate the other fields.
    tensors: where each of our parameters is stored, by its path. Some models of the family do not
      have all of them (a bias, the head of a tied model).
    fixed: our fields that have the same value in all models of the family, if not the plain one.
    buffers: a regular expression of the names of stored tensors that are not weights.
  """

  architecture: str
  model_type: str
  rules: tuple[Rule, ...]
  tensors: Mapping[str, Tensor]
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  buffers: str = r'.*\.rotary_emb\.inv_freq'

  @property
  def prefix(self) -> str:
    """The first part of most tensor names, which files saved without the head leave out."""
    return self.tensors['embedding'].name.split('.')[0] + '.'

  def read(self, hf: Fields, ignore: Iterable[str] = ()) -> Fields:
    """Returns the fields of `ARCHITECTURE` that a config.json describes.

    Args:
      hf: the config.json.
      ignore: names of fields that may be present without being known.

    Raises:
      UserError: a field is missing or unknown, or has a value that we cannot run.
    """
    known = {name for rule in self.rules for name in rule.names}
    if more := sorted(hf.keys() - known - IGNORED - set(ignore)):
      raise UserError(
        field=f'{more[0]} in config.json',
        value=hf[more[0]],
        message=f'{self.architecture} is not known to have this field, which may change what the '
        'model computes. If it does not, remove it or name it in --ignore.',
      )
    ours = {}
    for rule in self.rules:
      ours |= rule.read(hf)
    return canonical(PLAIN | self.fixed | ours)

  def write(self, ours: Fields) -> Fields:
    """Returns a config.json for the fields of `ARCHITECTURE`.

    Where the family lacks something, reading the result back shows the difference.
    """
    # Some families have default ids for special tokens that are not those of this tokenizer.
    special = dict.fromkeys(('bos_token_id', 'eos_token_id', 'pad_token_id'))
    hf = {'architectures': [self.architecture], 'model_type': self.model_type} | special
    for rule in self.rules:
      hf |= rule.write(ours)
    return hf


def canonical(config: Mapping[str, Any]) -> Fields:
  """Returns the architecture of a config.model in the one form that equal models share.

  A field that has no effect beside the others gets its value of `PLAIN`.
  """
  c = {field: config[field] for field in ARCHITECTURE}
  c['layer_types'] = _shortest_period(tuple(layer_types(c)))
  unused = []
  if 'window' not in c['layer_types']:
    unused += ['window', 'rope_theta_window']
  if c['position'] == 'learned':
    unused += [field for field in PLAIN if field.startswith('rope_')]
  if c['rope_scaling'] == 'none':
    unused += ['rope_factor']
    if c['rope_theta_window'] == c['rope_theta']:
      unused += ['rope_theta_window']
  if c['rope_scaling'] != 'llama3':
    unused += ['rope_low_freq_factor', 'rope_high_freq_factor', 'rope_original_len']
  if not c['num_experts']:
    unused += ['experts_per_token', 'normalize_experts']
  if c['attention_scale'] == c['head_dim'] ** -0.5:
    unused += ['attention_scale']
  return c | {field: PLAIN[field] for field in unused}


def _shortest_period(types: tuple[str, ...]) -> tuple[str, ...]:
  """Returns the shortest sequence of layer types that gives all of `types` when repeated."""
  for n in range(1, len(types)):
    if all(kind == types[i % n] for i, kind in enumerate(types)):
      return types[:n]
  return types
