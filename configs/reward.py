"""A reward model: a scalar head on a fine-tuned model that learns from comparisons of answers.

Command:   python train.py --config=configs/reward.py --workdir=runs/reward
             --config.init_from=runs/sft --config.data.train='comparisons/*.jsonl'
           Each line of a file is {"prompt": ..., "chosen": ..., "rejected": ...}, or a row of
           another form (data/README.md). For UltraFeedback's four answers to a prompt, add
           --config.reward.group_size=4.
Hardware:  whatever fine-tunes the model.
Result:    eval/val/accuracy and eval/val/calibration_error, with intervals in report.json. The
           learning rate is that of Llama 2's reward models (arXiv 2307.09288, section 3.2.2).
:noise     a tiny model for bytes, from scratch, on comparisons by a gold reward, 20 % of which have
           the wrong label, so that no model orders more than 80 % as they are labelled. Measured:
           held-out accuracy 77.6 % [75.8, 79.3] of 2,178 comparisons, 96 % of the true order;
           calibration error .11, since labels that are wrong at random are not Bradley-Terry's:
           80 % are as predicted wherever the model is sure. Two and a half minutes on two cores.
:smoke     twenty updates of the same: 40 seconds.
"""

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_config()
  c.stage = 'reward'
  c.steps, c.batch_size, c.seq_len = 1000, 64, 1024
  c.model.heads = ('vocabulary', 'scalar')
  c.reward.center = 0.01
  c.optim.update(lr=1e-5, weight_decay=0.0, warmup=30)
  name = variant(arg, ('smoke', 'noise'))
  if name:
    base.smoke(c)
    c.data.train, c.data.tasks, c.data.examples = '', 'arithmetic', 2000
    c.preference.update(gold='style', noise=0.2)
    c.reward.group_size = 4
    c.optim.update(lr=3e-3, warmup=20)
    c.eval.update(prompts=(), max_new_tokens=64)  # a reward model writes nothing
  if name == 'noise':
    c.steps, c.batch_size, c.microbatches, c.seq_len = 900, 32, 1, 96
    c.data.examples = 8000
    c.eval.update(every=300, batch_size=32)
    c.checkpoint.every, c.log_every = 300, 20
  return c
