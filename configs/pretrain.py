"""Pretraining on token shards or on any text.

Command:   python train.py --config=configs/pretrain.py --workdir=runs/pretrain
             --config.data.train='texts/*.txt'
Hardware:  one TPU v5e chip or one GPU for this size, GPT-2 124M.
Result:    a validation loss near 3.28 nats with 10B tokens of FineWeb (llm.c, discussion 481).
:smoke     a two-layer model on this repository's own source, as bytes, from 8.0 to 5.1 bits per
           byte: 30 seconds on two cores.
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
