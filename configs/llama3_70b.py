"""Llama 3 70B (Grattafiori et al. 2024, arXiv 2407.21783): configs/llama3_8b.py at another size.

Command:   as in configs/llama3_8b.py.
Hardware:  a TPU v5p slice of 128 chips or more.
Result:    the published shape (table 3) and recipe. With the published data and compute it would
           be the published model.
:smoke     a tiny Llama on this repository's source, as bytes: 30 seconds on two cores.
"""

from configs import base, llama3_8b
from lm.base.config import variant


def get_config(arg=None):
  c = llama3_8b.get_config()
  c.model.update(num_layers=80, embed_dim=8192, num_heads=64, mlp_dim=28_672)
  c.optim.lr = 1.5e-4
  if variant(arg) == 'smoke':
    base.smoke(c)
  return c
