"""A ladder of model sizes, and a scaling law that predicts the largest from the others.

The law is loss(C) = E + A C^-alpha, with C the training compute.

Command:   python train.py --config=configs/ladder.py --workdir=runs/ladder --sweep --fit
           --parallel=2 trains two sizes at a time. Without --config.data.train=MANIFEST and
           --config.data.val=MANIFEST, the data is this repository's own source, as bytes.
Hardware:  two CPU cores.
Result:    runs/ladder/ladder.md: the law with 90 % intervals, and the largest size's loss,
           predicted and measured: 1.15 nats per byte [0.96, 1.56] and 1.24 in the last run, on
           this repository's source.
Time:      nine minutes beside other jobs.
:smoke     smaller sizes, on fewer tokens: about a minute.
"""

from configs import base
from lm.base.config import variant

WIDTHS = (16, 24, 32, 48, 64, 96)  # of the residual stream; the loss of the last is predicted
SMOKE_WIDTHS = (8, 16, 24, 32, 40)
TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022
SMOKE_TOKENS_PER_PARAMETER = 2.5


def get_config(arg=None):
  is_smoke = variant(arg) == 'smoke'
  c = base.get_config()
  base.smoke(c)
  c.data.train = 'lm/*.py,lm/*/*.py,data/*.py,data/*/*.py,tests/*.py,tests/*/*.py'
  c.batch_size, c.microbatches = 8, 1
  c.model.update(num_layers=2, head_dim=8)
  c.optim.update(schedule='wsd', decay=0.3, warmup=5 if is_smoke else 20)
  c.eval.update(every=10_000, prompts=())
  c.checkpoint.every, c.log_every = 10_000, 50
  return c


def sweep(add, arg=None):
  is_smoke = variant(arg) == 'smoke'
  tokens = SMOKE_TOKENS_PER_PARAMETER if is_smoke else TOKENS_PER_PARAMETER
  for width in SMOKE_WIDTHS if is_smoke else WIDTHS:
    mlp, heads = 4 * width, width // 8
    parameters = 268 * width + 2 * (4 * width * width + 3 * width * mlp)
    steps = int(parameters * tokens) // (8 * 128)
    trial = {
      'model.embed_dim': width,
      'model.mlp_dim': mlp,
      'model.num_heads': heads,
      'model.num_kv_heads': heads,
      'steps': steps,
      'optim.lr': round(0.08 / width**0.5, 5),
    }
    add(trial, f'width={width}')
