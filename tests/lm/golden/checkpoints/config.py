"""The runs that the golden checkpoints are taken from: two layers of width 16 on a small text.

Variants: adamw (a tied head) and muon (a head of its own, and biases). Only fields that existed
when the checkpoints were made are set: those added since have to mean "as before" by default.
"""

from configs import base

TEXT = 'tests/lm/golden/checkpoints/text.txt'


def get_config(arg):
  c = base.get_config()
  c.steps, c.batch_size, c.seq_len, c.log_every = 5, 4, 16, 1
  c.data.train, c.data.tokenizer, c.data.held_out = TEXT, 'bytes', 0.0
  c.model.update(num_layers=2, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8)
  c.model.update(mlp_dim=32, max_len=16)
  c.optim.update(name=arg, lr=1e-2, warmup=1)
  if arg == 'muon':
    c.model.update(tie_embeddings=False, attention_bias='qkv')
  c.eval.batch_size = 4
  c.checkpoint.every = 3
  return c
