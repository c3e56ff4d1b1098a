"""GPT-2 1558M: configs/gpt2_124m.py at another size, on 32 billion tokens.

Command:   as in configs/gpt2_124m.py.
Hardware:  8 H100 or a TPU v5e slice.
Result:    over 48.9 % on HellaSwag, as llm.c reports (discussion 481).
Time:      24 hours on 8 H100 in llm.c.
:smoke     a tiny GPT-2 on this repository's source, as bytes: 30 seconds on two cores.
"""

from configs import base, gpt2_124m
from lm.base.config import variant


def get_config(arg=None):
  c = gpt2_124m.get_config()
  c.batch_size, c.microbatches = 1024, 64  # an update has 1,048,576 tokens
  c.steps, c.optim.lr = 30_500, 6e-4
  c.model.update(
    num_layers=48, embed_dim=1600, num_heads=25, num_kv_heads=25, mlp_dim=6400, remat='full'
  )
  c.mesh.update(data=1, fsdp=-1)
  if variant(arg) == 'smoke':
    base.smoke(c)
  return c
