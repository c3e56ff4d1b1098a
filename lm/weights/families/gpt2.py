"""GPT-2, which stores queries, keys and values in one tensor, and matrices as [in, out]."""

from lm.weights.families.family import Family, Fields, Tensor
from lm.weights.families.field_rules import Computed, Field, Only, Unread, need
from lm.weights.families.tensor_names import linear

_LAYER = 'transformer.h.{l}.'
_GELU = {'gelu_new': 'gelu', 'gelu_pytorch_tanh': 'gelu', 'relu2': 'relu2'}


def _mlp_width(hf: Fields) -> int:
  return 4 * need(hf, 'n_embd', int)


def _head_width(hf: Fields) -> int:
  return need(hf, 'n_embd', int) // need(hf, 'n_head', int)


def _tensors() -> dict[str, Tensor]:
  """Returns where each of our parameters is stored."""
  tensors = {
    'embedding': Tensor('transformer.wte.weight', 'VD'),
    'position_table': Tensor('transformer.wpe.weight', 'PD'),
    'head': Tensor('lm_head.weight', 'VD'),
    **linear('layers/attention/o', f'{_LAYER}attn.c_proj', 'NHD -> (NH)D', 'D'),
    **linear('layers/mlp/up', f'{_LAYER}mlp.c_fc', 'DF', 'F'),
    **linear('layers/mlp/down', f'{_LAYER}mlp.c_proj', 'FD', 'D'),
  }
  for part, name in enumerate('qkv'):
    heads = 'NH' if name == 'q' else 'KH'
    weight, bias = f'D{heads} -> D({heads})', f'{heads} -> ({heads})'
    ours = f'layers/attention/{name}'
    tensors[f'{ours}/kernel'] = Tensor(f'{_LAYER}attn.c_attn.weight', weight, part)
    tensors[f'{ours}/bias'] = Tensor(f'{_LAYER}attn.c_attn.bias', bias, part)
  norms = {
    'layers/attention_norm': f'{_LAYER}ln_1',
    'layers/mlp_norm': f'{_LAYER}ln_2',
    'final_norm': 'transformer.ln_f',
  }
  for ours, theirs in norms.items():
    tensors[f'{ours}/scale'] = Tensor(f'{theirs}.weight', 'D')
    tensors[f'{ours}/bias'] = Tensor(f'{theirs}.bias', 'D')
  return tensors


GPT2 = Family(
  architecture='GPT2LMHeadModel',
  model_type='gpt2',
  rules=(
    Field('vocab_size', 'vocab_size'),
    Field('n_embd', 'embed_dim'),
    Field('n_layer', 'num_layers'),
    Field('n_inner', 'mlp_dim', default=_mlp_width),
    # `n_head` gives two of our fields. When it is written, the last rule decides.
    Field('n_head', 'num_kv_heads'),
    Field('n_head', 'num_heads'),
    Computed('head_dim', _head_width),
    Field('n_positions', 'max_len'),
    Field('layer_norm_epsilon', 'norm_eps', float, default=1e-5),
    Field('tie_word_embeddings', 'tie_embeddings', bool, default=True),
    Field('activation_function', 'activation', str, default='gelu_new', values=_GELU),
    Only('scale_attn_weights', (True,)),
    Only('scale_attn_by_inverse_layer_idx', (False,)),
    Only('add_cross_attention', (False,)),
    Unread(('reorder_and_upcast_attn',)),  # changes rounding only
  ),
  tensors=_tensors(),
  fixed={
    'norm': 'layernorm',
    'position': 'learned',
    'attention_bias': 'all',
    'mlp_bias': True,
  },
  buffers=r'(transformer\.)?h\.\d+\.attn\.(masked_)?bias',
)
