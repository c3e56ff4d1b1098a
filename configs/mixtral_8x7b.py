"""Mixtral 8x7B (Jiang et al. 2024, arXiv 2401.04088): two of eight experts for each token.

12.9 of the 46.7 billion parameters are used for a token.

Command:   python train.py --config=configs/mixtral_8x7b.py --workdir=gs://BUCKET/mixtral
             --config.data.tokenizer=tokenizer.json --config.data.train=MANIFEST
           The tokenizer must have 32,000 ids.
Hardware:  a TPU v5p slice of 64 chips or more.
Result:    the published shape; the schedule is this project's.
:smoke     a tiny mixture of experts on this repository's source, as bytes: 30 seconds on two
           cores.
"""

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_config()
  # An update has 4,194,304 tokens.
  c.steps, c.batch_size, c.microbatches, c.seq_len = 500_000, 1024, 8, 4096
  c.model.update(
    vocab_size=32_000,
    num_layers=32,
    embed_dim=4096,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    mlp_dim=14_336,
    max_len=32_768,
    rope_theta=1_000_000.0,
    tie_embeddings=False,
    num_experts=8,
    experts_per_token=2,
    dtype='bfloat16',
    remat='full',
  )
  c.mesh.update(data=1, fsdp=-1)
  c.optim.update(lr=3e-4, warmup=2000)
  c.eval.batch_size = 128
  if variant(arg) == 'smoke':
    base.smoke(c)
  return c
