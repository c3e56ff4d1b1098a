"""Pretraining on token shards or on any text.

Command:   python train.py --config=configs/pretrain.py --workdir=runs/pretrain --config.data.train='texts/*.txt'
Hardware:  GPT-2 124M as here: one TPU v5e chip or one GPU.
Result:    with 10B tokens of FineWeb a validation loss near 3.28 nats (llm.c, discussion 481).
:smoke     this repository's own source, as bytes, a two-layer model: 30 seconds on two cores, 8.0 -> 5.0 bits per byte.
"""

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_config()
  c.steps, c.batch_size, c.seq_len = 18_900, 512, 1024
  c.optim.warmup = 700
  if variant(arg) == 'smoke':
    base.smoke(c)
    c.eval.baselines = True
  return c
