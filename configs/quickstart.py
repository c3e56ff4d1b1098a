"""The whole road once, on two CPU cores: crawl, clean, tokenizer, tokenize, pretrain, sft, rl, report.

Command:   python train.py --config=configs/quickstart.py [--workdir=runs/quickstart]
Hardware:  two CPU cores, 6 GB of memory.
Result:    runs/quickstart/report.html
Time:      under 15 minutes. :smoke does every stage on fewer pages and updates in under two minutes.
"""

from configs import base
from lm.config import variant


def get_config(arg=None):
  c = base.get_recipe()
  c.workdir = 'runs/quickstart'
  c.crawl.exclude = r'\.html#|^/test[._]'

  for stage in (c.pretrain, c.sft, c.rl):
    stage.seq_len = 256
    stage.model.update(num_layers=4, embed_dim=256, num_heads=4, num_kv_heads=2, head_dim=64, mlp_dim=768, qk_norm=True,
                       max_len=512, scan_layers=False)
    stage.loss.chunk = 1024
    stage.eval.update(tasks='arithmetic,calculator,identity,refusal,spelling,docs', examples=200, batch_size=50)
    stage.optim.update(name='muon', lr=3e-3, muon_lr=0.02, warmup=10, schedule='wsd', decay=0.5)

  c.pretrain.steps, c.pretrain.batch_size = 200, 16
  c.pretrain.eval.update(every=50, prompts=('The module', 'Return the'), baselines=True)

  c.sft.data.tasks = 'arithmetic:3,calculator,identity,refusal:2,spelling:2,docs:2'
  c.sft.steps, c.sft.batch_size = 150, 16

  c.rl.data.tasks = 'arithmetic'
  c.rl.steps, c.rl.batch_size = 40, 256
  c.rl.log_every = 1
  c.rl.optim.update(name='adamw', lr=1e-4, schedule='constant', weight_decay=0.0)
  if variant(arg) == 'smoke':
    c.workdir = 'runs/quickstart-smoke'
    c.crawl.max_pages = 60
  return c
