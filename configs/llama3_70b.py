"""Llama 3 70B (Grattafiori et al. 2024, arXiv 2407.21783, table 3): configs/llama3_8b.py at another
size.

Command:   as configs/llama3_8b.py
Hardware:  a TPU v5p slice of 128 chips or more.
Result:    with the published data and compute, the published model; here the shape and the recipe.
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
