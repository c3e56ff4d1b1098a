"""Makes tests/lm/golden/: a tiny random model of each family as transformers saves it, and what
transformers computes.

    python tests/lm/make_golden.py [FAMILY ...]      (needs the extra deepdive-lm[parity])

FAMILY/config.json, model.safetensors   by save_pretrained
FAMILY/expected.npz
    tokens [3, T], lengths [3]   rows of unequal length, the rest of each is padding
    logits [sum of lengths, V]   of the real tokens, row after row
    continuation [M]             greedy, behind the last row, decoded with a cache
"""

import pathlib
import sys

import numpy as np
import torch
import transformers

FOLDER = pathlib.Path(__file__).parent / 'golden'
VOCAB, LENGTHS, NEW = 101, (48, 21, 9), 12
BASE = {'vocab_size': VOCAB, 'hidden_size': 32, 'intermediate_size': 40, 'num_hidden_layers': 2, 'num_attention_heads': 4,
        'num_key_value_heads': 2, 'max_position_embeddings': 64, 'bos_token_id': None, 'eos_token_id': None,
        'pad_token_id': None}  # fmt: skip
LLAMA3 = {'rope_type': 'llama3', 'rope_theta': 500.0, 'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
          'original_max_position_embeddings': 16}  # fmt: skip
FULL, SLIDING = 'full_attention', 'sliding_attention'
MODELS = {  # contexts are longer than the windows and than original_max_position_embeddings
  'gpt2': lambda: transformers.GPT2Config(
    vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=72, bos_token_id=None, eos_token_id=None),
  'llama': lambda: transformers.LlamaConfig(**BASE, attention_bias=True, mlp_bias=True, head_dim=12),
  'llama3': lambda: transformers.LlamaConfig(**BASE, rope_parameters=LLAMA3, rms_norm_eps=1e-5),
  'smollm2': lambda: transformers.LlamaConfig(
    **BASE | {'num_attention_heads': 3, 'num_key_value_heads': 1, 'hidden_size': 36}, tie_word_embeddings=True,
    rope_parameters={'rope_type': 'linear', 'rope_theta': 100_000.0, 'factor': 4.0}),
  'smollm3': lambda: transformers.SmolLM3Config(**BASE | {'num_hidden_layers': 3}, no_rope_layer_interval=2),
  'mistral': lambda: transformers.MistralConfig(**BASE, sliding_window=7),
  'qwen2': lambda: transformers.Qwen2Config(
    **BASE | {'num_hidden_layers': 3}, use_sliding_window=True, sliding_window=7, max_window_layers=1,
    tie_word_embeddings=True),
  'qwen3': lambda: transformers.Qwen3Config(**BASE, head_dim=10, tie_word_embeddings=True),
  'gemma2': lambda: transformers.Gemma2Config(
    **BASE, head_dim=12, query_pre_attn_scalar=20, sliding_window=7, attn_logit_softcapping=3.0,
    final_logit_softcapping=4.0),
  'gemma3': lambda: transformers.Gemma3TextConfig(
    **BASE | {'num_hidden_layers': 3}, head_dim=8, query_pre_attn_scalar=20, sliding_window=7,
    layer_types=[SLIDING, SLIDING, FULL],
    rope_parameters={FULL: {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 10_000.0},
                     SLIDING: {'rope_type': 'default', 'rope_theta': 100.0}}),
  'olmo2': lambda: transformers.Olmo2Config(**BASE, rope_parameters={'rope_type': 'default', 'rope_theta': 500_000.0}),
  'mixtral': lambda: transformers.MixtralConfig(
    **BASE | {'intermediate_size': 16}, num_local_experts=4, num_experts_per_tok=2),
  'qwen3_moe': lambda: transformers.Qwen3MoeConfig(
    **BASE | {'num_hidden_layers': 2}, head_dim=8, moe_intermediate_size=12, num_experts=6, num_experts_per_tok=3,
    norm_topk_prob=False),
}  # fmt: skip


def make(name: str) -> transformers.PreTrainedModel:
  """The random model of a family: no parameter is left at 0 or 1, and none is so small that it
  could be forgotten.
  """
  torch.manual_seed(sum(map(ord, name)))
  config = MODELS[name]()
  model = transformers.AutoModelForCausalLM.from_config(
    config, attn_implementation='eager', dtype=torch.float32
  ).eval()
  with torch.no_grad():
    for path, weight in model.named_parameters():
      if weight.ndim > 1:
        weight.normal_(std=1.3 * config.hidden_size**-0.5)
      elif path.endswith('bias') or 'gemma' in name:
        weight.normal_(std=0.3)
      else:
        weight.normal_(mean=1.0, std=0.3)
  return model


def inputs() -> tuple[np.ndarray, np.ndarray]:
  """(tokens [3, T], mask [3, T]), padding behind each row."""
  tokens = np.random.default_rng(0).integers(VOCAB, size=(len(LENGTHS), max(LENGTHS)))
  mask = np.arange(max(LENGTHS))[None] < np.array(LENGTHS)[:, None]
  return np.where(mask, tokens, 0), mask


def logits(model: transformers.PreTrainedModel) -> np.ndarray:
  """[sum of LENGTHS, V], what transformers computes."""
  tokens, mask = inputs()
  with torch.no_grad():
    return model(
      torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask).long()
    ).logits.numpy()[mask]


def continuation(model: transformers.PreTrainedModel) -> np.ndarray:
  """[NEW], the likeliest token after each, behind the last row."""
  prompt = torch.from_numpy(inputs()[0][-1:, : LENGTHS[-1]])
  out = model.generate(
    prompt,
    max_new_tokens=NEW,
    do_sample=False,
    output_logits=True,
    return_dict_in_generate=True,
    attention_mask=torch.ones_like(prompt),
    pad_token_id=0,
  )
  for step in out.logits:
    best, second = step[0].topk(2).values
    assert best - second > 1e-3, 'two tokens are equally likely: another seed is needed'
  return out.sequences[0, LENGTHS[-1] :].numpy()


def main() -> None:
  for name in sys.argv[1:] or MODELS:
    model, folder = make(name), FOLDER / name
    model.save_pretrained(folder)
    (folder / 'generation_config.json').unlink(missing_ok=True)
    expected = logits(model)
    np.savez_compressed(
      folder / 'expected.npz',
      tokens=inputs()[0].astype(np.int32),
      lengths=np.array(LENGTHS, np.int32),
      logits=expected,
      continuation=continuation(model).astype(np.int32),
    )
    size = (folder / 'model.safetensors').stat().st_size
    print(f'{name:10} {size / 1000:.0f} kB, logits {expected.std():.2f}')


if __name__ == '__main__':
  main()
