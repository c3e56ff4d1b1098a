"""Qwen3 0.6B (Yang et al. 2025, arXiv 2505.09388): grouped-query attention with RMSNorm of heads.

Command:   python train.py --config=configs/qwen3_0_6b.py --workdir=runs/qwen3_0_6b
             --config.data.tokenizer=tokenizer.json --config.data.train=MANIFEST
           The tokenizer must have 151,936 ids.
Hardware:  8 TPU v5e chips or GPUs, or more.
Result:    the published shape; the schedule is this project's.
:smoke     a tiny Qwen3 on this repository's source, as bytes: 30 seconds on two cores.
"""

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_config()
  # An update has 2,097,152 tokens.
  c.steps, c.batch_size, c.microbatches, c.seq_len = 500_000, 512, 8, 4096
  c.model.update(
    vocab_size=151_936,
    num_layers=28,
    embed_dim=1024,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    mlp_dim=3072,
    max_len=32_768,
    rope_theta=1_000_000.0,
    norm_eps=1e-6,
    qk_norm='head',
    dtype='bfloat16',
    remat='full',
  )
  c.mesh.update(data=1, fsdp=-1)
  c.optim.update(lr=1e-3, warmup=2000)
  c.eval.batch_size = 64
  if variant(arg) == 'smoke':
    base.smoke(c)
  return c
