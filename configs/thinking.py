"""What tokens to think and a tool are worth: a recipe on problems that are answered in three ways.

A model is trained from scratch on sums, letters to count, decimals to compare, lists to sort and
sums of dates. Each problem is answered at once, in steps, and by a Python program, in equal shares
(data/tasks/ways.py). It is one model, told by the first words of a question which way is wanted:
then all three have the same weights and the same problems, and differ in nothing but their tokens.
Tokens are bytes, so that the model sees digits and letters.

Command:   python train.py --config=configs/thinking.py [--workdir=runs/thinking]
Hardware:  two CPU cores; Linux, for the sandbox of Python (data/README.md).
Result:    runs/thinking/report.html: accuracy on held-out problems by the tokens allowed. With
           seed 0, on 512 problems each, .20 are right at once within 4 tokens and .39 within 32;
           in steps .30 within 64 tokens; with Python .46 within 32, .67 within 64, .85 within 128.
           Sums of four digits: 0, .04 and .90. After so few updates, steps are right more often
           than answers at once for sums alone.
Time:      31 minutes beside other jobs, 20 minutes of one core.
:smoke     every step with a smaller model and few updates.
"""

from ml_collections import ConfigDict

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = ConfigDict()
  c.stage = 'recipe'
  c.stages = ('sft', 'thinking')
  c.workdir = 'runs/thinking'
  c.sft = base.get_config()
  c.sft.stage = 'sft'
  c.sft.data.tasks = 'at_once,in_steps,with_python'
  c.sft.data.examples, c.sft.data.turns, c.sft.data.held_out = 21_000, 1, 0.01
  c.sft.steps, c.sft.batch_size, c.sft.seq_len = 620, 16, 160
  c.sft.tools.names = 'python'
  c.sft.model.update(
    num_layers=4,
    embed_dim=192,
    num_heads=4,
    num_kv_heads=4,
    head_dim=48,
    mlp_dim=576,
    qk_norm='head',
    max_len=160,
    scan_layers=False,
  )
  c.sft.loss.chunk = 1024
  c.sft.optim.update(
    name='muon', lr=3e-3, muon_lr=0.02, warmup=10, schedule='wsd', decay=0.4, weight_decay=0.0
  )
  c.sft.checkpoint.every, c.sft.log_every = 200, 10
  c.sft.eval.update(
    every=100_000,
    batch_size=64,
    tasks=c.sft.data.tasks,
    examples=512,
    max_new_tokens=129,
    limits=(1, 2, 4, 8, 16, 32, 64, 128),
  )
  base.share_seed(c)
  if variant(arg) == 'smoke':
    c.workdir = 'runs/thinking-smoke'
    c.sft.model.update(num_layers=1, embed_dim=64, num_heads=2, num_kv_heads=2, mlp_dim=128)
    c.sft.data.examples, c.sft.steps = 600, 12
    c.sft.eval.update(examples=24, batch_size=24, max_new_tokens=17, limits=(1, 4, 16))
  return c
