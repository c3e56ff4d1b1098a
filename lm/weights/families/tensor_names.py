"""The tensor names that several families share, after those of Llama in transformers.

The axes of a layout are those of lm/model/transformer.py.
"""

from lm.weights.families.family import Tensor

LAYER = 'model.layers.{l}.'


def norm(ours: str, theirs: str) -> dict[str, Tensor]:
  """Returns the entry of a norm over the model's width, without bias."""
  return {f'{ours}/scale': Tensor(f'{theirs}.weight', 'D')}


def linear(ours: str, theirs: str, weight: str, bias: str) -> dict[str, Tensor]:
  """Returns the entries of a matrix and its bias, with their layouts."""
  return {
    f'{ours}/kernel': Tensor(f'{theirs}.weight', weight),
    f'{ours}/bias': Tensor(f'{theirs}.bias', bias),
  }


def routed_mlp(router: str, expert: str, gate: str, up: str, down: str) -> dict[str, Tensor]:
  """Returns the entries of a router and the matrices of each expert, under these names."""
  return {
    'layers/mlp/router/kernel': Tensor(f'{LAYER}{router}.weight', 'DE -> ED'),
    'layers/mlp/gate/kernel': Tensor(f'{LAYER}{expert}.{gate}.weight', 'DF -> FD'),
    'layers/mlp/up/kernel': Tensor(f'{LAYER}{expert}.{up}.weight', 'DF -> FD'),
    'layers/mlp/down/kernel': Tensor(f'{LAYER}{expert}.{down}.weight', 'FD -> DF'),
  }


# All but the feed-forward block and the norms of a layer.
BASE = {
  'embedding': Tensor('model.embed_tokens.weight', 'VD'),
  'head': Tensor('lm_head.weight', 'VD'),
  **norm('final_norm', 'model.norm'),
  **linear('layers/attention/q', f'{LAYER}self_attn.q_proj', 'DNH -> (NH)D', 'NH -> (NH)'),
  **linear('layers/attention/k', f'{LAYER}self_attn.k_proj', 'DKH -> (KH)D', 'KH -> (KH)'),
  **linear('layers/attention/v', f'{LAYER}self_attn.v_proj', 'DKH -> (KH)D', 'KH -> (KH)'),
  **linear('layers/attention/o', f'{LAYER}self_attn.o_proj', 'NHD -> D(NH)', 'D'),
}
MLP = {
  **linear('layers/mlp/gate', f'{LAYER}mlp.gate_proj', 'DF -> FD', 'F'),
  **linear('layers/mlp/up', f'{LAYER}mlp.up_proj', 'DF -> FD', 'F'),
  **linear('layers/mlp/down', f'{LAYER}mlp.down_proj', 'FD -> DF', 'D'),
}
# Norms of queries and keys, each head by itself.
HEAD_NORMS = {
  'layers/attention/q_norm/scale': Tensor(f'{LAYER}self_attn.q_norm.weight', 'H'),
  'layers/attention/k_norm/scale': Tensor(f'{LAYER}self_attn.k_norm.weight', 'H'),
}
# Norms before the two blocks of a layer, after them, or both.
PRE_NORMS = {
  **norm('layers/attention_norm', f'{LAYER}input_layernorm'),
  **norm('layers/mlp_norm', f'{LAYER}post_attention_layernorm'),
}
POST_NORMS = {
  **norm('layers/attention_post_norm', f'{LAYER}post_attention_layernorm'),
  **norm('layers/mlp_post_norm', f'{LAYER}post_feedforward_layernorm'),
}
BOTH_NORMS = {
  **POST_NORMS,
  **norm('layers/attention_norm', f'{LAYER}input_layernorm'),
  **norm('layers/mlp_norm', f'{LAYER}pre_feedforward_layernorm'),
}
LLAMA = BASE | MLP | PRE_NORMS
