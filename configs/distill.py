"""What RL does to a model, and what its right answers are worth to a smaller one: a recipe on sums.

A model is tuned to add numbers of two to four digits; some demonstrations derive the sum in steps
(data/tasks/sums.py). It then practises by GRPO, and apart from that by Dr. GRPO. A smaller model,
tuned alike, practises by GRPO itself (small_rl), or is tuned on the right answers that the larger
one gave while it practised, with all their steps (distilled): the comparison of DeepSeek-R1 (2025,
arXiv 2501.12948, section 4.1), in small.

Command:   python train.py --config=configs/distill.py [--workdir=runs/distill]
Hardware:  two CPU cores.
Result:    runs/distill/report.html. Measured on 256 held-out sums, greedy, with seeds 0, 1 and 2:
           the fine-tuned model .18, .20, .18; after GRPO .86, .84, .85; after Dr. GRPO .88, .86,
           .85. Of samples, pass@1 is .11, .16, .13, and .76, .75, .77 after GRPO; pass@8 .48, .61,
           .56, and .89, .91, .89. While the reward rises from .09, .16, .12 to about .8, answers
           grow from 14, 17, 20 tokens to about 50, under Dr. GRPO too: sums that are derived in
           steps win over sums that are guessed. The smaller model, seed 0: .18 fine-tuned, .79
           after GRPO of its own, .85 tuned on the larger one's right answers: distillation wins, as
           in R1's table.
Time:      25 minutes of one core.
:smoke     every step with smaller models and few updates. They answer nothing rightly, so that
           `distilled` is tuned on demonstrations.
"""

from ml_collections import ConfigDict

from configs import base
from lm.base.config import variant

LARGE = {'num_layers': 3, 'embed_dim': 160, 'num_heads': 4, 'head_dim': 40, 'mlp_dim': 480}
SMALL = {'num_layers': 2, 'embed_dim': 96, 'num_heads': 4, 'head_dim': 24, 'mlp_dim': 288}


def get_config(arg=None):
  c = ConfigDict()
  c.stage = 'recipe'
  c.stages = ('sft', 'teacher', 'small', 'small_rl', 'distilled', 'dr_grpo', 'distillation')
  c.workdir = 'runs/distill'
  for name in c.stages[:-1]:
    c[name] = run = base.get_config()
    run.stage, run.batch_size, run.seq_len = 'sft', 16, 128
    run.data.tasks, run.data.turns, run.data.held_out = 'sums', 1, 0.01
    run.tools.names = ''
    run.model.scan_layers, run.loss.chunk = False, 1024
    run.checkpoint.every, run.log_every = 50, 10
    run.eval.update(
      every=100_000,
      batch_size=128,
      tasks='sums',
      examples=256,
      max_new_tokens=80,
      pass_at=(1, 2, 4, 8),
      pass_samples=8,
    )
    run.optim.update(
      name='muon', lr=3e-3, muon_lr=0.02, warmup=10, schedule='wsd', decay=0.4, weight_decay=0.0
    )
  for name, size in (('sft', LARGE), ('small', SMALL)):
    c[name].model.update(**size, num_kv_heads=4, qk_norm='head', max_len=128)
    c[name].data.examples, c[name].steps = 10_000, 400
  for name, start in (('teacher', 'sft'), ('dr_grpo', 'sft'), ('small_rl', 'small')):
    run = c[name]
    run.stage, run.init_from = 'rl', f'{{workdir}}/{start}'
    run.steps, run.batch_size, run.log_every = 45, 128, 1
    run.rl.update(group_size=8, max_new_tokens=80, filter_groups=False, clip_high=0.2)
    run.rl.aggregation = 'sequence'
    run.optim.update(name='adamw', lr=5e-4, warmup=3, schedule='constant')
  c.dr_grpo.rl.update(advantage='dr_grpo', aggregation='constant')
  c.distilled.init_from, c.distilled.steps = '{workdir}/small', 200
  c.distilled.data.train = '{workdir}/teacher/rollouts.jsonl'
  base.share_seed(c)
  if variant(arg) == 'smoke':
    c.workdir = 'runs/distill-smoke'
    c.distilled.data.train = ''
    for name in c.stages[:-1]:
      run = c[name]
      run.steps, run.data.examples = 4, 400
      run.optim.warmup = 1
      run.eval.update(examples=16, batch_size=16, max_new_tokens=16, pass_at=(1, 2), pass_samples=2)
      if run.stage == 'rl':
        run.batch_size, run.rl.group_size, run.rl.max_new_tokens = 8, 2, 8
    for name in ('sft', 'small'):
      c[name].model.update(num_layers=1, embed_dim=64, num_heads=2, num_kv_heads=2, head_dim=32)
  return c
