"""Rejection sampling: the best of several answers are fine-tuned on, in rounds (Llama 2).

In each round the policy answers new problems, a reward model ranks the answers to each, and the
policy is fine-tuned on the best ones (arXiv 2307.09288, section 3.2.3). The gold reward, tasks and
models are those of configs/overoptimization.py.

Command:   python train.py --config=configs/rejection.py [--workdir=runs/rejection]
           With models of your own: --config.stages="('best_of:sample_1','round_1','rounds')"
           --config.sample_1.init_from=RUN --config.sample_1.rl.reward_model=RUN
           --config.round_1.init_from=RUN; tasks and lengths are fields of sample_1 and round_1.
           With --config.sample_1.rl.reward_model= the gold reward chooses.
Hardware:  two CPU cores.
Result:    runs/rejection/report.html: proxy and gold of single answers and of the best ones, by
           round. Measured with seed 0, over the first policy and three rounds: the gold reward of
           single answers 0.58, 1.18, 1.38, 1.61; the proxy's -0.10, 0.86, 1.52, 2.00.
Time:      20 minutes of one core, most of them in sampling.
:smoke     one round with smaller models and few updates.
"""

from ml_collections import ConfigDict

from configs import base
from configs import overoptimization as lab
from lm.base.config import variant

ROUNDS = 3
EACH = 8  # answers to a problem


def get_config(arg=None):
  is_smoke = variant(arg) == 'smoke'
  rounds = 1 if is_smoke else ROUNDS
  c = ConfigDict()
  c.stage = 'recipe'
  c.workdir = 'runs/rejection' + ('-smoke' if is_smoke else '')
  lab.add_start(c)
  c.reward = lab.new_reward(*lab.SIZES['medium'], 1600)
  jobs, policy = ['reward'], '{workdir}/sft'
  for number in range(1, rounds + 2):
    samples = c[f'sample_{number}'] = lab.new_samples('{workdir}/reward', EACH)
    samples.init_from = policy
    samples.data.update(tasks='comparison', task_seed=10 + number, examples=1000)
    jobs.append(f'best_of:sample_{number}')
    if number > rounds:
      samples.data.tasks = ''  # the last policy is only measured
      break
    tuned = c[f'round_{number}'] = lab.new_run('sft', *lab.POLICY)
    tuned.init_from, tuned.data.held_out = policy, 0.0
    tuned.data.train = f'{{workdir}}/sample_{number}/best.jsonl'
    tuned.steps, tuned.batch_size, tuned.seq_len, tuned.loss.chunk = 60, 16, 128, 1024
    tuned.optim.update(lr=1e-3, warmup=5)
    jobs.append(f'round_{number}')
    policy = f'{{workdir}}/round_{number}'
  c.stages = ('answers', 'tokenizer', 'sft', *jobs, 'rounds')
  base.share_seed(c)
  if is_smoke:
    lab.shrink(c)
  return c
