"""SmolLM2 135M (Ben Allal et al. 2025, arXiv 2502.02737): a small Llama, trained on many tokens.

Command:   python train.py --config=configs/smollm2_135m.py --workdir=runs/smollm2_135m
             --config.data.tokenizer=tokenizer.json --config.data.train=MANIFEST
           The tokenizer must have 49,152 ids.
Hardware:  one TPU v5e chip or one GPU; 64 chips for the published two trillion tokens.
Result:    the published shape. `python -m lm.chat --model=smollm2` runs the published weights.
:smoke     a tiny Llama on this repository's source, as bytes: 30 seconds on two cores.
"""

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_config()
  # An update has 2,097,152 tokens.
  c.steps, c.batch_size, c.microbatches, c.seq_len = 1_000_000, 1024, 16, 2048
  c.model.update(
    vocab_size=49_152,
    num_layers=30,
    embed_dim=576,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    mlp_dim=1536,
    max_len=8192,
    rope_theta=100_000.0,
    dtype='bfloat16',
  )
  c.optim.update(lr=3e-3, warmup=2000, schedule='wsd', decay=0.2)
  c.eval.batch_size = 64
  if variant(arg) == 'smoke':
    base.smoke(c)
  return c
