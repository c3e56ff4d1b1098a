"""The over-optimisation lab: how far a reward model may be optimised before the truth turns.

After Gao, Schulman and Hilton (arXiv 2210.10760), in small. A gold reward is known
(data/preferences/manners.py: courtesies please, but more than two do not), and labels comparisons,
a fifth of them wrongly. Reward models of three sizes learn from three amounts of them. A policy is
optimised against each, by best-of-n and by reinforcement learning, and against one of them with
several weights beta of the divergence from where it started.

Command:   python train.py --config=configs/overoptimization.py [--workdir=runs/overoptimization]
Hardware:  two CPU cores.
Result:    runs/overoptimization/report.html: proxy and gold by the square root of the divergence,
           their fits R = d (a - b d) and R = d (a - b log d), and the answers that proxies rank
           first.
           points.jsonl has the points, from which the fits follow.
           Measured with seed 0, in standard deviations of the first answers' rewards: RL without a
           penalty raises every proxy to the end, by 0.8 to 1.9. Gold first rises with it, by up to
           0.6, and then turns: against each of the six proxies of 48 and 80 channels it ends below
           its start, by 0.2 to 0.8, whether they saw 100 comparisons (0.66 of new pairs in the true
           order) or 1,600 (0.91). Against the three proxies of 16 channels it has not turned yet.
           With a penalty gold ends above its start (by 0.2 to 0.7). The best of 64 answers, 3.2
           nats away, raise gold by 0.6 to 1.4, the more the better the proxy.
Time:      25 minutes on one core that other work shared, 16 of them in use.
:smoke     every step with smaller models and few updates.
"""

from ml_collections import ConfigDict

from configs import base
from lm.base.config import variant

SIZES = {'small': (1, 16), 'medium': (2, 48), 'large': (3, 80)}  # of proxies: layers and width
POLICY = (2, 64)
COMPARISONS = (100, 400, 1600)  # problems with two answers each
SWEPT = 'medium_400'  # the proxy for which there are also runs with the weights BETAS
BETAS = (0.03, 0.1, 0.3)


def get_config(arg=None):
  is_smoke = variant(arg) == 'smoke'
  sizes, amounts, betas = SIZES, COMPARISONS, {SWEPT: BETAS}
  if is_smoke:
    sizes, amounts, betas = {'small': (1, 16)}, (100,), {'small_100': (0.1,)}
  c = ConfigDict()
  c.stage = 'recipe'
  c.workdir = 'runs/overoptimization' + ('-smoke' if is_smoke else '')
  add_start(c)
  proxies = {f'{size}_{n}': (*sizes[size], n) for size in sizes for n in amounts}
  for name, shape in proxies.items():
    c[f'reward_{name}'] = new_reward(*shape)
  c.best_of = new_samples(','.join(f'{{workdir}}/reward_{name}' for name in proxies), 64)
  c.best_of.eval.examples = 128
  policies = []
  for name in proxies:
    for number, beta in enumerate((0.0, *betas.get(name, ()))):
      policies.append(f'rl_{name}_{number}')
      c[policies[-1]] = new_rl(f'{{workdir}}/reward_{name}', beta)
  rewards = (f'reward_{name}' for name in proxies)
  first = ('answers', 'tokenizer', 'sft')
  c.stages = (*first, *rewards, 'best_of:best_of', *policies, 'overoptimization')
  base.share_seed(c)
  if is_smoke:
    shrink(c)
  return c


def add_start(c):
  """Adds what all begins from: answers, a tokenizer of their text, and a model that gives such."""
  c.answers = ConfigDict({'tasks': 'comparison', 'gold': 'manners', 'examples': 6000, 'seed': 0})
  c.tokenizer = ConfigDict({'vocab_size': 360, 'held_out': 0.0})
  c.sft = new_run('sft', *POLICY)
  c.sft.data.update(train='{workdir}/answers.jsonl', held_out=0.02)
  c.sft.data.tokenizer = '{workdir}/tokenizer/tokenizer.json'
  c.sft.steps, c.sft.batch_size, c.sft.seq_len, c.sft.loss.chunk = 300, 16, 128, 1024
  c.sft.optim.update(lr=3e-3, warmup=20)


def shrink(c):
  """Makes every run of a recipe a few steps."""
  c.answers.examples, c.tokenizer.vocab_size = 300, 300
  for name, part in c.items():
    if isinstance(part, ConfigDict) and 'stage' in part:
      part.batch_size, part.eval.examples = min(part.batch_size, 32), 8
      part.data.examples = min(part.data.examples, 100)
      if part.rl.reward_model:
        part.rl.update(group_size=4, max_new_tokens=16)
      if name in c.stages:  # a training run
        part.steps, part.optim.warmup = 6, 1
      if part.stage == 'rl':
        part.rl.rollouts_every = 3


def new_run(stage, layers, width):
  """Returns a training run of a model of so many layers and this width."""
  c = base.get_config()
  c.stage = stage
  c.model.update(
    num_layers=layers,
    embed_dim=width,
    num_heads=4,
    num_kv_heads=4,
    head_dim=width // 4,
    mlp_dim=3 * width,
    qk_norm='head',
    max_len=128,
    scan_layers=False,
  )
  c.optim.update(weight_decay=0.0)
  c.checkpoint.every, c.log_every = 100_000, 10
  c.eval.update(every=100_000, batch_size=32, tasks='', prompts=())
  return c


def new_reward(layers, width, count):
  """Returns a reward model that learns from `count` problems with two answers each."""
  c = new_run('reward', layers, width)
  c.model.heads = ('vocabulary', 'scalar')
  c.data.tokenizer = '{workdir}/tokenizer/tokenizer.json'
  c.data.update(tasks='comparison', examples=count, task_seed=1)
  c.preference.update(gold='manners', noise=0.2)
  c.reward.center = 0.01
  c.steps, c.batch_size, c.seq_len = 120, 64, 64
  c.optim.update(lr=2e-3, warmup=20)
  return c


def new_samples(reward_model, count):
  """Returns a job of lm.best_of that samples `count` answers to each test problem."""
  c = base.get_config()
  c.init_from, c.batch_size, c.seq_len = '{workdir}/sft', 1024, 64
  c.data.task_seed = 2
  c.model.scan_layers = False
  c.eval.update(tasks='comparison', examples=200)
  c.rl.update(reward_model=reward_model, gold='manners', group_size=count, max_new_tokens=40)
  return c


def new_rl(reward_model, beta):
  """Returns a run of RL from the fine-tuned model against a reward model."""
  c = base.get_config()
  c.stage, c.init_from = 'rl', '{workdir}/sft'
  c.data.update(tasks='comparison', task_seed=2)
  c.steps, c.batch_size, c.seq_len = 35, 64, 64
  c.optim.update(lr=1e-3, warmup=5, schedule='constant', weight_decay=0.0)
  c.loss.chunk = 1024
  c.model.scan_layers = False
  c.rl.update(
    reward_model=reward_model,
    gold='manners',
    advantage='rloo',
    aggregation='constant',
    filter_groups=False,
    group_size=8,
    max_new_tokens=40,
    grade_weight=0.0,
    rollouts_every=10,
    log_kl=True,
  )
  if beta:
    c.rl.update(kl=beta, kl_in='reward', kl_estimator='k1')
  c.rl.health.max_repeats = 1.0  # Repeating a courtesy is what a policy is to be caught at.
  c.checkpoint.every, c.log_every = 100_000, 1
  c.eval.update(every=100_000, batch_size=64, examples=64)
  return c
