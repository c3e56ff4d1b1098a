"""GPT-2 124M (Radford et al. 2019) by llm.c's recipe, on 10 billion tokens of FineWeb.

Command:   python train.py --config=configs/gpt2_124m.py --workdir=runs/gpt2_124m
             --config.data.tokenizer=gpt2.tiktoken:gpt2:specials.json
             --config.data.train=MANIFEST --config.data.val=MANIFEST
           The tokenizer must have GPT-2's 50,257 ids, end of text included. --sweep trains with
           several learning rates, one after the other (--parallel=N for several at a time,
           --print-commands for a scheduler).
Hardware:  one TPU v5e chip or one GPU; more are faster, if their number divides the 16 rows of a
           microbatch.
Result:    a validation loss near 3.28 nats, as llm.c reports (discussion 481).
Time:      94 minutes on 8 A100 in llm.c.
:smoke     a tiny GPT-2 on this repository's source, as bytes: 30 seconds on two cores.
"""

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_config()
  # An update has 524,288 tokens.
  c.steps, c.batch_size, c.microbatches, c.seq_len = 18_900, 512, 32, 1024
  c.model.update(
    vocab_size=50_257,
    num_layers=12,
    embed_dim=768,
    num_heads=12,
    num_kv_heads=12,
    head_dim=64,
    mlp_dim=3072,
    max_len=1024,
    activation='gelu',
    norm='layernorm',
    position='learned',
    attention_bias='all',
    mlp_bias=True,
    dtype='bfloat16',
  )
  c.optim.update(lr=6e-4, warmup=700, weight_decay=0.1, clip=1.0)
  if variant(arg) == 'smoke':
    base.smoke(c)
  return c


def sweep(add, arg=None):
  rates = (3e-3, 1e-2, 3e-2) if variant(arg) == 'smoke' else (3e-4, 6e-4, 1.2e-3, 2.4e-3)
  for lr in rates:
    add({'optim.lr': lr})
