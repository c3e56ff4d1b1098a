"""Field maps against what is published of known models, and against each other; names and sizes are
facts, not files.
"""

import math
import re

import pytest
from ml_collections import FrozenConfigDict

from configs import base
from lm.base.config import layer_types
from lm.base.errors import UserError
from lm.weights import families, hub_params
from lm.weights.pretrained import EXECUTION, EXTENSIONS

# config.json of published models, the fields that decide what they compute, in the form of
# transformers 4.
LLAMA_3_2_1B = {
  'architectures': ['LlamaForCausalLM'], 'vocab_size': 128256, 'hidden_size': 2048, 'intermediate_size': 8192,
  'num_hidden_layers': 16, 'num_attention_heads': 32, 'num_key_value_heads': 8, 'head_dim': 64, 'hidden_act': 'silu',
  'max_position_embeddings': 131072, 'rms_norm_eps': 1e-5, 'rope_theta': 500000.0, 'tie_word_embeddings': True,
  'attention_bias': False, 'mlp_bias': False, 'pretraining_tp': 1, 'torch_dtype': 'bfloat16',
  'rope_scaling': {'factor': 32.0, 'high_freq_factor': 4.0, 'low_freq_factor': 1.0,
                   'original_max_position_embeddings': 8192, 'rope_type': 'llama3'},
}  # fmt: skip
SMOLLM2_135M = {
  'architectures': ['LlamaForCausalLM'], 'vocab_size': 49152, 'hidden_size': 576, 'intermediate_size': 1536,
  'num_hidden_layers': 30, 'num_attention_heads': 9, 'num_key_value_heads': 3, 'hidden_act': 'silu',
  'max_position_embeddings': 8192, 'rms_norm_eps': 1e-5, 'rope_theta': 100000, 'tie_word_embeddings': True,
  'is_llama_config': True, 'rope_interleaved': False, 'rope_scaling': None, 'initializer_range': 0.041666666666666664,
}  # fmt: skip
SMOLLM3_3B = {
  'architectures': ['SmolLM3ForCausalLM'], 'vocab_size': 128256, 'hidden_size': 2048, 'intermediate_size': 11008,
  'num_hidden_layers': 36, 'num_attention_heads': 16, 'num_key_value_heads': 4, 'hidden_act': 'silu',
  'max_position_embeddings': 65536, 'rms_norm_eps': 1e-6, 'rope_theta': 5000000.0, 'rope_scaling': None,
  'use_sliding_window': False, 'sliding_window': None, 'max_window_layers': 28, 'pretraining_tp': 2,
  'no_rope_layer_interval': 4, 'no_rope_layers': [1, 1, 1, 0] * 9, 'layer_types': ['full_attention'] * 36,
}  # fmt: skip
MISTRAL_7B = {
  'architectures': ['MistralForCausalLM'], 'vocab_size': 32000, 'hidden_size': 4096, 'intermediate_size': 14336,
  'num_hidden_layers': 32, 'num_attention_heads': 32, 'num_key_value_heads': 8, 'hidden_act': 'silu',
  'max_position_embeddings': 32768, 'rms_norm_eps': 1e-5, 'rope_theta': 10000.0, 'sliding_window': 4096,
  'tie_word_embeddings': False,
}  # fmt: skip
QWEN2_5_05B = {
  'architectures': ['Qwen2ForCausalLM'], 'vocab_size': 151936, 'hidden_size': 896, 'intermediate_size': 4864,
  'num_hidden_layers': 24, 'num_attention_heads': 14, 'num_key_value_heads': 2, 'hidden_act': 'silu',
  'max_position_embeddings': 32768, 'rms_norm_eps': 1e-6, 'rope_theta': 1000000.0, 'sliding_window': 32768,
  'max_window_layers': 24, 'use_sliding_window': False, 'use_mrope': False, 'tie_word_embeddings': True,
}  # fmt: skip
QWEN3_06B = {
  'architectures': ['Qwen3ForCausalLM'], 'vocab_size': 151936, 'hidden_size': 1024, 'intermediate_size': 3072,
  'num_hidden_layers': 28, 'num_attention_heads': 16, 'num_key_value_heads': 8, 'head_dim': 128, 'hidden_act': 'silu',
  'max_position_embeddings': 40960, 'rms_norm_eps': 1e-6, 'rope_theta': 1000000, 'rope_scaling': None,
  'sliding_window': None, 'use_sliding_window': False, 'max_window_layers': 28, 'attention_bias': False,
  'tie_word_embeddings': True,
}  # fmt: skip
GEMMA_2_2B = {
  'architectures': ['Gemma2ForCausalLM'], 'vocab_size': 256000, 'hidden_size': 2304, 'intermediate_size': 9216,
  'num_hidden_layers': 26, 'num_attention_heads': 8, 'num_key_value_heads': 4, 'head_dim': 256,
  'hidden_act': 'gelu_pytorch_tanh', 'hidden_activation': 'gelu_pytorch_tanh', 'max_position_embeddings': 8192,
  'rms_norm_eps': 1e-6, 'rope_theta': 10000.0, 'sliding_window': 4096, 'query_pre_attn_scalar': 256,
  'attn_logit_softcapping': 50.0, 'final_logit_softcapping': 30.0, 'cache_implementation': 'hybrid',
}  # fmt: skip
GEMMA_3_1B = {
  'architectures': ['Gemma3ForCausalLM'], 'vocab_size': 262144, 'hidden_size': 1152, 'intermediate_size': 6912,
  'num_hidden_layers': 26, 'num_attention_heads': 4, 'num_key_value_heads': 1, 'head_dim': 256,
  'hidden_activation': 'gelu_pytorch_tanh', 'max_position_embeddings': 32768, 'rms_norm_eps': 1e-6,
  'rope_theta': 1000000, 'rope_local_base_freq': 10000, 'rope_scaling': None, 'sliding_window': 512,
  'sliding_window_pattern': 6, 'query_pre_attn_scalar': 256, 'attn_logit_softcapping': None,
  'final_logit_softcapping': None,
}  # fmt: skip
OLMO_2_7B = {
  'architectures': ['Olmo2ForCausalLM'], 'vocab_size': 100352, 'hidden_size': 4096, 'intermediate_size': 11008,
  'num_hidden_layers': 32, 'num_attention_heads': 32, 'num_key_value_heads': 32, 'hidden_act': 'silu',
  'max_position_embeddings': 4096, 'rms_norm_eps': 1e-6, 'rope_theta': 500000, 'rope_scaling': None,
  'attention_bias': False, 'tie_word_embeddings': False,
}  # fmt: skip
MIXTRAL_8X7B = MISTRAL_7B | {
  'architectures': ['MixtralForCausalLM'], 'rope_theta': 1000000.0, 'sliding_window': None, 'num_local_experts': 8,
  'num_experts_per_tok': 2, 'router_aux_loss_coef': 0.02, 'output_router_logits': False,
}  # fmt: skip
QWEN3_30B_A3B = {
  'architectures': ['Qwen3MoeForCausalLM'], 'vocab_size': 151936, 'hidden_size': 2048, 'intermediate_size': 6144,
  'moe_intermediate_size': 768, 'num_hidden_layers': 48, 'num_attention_heads': 32, 'num_key_value_heads': 4,
  'head_dim': 128, 'hidden_act': 'silu', 'max_position_embeddings': 40960, 'rms_norm_eps': 1e-6, 'rope_theta': 1000000.0,
  'rope_scaling': None, 'sliding_window': None, 'use_sliding_window': False, 'max_window_layers': 48,
  'attention_bias': False, 'num_experts': 128, 'num_experts_per_tok': 8, 'norm_topk_prob': True,
  'decoder_sparse_step': 1, 'mlp_only_layers': [], 'router_aux_loss_coef': 0.001, 'tie_word_embeddings': False,
}  # fmt: skip
GPT2 = {
  'architectures': ['GPT2LMHeadModel'], 'vocab_size': 50257, 'n_embd': 768, 'n_layer': 12, 'n_head': 12, 'n_positions': 1024,
  'n_ctx': 1024, 'activation_function': 'gelu_new', 'layer_norm_epsilon': 1e-5, 'summary_type': 'cls_index',
  'task_specific_params': {'text-generation': {'do_sample': True, 'max_length': 50}},
}  # fmt: skip
PUBLISHED = {  # with the number of parameters that the model's card or its safetensors index gives
  'gpt2': (GPT2, 124_439_808), 'llama-3.2-1b': (LLAMA_3_2_1B, 1_235_814_400), 'smollm2-135m': (SMOLLM2_135M, 134_515_008),
  'smollm3-3b': (SMOLLM3_3B, 3_075_098_624), 'mistral-7b': (MISTRAL_7B, 7_241_732_096),
  'qwen2.5-0.5b': (QWEN2_5_05B, 494_032_768), 'qwen3-0.6b': (QWEN3_06B, 596_049_920),
  'gemma-2-2b': (GEMMA_2_2B, 2_614_341_888), 'gemma-3-1b': (GEMMA_3_1B, 999_885_952),
  'olmo-2-7b': (OLMO_2_7B, 7_298_617_344), 'mixtral-8x7b': (MIXTRAL_8X7B, 46_702_792_704),
  'qwen3-30b-a3b': (QWEN3_30B_A3B, 30_532_122_624),
}  # fmt: skip


def read(config, **changes):
  # ... takes a field out
  config = {name: value for name, value in (config | changes).items() if value is not ...}
  return families.of(config).read(config)


@pytest.mark.slow
@pytest.mark.parametrize('name', PUBLISHED)
def test_parameters_are_counted_as_published(name):
  config, count = PUBLISHED[name]
  ours = FrozenConfigDict(base.get_config().model.to_dict() | read(config))
  layout = hub_params.layouts(families.of(config), ours)
  assert sum(math.prod(x.shape) for x in layout.values()) == count


@pytest.mark.parametrize('name, expected', [
  ('llama-3.2-1b', {'rope_scaling': 'llama3', 'rope_factor': 32.0, 'rope_low_freq_factor': 1.0, 'rope_high_freq_factor': 4.0,
                    'rope_original_len': 8192, 'rope_theta': 500000.0, 'layer_types': ('full',), 'tie_embeddings': True}),
  ('smollm2-135m', {'rope_theta': 100000.0, 'head_dim': 64, 'num_kv_heads': 3}),
  ('smollm3-3b', {'layer_types': ('full', 'full', 'full', 'nope'), 'tie_embeddings': True, 'window': 0}),
  ('mistral-7b', {'layer_types': ('window',), 'window': 4096, 'head_dim': 128}),
  ('qwen2.5-0.5b', {'layer_types': ('full',), 'attention_bias': 'qkv', 'window': 0}),
  ('qwen3-0.6b', {'qk_norm': 'head', 'head_dim': 128, 'attention_bias': 'none'}),
  ('gemma-2-2b', {'layer_types': ('window', 'full'), 'window': 4096, 'attention_softcap': 50.0, 'logit_softcap': 30.0,
                  'norm_offset': True, 'norm_position': 'both', 'scale_embeddings': True, 'activation': 'geglu',
                  'attention_scale': 0.0, 'qk_norm': 'none', 'tie_embeddings': True}),
  ('gemma-3-1b', {'layer_types': ('window',) * 5 + ('full',), 'window': 512, 'rope_theta': 1e6, 'rope_theta_window': 1e4,
                  'attention_softcap': 0.0, 'logit_softcap': 0.0, 'qk_norm': 'head'}),
  ('olmo-2-7b', {'norm_position': 'post', 'qk_norm': 'projection', 'norm_eps': 1e-6}),
  ('mixtral-8x7b', {'num_experts': 8, 'experts_per_token': 2, 'normalize_experts': True, 'window': 0, 'mlp_dim': 14336}),
  ('qwen3-30b-a3b', {'num_experts': 128, 'experts_per_token': 8, 'normalize_experts': True, 'mlp_dim': 768}),
  ('gpt2', {'norm': 'layernorm', 'position': 'learned', 'activation': 'gelu', 'attention_bias': 'all', 'mlp_bias': True,
            'mlp_dim': 3072, 'max_len': 1024, 'tie_embeddings': True}),
])  # fmt: skip
def test_fields_of_published_models(name, expected):
  ours = read(PUBLISHED[name][0])
  assert {field: ours[field] for field in expected} == expected


@pytest.mark.parametrize('config, changes, same', [
  (LLAMA_3_2_1B, {'rope_scaling': ..., 'rope_theta': ..., 'rope_parameters': LLAMA_3_2_1B['rope_scaling'] | {
    'rope_theta': 500000.0}}, True),  # transformers 5
  (LLAMA_3_2_1B, {'rope_scaling': None}, False),
  (LLAMA_3_2_1B, {'architectures': ..., 'model_type': 'llama'}, True),
  (GEMMA_3_1B, {'rope_theta': ..., 'rope_local_base_freq': ..., 'rope_parameters': {
    'full_attention': {'rope_type': 'default', 'rope_theta': 1e6},
    'sliding_attention': {'rope_type': 'default', 'rope_theta': 1e4}}}, True),
  (GEMMA_3_1B, {'sliding_window_pattern': ..., 'layer_types': (['sliding_attention'] * 5 + ['full_attention']) * 4 + [
    'sliding_attention'] * 2}, True),
  (GEMMA_3_1B, {'rope_scaling': {'rope_type': 'linear', 'factor': 8.0}}, False),
  (QWEN2_5_05B, {'use_sliding_window': True, 'max_window_layers': 8}, False),
  (QWEN2_5_05B, {'layer_types': ['full_attention'] * 24}, True),
  (QWEN3_30B_A3B, {'num_experts': ..., 'num_local_experts': 128}, True),  # transformers 5
  (GPT2, {'n_inner': 3072, 'tie_word_embeddings': True, 'reorder_and_upcast_attn': True}, True),
  (SMOLLM3_3B, {'no_rope_layers': ...}, True),
  (SMOLLM2_135M, {'head_dim': 64, 'num_key_value_heads': 3, 'rope_scaling': {'type': 'linear', 'factor': 2.0}}, False),
])  # fmt: skip
def test_forms_of_config_json(config, changes, same):
  assert (read(config, **changes) == read(config)) == same


def test_windows_begin_above_max_window_layers():
  ours = read(QWEN2_5_05B, use_sliding_window=True, max_window_layers=8)
  assert layer_types(ours) == ['full'] * 8 + ['window'] * 16 and ours['window'] == 32768


@pytest.mark.parametrize('config, changes, field, value', [
  (LLAMA_3_2_1B, {'architectures': ['FalconForCausalLM']}, 'architecture', 'FalconForCausalLM'),
  (LLAMA_3_2_1B, {'architectures': ..., 'model_type': 'bloom'}, 'architecture', 'bloom'),
  (LLAMA_3_2_1B, {'hidden_size': ...}, 'hidden_size', None),
  (LLAMA_3_2_1B, {'hidden_size': '2048'}, 'hidden_size', '2048'),
  (LLAMA_3_2_1B, {'tie_word_embeddings': 1}, 'tie_word_embeddings', 1),
  (LLAMA_3_2_1B, {'hidden_act': 'gelu'}, 'hidden_act', 'gelu'),
  (LLAMA_3_2_1B, {'quantization_config': {'bits': 4}}, 'quantization_config', {'bits': 4}),
  (LLAMA_3_2_1B, {'rope_interleaved': True}, 'rope_interleaved', True),
  (LLAMA_3_2_1B, {'rope_scaling': {'rope_type': 'yarn', 'factor': 4.0}}, 'RoPE type in rope_scaling', 'yarn'),
  (LLAMA_3_2_1B, {'rope_scaling': {'type': 'dynamic', 'factor': 4.0}}, 'RoPE type in rope_scaling', 'dynamic'),
  (LLAMA_3_2_1B, {'rope_scaling': {'rope_type': 'llama3', 'factor': 4.0}}, 'rope_scaling.low_freq_factor', None),
  (LLAMA_3_2_1B, {'rope_scaling': {'rope_type': 'linear', 'factor': 4.0, 'beta': 1}}, 'key in rope_scaling', 'beta'),
  (LLAMA_3_2_1B, {'rope_parameters': {'rope_theta': 1.0}}, 'rope_scaling', LLAMA_3_2_1B['rope_scaling']),
  (LLAMA_3_2_1B, {'partial_rotary_factor': 0.5}, 'partial_rotary_factor', 0.5),
  (LLAMA_3_2_1B, {'rope_scaling': {'type': 'default', 'partial_rotary_factor': 0.5}},
   'rope_scaling.partial_rotary_factor', 0.5),
  (MISTRAL_7B, {'attention_bias': True}, 'attention_bias', True),
  (GEMMA_3_1B, {'rope_parameters': {'full_attention': {}, 'chunked': {}}}, 'key of rope_parameters', 'chunked'),
  (GEMMA_3_1B, {'rope_parameters': {'sliding_attention': {'rope_type': 'linear', 'factor': 2.0}}},
   'rope_parameters.sliding_attention.rope_type', 'linear'),
  (GEMMA_2_2B, {'layer_types': ['chunked_attention'] * 26}, 'layer_types', 'chunked_attention'),
  (GEMMA_2_2B, {'layer_types': ['full_attention'] * 25}, 'layer_types', ['full_attention'] * 25),
  (GEMMA_2_2B, {'use_bidirectional_attention': True}, 'use_bidirectional_attention', True),
  (QWEN2_5_05B, {'layer_types': ['sliding_attention'] * 24}, 'layer_types', ['sliding_attention'] * 24),
  (SMOLLM3_3B, {'use_sliding_window': True}, 'use_sliding_window', True),
  (SMOLLM3_3B, {'layer_types': ['sliding_attention'] * 36}, 'layer_types', ['sliding_attention'] * 36),
  (SMOLLM3_3B, {'no_rope_layers': [1, 0]}, 'no_rope_layers', [1, 0]),
  (QWEN3_30B_A3B, {'decoder_sparse_step': 2}, 'decoder_sparse_step', 2),
  (QWEN3_30B_A3B, {'mlp_only_layers': [0]}, 'mlp_only_layers', [0]),
  (GPT2, {'scale_attn_by_inverse_layer_idx': True}, 'scale_attn_by_inverse_layer_idx', True),
  (GPT2, {'activation_function': 'gelu'}, 'activation_function', 'gelu'),
])  # fmt: skip
def test_what_cannot_be_run_is_named(config, changes, field, value):
  with pytest.raises(UserError) as raised:
    read(config, **changes)
  named = re.split(' (?:in|of) config.json', raised.value.field)[0]
  assert (named, raised.value.value) == (field, value)


@pytest.mark.parametrize('changes, allowed', [
  ({'hidden_act': 'gelu'}, ('silu', 'gelu_pytorch_tanh', 'gelu_new')),
  ({'rope_scaling': {'type': 'dynamic'}}, ('default', 'linear', 'llama3')),
  ({'rope_interleaved': True}, ('None', 'False')),
  ({'hidden_size': '2048'}, 'a value of type int'),
])  # fmt: skip
def test_what_could_be_run_is_named_too(changes, allowed):
  with pytest.raises(UserError) as raised:
    read(LLAMA_3_2_1B, **changes)
  assert raised.value.allowed == allowed


def test_unknown_fields_can_be_ignored_by_name():
  config = LLAMA_3_2_1B | {'mood': 'good'}
  assert families.of(config).read(config, ignore=['mood']) == read(LLAMA_3_2_1B)


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_family_writes_what_it_reads(name):
  ours = read(PUBLISHED[name][0])
  family, written = families.express(ours)
  assert family.read(written) == ours
  # Where several families have the same model, the plainest is taken, unless it came from another.
  assert family is families.of(PUBLISHED[name][0])
  assert families.express(ours, PUBLISHED[name][0]) == (family, PUBLISHED[name][0])


def test_fine_tuned_models_keep_their_config_with_the_new_vocabulary():
  ours = read(QWEN3_06B) | {'vocab_size': 152064}
  assert families.express(ours, QWEN3_06B) == (
    families.of(QWEN3_06B),
    QWEN3_06B | {'vocab_size': 152064},
  )


@pytest.mark.parametrize('fields, field', [
  ({'norm': 'layernorm'}, 'norm'),
  ({'activation': 'relu2'}, 'activation'),
  ({'layer_types': ('window', 'nope'), 'window': 8}, 'layer_types'),
  ({'qk_norm': 'projection'}, 'qk_norm'),
  ({'attention_softcap': 5.0}, 'attention_softcap'),
])  # fmt: skip
def test_what_no_family_has_is_named(fields, field):
  with pytest.raises(UserError) as raised:
    families.express(base.get_config().model.to_dict() | fields)
  assert raised.value.field == f'config.model.{field}'
  assert raised.value.value == fields[field]
  assert 'ForCausalLM, has' in raised.value.message


def test_configs_that_compute_the_same_are_one():
  plain = base.get_config().model.to_dict()
  same = {
    'layer_types': ('full', 'full'),
    'window': 7,
    'rope_factor': 3.0,
    'rope_original_len': 5,
    'experts_per_token': 9,
    'attention_scale': plain['head_dim'] ** -0.5,
  }
  assert families.canonical(plain | same) == families.canonical(plain)
  assert families.canonical(plain | {'layer_types': ('full', 'nope', 'full', 'nope')})[
    'layer_types'
  ] == ('full', 'nope')


def test_every_field_of_the_model_is_known_to_the_maps():
  ours = {*families.ARCHITECTURE, *EXECUTION, *EXTENSIONS, 'init_std'}
  assert ours == set(base.get_config().model)
