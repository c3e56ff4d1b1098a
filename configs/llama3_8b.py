"""Llama 3 8B (Grattafiori et al. 2024, arXiv 2407.21783) on 15 trillion tokens, context 8,192.

Command:   python train.py --config=configs/llama3_8b.py --workdir=gs://BUCKET/llama3_8b
             --config.data.tokenizer=llama3.tiktoken:llama3:specials.json
             --config.data.train=MANIFEST
           The tokenizer must have 128,256 ids, the special tokens included.
Hardware:  a TPU v5e slice of 256 chips, with a row of 8,192 tokens on each; or 64 chips of v5p.
Result:    the published shape (table 3) and recipe. With the published data and compute it would
           be the published model.
:smoke     a tiny Llama on this repository's source, as bytes: 30 seconds on two cores.
"""

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_config()
  c.steps, c.batch_size, c.seq_len = 1_200_000, 1024, 8192  # an update has 8,388,608 tokens
  c.microbatches = 4
  c.model.update(
    vocab_size=128_256,
    num_layers=32,
    embed_dim=4096,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    mlp_dim=14_336,
    max_len=8192,
    rope_theta=500_000.0,
    tie_embeddings=False,
    dtype='bfloat16',
    remat='full',
    attention='splash',
    mlp_blocks=4,
  )
  c.loss.vocab_blocks = 16
  c.mesh.update(data=1, fsdp=-1)
  c.optim.update(lr=3e-4, warmup=8000, final_lr=0.01)
  c.eval.batch_size = 256
  c.checkpoint.update(every=1000, keep_every=50_000)
  if variant(arg) == 'smoke':
    base.smoke(c)
  return c
