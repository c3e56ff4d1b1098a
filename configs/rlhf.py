"""Reinforcement learning from human feedback: PPO against a reward model, held near its start.

The reward of an answer is what a reward model (configs/reward.py) gives it, less the divergence
from the model that training started from (InstructGPT, arXiv 2203.02155, section 3.5). The reward
model only stands for what is wanted. So its reward, rl/proxy, is logged beside the true one where a
program can give it, rl/gold: of the answers of each step, and of answers to test problems as
eval/rewards/proxy and eval/rewards/gold. rl/answer_kl is the divergence of whole answers, in nats.

Command:   python train.py --config=configs/rlhf.py --workdir=runs/rlhf
             --config.init_from=runs/sft --config.rl.reward_model=runs/reward
             --config.data.tasks=TASK,... --config.rl.gold=style
           --config.rl.grade_weight=1 adds the grade of the answer's task to its reward. Several
           reward models, separated by commas, count as their mean.
Hardware:  whatever holds the model three times, and the reward model.
Result:    rl/proxy rises. Where rl/gold falls meanwhile, raise --config.rl.kl or stop earlier.
           Measured with two models of configs/overoptimization.py: init_from its run sft, and
           reward_model its reward_large_1600; tasks=comparison, gold=manners, 60 updates of 64
           answers of 40 tokens, optim.lr=1e-3, rl.health.max_repeats=1. On test problems PPO raises
           the proxy from -0.40 to 1.35 and gold from 0.52 to 1.85, at 9 nats. With :grpo the proxy
           rises to 2.10, and gold turns: of the answers of updates 1, 10 and 60 it is 0.47, 1.19
           and 0.91, at 0, 4 and 35 nats.
Time:      two and a half minutes of one core for these 60 updates.
:grpo      the same with GRPO's advantage: no values, eight answers to each question.
:smoke     a two-layer model for bytes, started from scratch, against the model of
           configs/reward.py:smoke, which runs/reward-smoke is to hold: half a minute on two cores.
"""

from configs import base, ppo
from lm.base.config import variant


def get_config(arg=None):
  name = variant(arg, ('grpo', 'smoke'))
  plain, c = base.get_config(), ppo.get_config('smoke' if name == 'smoke' else None)
  c.rl.update(reward_model='runs/reward', grade_weight=0.0)
  c.eval.update(tasks_every=20, examples=256)
  if name == 'grpo':
    c.model.heads = ('vocabulary',)
    c.rl.update(advantage='grpo', group_size=8, kl_estimator='k3', kl_in='loss', clip_high=0.2)
    c.rl.update({field: plain.rl[field] for field in ('gae_lambda', 'value_warmup')})
  if name == 'smoke':
    c.rl.update(reward_model='runs/reward-smoke', gold='style', format_reward=0.0)
    c.eval.update(tasks='', tasks_every=2, examples=8, batch_size=8)
    c.eval.max_new_tokens = plain.eval.max_new_tokens  # answers are as long as those of training
  return c
