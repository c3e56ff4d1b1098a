"""Llama 3 405B (Grattafiori et al. 2024, arXiv 2407.21783): configs/llama3_8b.py at another size.

Command:   as in configs/llama3_8b.py.
Hardware:  a TPU v5p slice of 1,024 chips or more, and a batch of 128 rows or more.
Result:    the published shape (table 3) and recipe. With the published data and compute it would
           be the published model.
:smoke     a tiny Llama on this repository's source, as bytes: 30 seconds on two cores.
"""

from configs import base, llama3_8b
from lm.base.config import variant


def get_config(arg=None):
  c = llama3_8b.get_config()
  # With tensor parallelism the output of every part of a feed-forward block would be summed over
  # devices, so there is one part.
  c.model.update(num_layers=126, embed_dim=16_384, num_heads=128, mlp_dim=53_248, mlp_blocks=1)
  c.mesh.tensor = 8
  c.optim.lr = 8e-5
  if variant(arg) == 'smoke':
    base.smoke(c)
  return c
