"""GPT-2 774M: configs/gpt2_124m.py at another size, on 150 billion tokens.

Command:   as in configs/gpt2_124m.py.
Hardware:  8 GPUs or a TPU v5e slice.
Result:    a lower loss than the 350M model's.
:smoke     a tiny GPT-2 on this repository's source, as bytes: 30 seconds on two cores.
"""

from configs import base, gpt2_124m
from lm.base.config import variant


def get_config(arg=None):
  c = gpt2_124m.get_config()
  c.steps, c.optim.lr = 286_000, 2.5e-4
  c.model.update(
    num_layers=36, embed_dim=1280, num_heads=20, num_kv_heads=20, mlp_dim=5120, remat='full'
  )
  c.mesh.update(data=1, fsdp=-1)
  if variant(arg) == 'smoke':
    base.smoke(c)
  return c
