"""Fine-tuning on pairs of answers, one of which was preferred: DPO, IPO, KTO or ORPO.

Command:   python train.py --config=configs/dpo.py --workdir=runs/dpo
             --config.init_from=runs/sft --config.data.train='pairs/*.jsonl'
           Each line of a file is {"prompt": ..., "chosen": ..., "rejected": ...}, or a row of
           another form (data/README.md). --config.preference.loss=ipo, kto or orpo.
Hardware:  whatever fine-tunes the model; a pair takes the memory of two rows, and all losses but
           ORPO's that of another copy of the parameters.
Result:    preference/accuracy, the fraction of pairs that the model ranks correctly, rises from
           0.5. The learning rate is that of Zephyr (arXiv 2310.16944).
:smoke     twenty updates of a tiny model for bytes, started from scratch.
"""

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_config()
  c.stage = 'preference'
  c.steps, c.batch_size, c.seq_len = 1000, 32, 1024
  c.optim.update(lr=5e-7, weight_decay=0.0, warmup=100)
  if variant(arg) == 'smoke':
    base.smoke(c)
    # Without files, tasks make the pairs: the rejected answer is that of another problem.
    c.data.train, c.data.tasks, c.data.examples = '', 'arithmetic,comparison', 200
    c.optim.update(lr=1e-3)
  return c
