"""Reinforcement learning by PPO, with a value head, on problems with checkable answers.

The values, which the scalar head predicts from the policy's own hidden states, take the place of a
group's mean reward: one answer of a question is enough (arXiv 1707.06347; gae_lambda is that of
InstructGPT, arXiv 2203.02155).

Command:   python train.py --config=configs/ppo.py --workdir=runs/ppo
             --config.init_from=runs/quickstart/sft
Hardware:  whatever holds the model three times: the policy, its optimizer's moments, the reference.
Result:    with --config.batch_size=128 and the quickstart's model, the mean reward on arithmetic
           rises from 0.18 to 0.94 in twelve steps, the first five of which train the values.
Time:      three minutes for these twelve steps on two CPU cores, 24 new tokens at most.
:smoke     a two-layer model for bytes, started from scratch, which learns nothing in its three
           updates: half a minute on two cores.
"""

from configs import rl
from lm.base.config import variant


def get_config(arg=None):
  c = rl.get_config(arg)
  c.model.heads = ('vocabulary', 'scalar')
  c.rl.update(
    advantage='gae',
    group_size=1,
    inner_updates=2,
    clip_high=0.2,
    kl=0.02,
    kl_estimator='k1',
    kl_in='reward',
    gae_lambda=0.95,
    value_warmup=5,
  )
  if variant(arg) == 'smoke':
    c.steps, c.batch_size = 3, 16
    c.rl.update(value_warmup=1, rollouts_every=2)
  return c
