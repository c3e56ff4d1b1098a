"""Reinforcement learning by policy gradients on problems with checkable answers.

The algorithm is GRPO with DAPO's mean over tokens; configs/README.md has the fields of others.

Command:   python train.py --config=configs/rl.py --workdir=runs/rl
             --config.init_from=runs/quickstart/sft
Hardware:  whatever holds the model twice.
Result:    greedy accuracy on held-out arithmetic rises by more than 20 points (see the
           quickstart's report).
Time:      two minutes for the quickstart's model on two CPU cores.
:smoke     a two-layer model for bytes, started from scratch, which learns nothing in its four
           updates: 40 seconds on two cores.
:stop      the same model, rewarded for well-formed answers that end within 16 tokens, which random
           ones seldom do: in 29 updates the share that is cut off falls from 0.96, 0.98 and 0.92 to
           0.07, 0.06 and 0.02 (seeds 0, 1 and 2; under a minute on one core).
"""

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_config()
  c.stage = 'rl'
  c.init_from = 'runs/quickstart/sft'
  c.data.tasks = 'arithmetic'
  c.steps, c.batch_size, c.seq_len = 60, 256, 256
  c.optim.update(lr=1e-4, warmup=5, schedule='constant', weight_decay=0.0)
  c.rl.log_kl = True
  c.log_every = 1
  name = variant(arg, ('smoke', 'stop'))
  if name:
    c.init_from = ''
    c.steps, c.batch_size, c.microbatches, c.seq_len = 4, 32, 2, 160
    c.model.update(base.TINY)
    c.optim.warmup = 1
  if name == 'stop':
    c.steps, c.batch_size, c.microbatches = 30, 128, 1
    c.rl.update(max_new_tokens=16, format_reward=1.0, log_kl=False, rollouts_every=10)
    c.optim.lr = 3e-3
  if name == 'smoke':
    c.rl.update(group_size=8, max_new_tokens=16, kl=0.01, format_reward=0.1, inner_updates=2)
    c.eval.update(tasks_every=2, batch_size=8, tasks='arithmetic', examples=8, max_new_tokens=16)
    c.checkpoint.every = 2
  return c
