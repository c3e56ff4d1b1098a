"""What a model knows, and what it only seems to know: a recipe on an invented world of facts.

Documents state the facts of 360 people 0, 1, 3, 10, 30 or 100 times, and those of 3,000 strangers
once (data/tasks/world.py). A model is trained on them and tuned to answer questions (sft), which it
also does about people that it has never read about. Then it is probed for what it knows, and tuned
on to say that it does not know the rest (refuse), as Llama 3 was (2024, arXiv 2407.21783, section
4.3.6). The people of the scores are in no conversation that it was tuned on.

Command:   python train.py --config=configs/facts.py [--workdir=runs/facts]
Hardware:  two CPU cores; the extra tools, for search.
Result:    runs/facts/report.html: right, wrong and refused answers by the number of exposures,
           before and after, from memory, with a page in the context, and by search. Measured on 360
           questions each, with seeds 0 and 1: from memory .00/.08, .05/.02, .01/.04, .18/.16,
           .59/.54, .98/.94 are right at 0, 1, 3, 10, 30, 100 exposures; .93/.99 with the page,
           .91/.94 by search. After refuse .89/.76 of the wrong answers about unseen facts are
           refusals, and .02/.18 of the right ones at 100 exposures, and .52/.26 of those at 30, of
           which every second was right; with seed 1 .99 with the page, .97 by search.
Time:      32 minutes beside other jobs, 26 minutes of one core.
:smoke     every step with a smaller model and few updates.
"""

from ml_collections import ConfigDict

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = ConfigDict()
  c.stage = 'recipe'
  c.stages = ('world', 'tokenizer', 'tokenize', 'pretrain', 'sft', 'refuse', 'knowledge')
  c.workdir = 'runs/facts'
  c.world = ConfigDict({'seed': 0})
  c.tokenizer = ConfigDict({'vocab_size': 512, 'held_out': 0.0})
  c.pretrain, c.sft, c.refuse = base.get_config(), base.get_config(), base.get_config()
  for run in (c.pretrain, c.sft, c.refuse):
    run.seq_len, run.batch_size, run.microbatches = 256, 4, 1
    run.data.task_seed = c.world.get_ref('seed')
    run.model.update(
      num_layers=4,
      embed_dim=256,
      num_heads=4,
      num_kv_heads=4,
      head_dim=64,
      mlp_dim=1024,
      qk_norm='head',
      max_len=512,
      scan_layers=False,
    )
    run.loss.chunk = 1024
    run.optim.update(lr=5e-4, warmup=20, schedule='wsd', decay=0.5)
    run.checkpoint.every, run.log_every = 200, 10
    run.eval.update(
      examples=360, batch_size=60, max_new_tokens=24, every=100_000, tasks='', prompts=()
    )
  c.pretrain.data.tokenizer = '{workdir}/tokenizer/tokenizer.json'
  c.pretrain.data.train = '{workdir}/tokens/train/manifest.json'
  c.pretrain.steps, c.pretrain.batch_size, c.pretrain.seq_len = 4188, 1, 128  # one epoch
  c.pretrain.optim.lr = 1e-3
  for run in (c.sft, c.refuse):
    run.stage, run.init_from = 'sft', '{workdir}/pretrain'
    run.data.held_out, run.data.examples, run.data.turns = 0.0, 6000, 1
    run.eval.tasks = 'facts,facts_page,facts_search'
    run.data.index = run.tools.index = '{workdir}/index'
    run.tools.names = 'search'
  c.sft.steps, c.sft.data.tasks = 300, 'famous,facts_page:2,facts_search:2'
  c.sft.eval.probe, c.sft.eval.probe_examples = 'facts', 1000
  c.refuse.data.tasks = 'probed,facts_page,facts_search'
  c.refuse.data.probe = '{workdir}/sft/report.json'
  c.refuse.init_from, c.refuse.steps, c.refuse.optim.lr = '{workdir}/sft', 250, 2e-4
  base.share_seed(c)
  if variant(arg) == 'smoke':
    c.workdir = 'runs/facts-smoke'
    for run in (c.pretrain, c.sft, c.refuse):
      run.model.update(num_layers=1, embed_dim=64, num_heads=2, num_kv_heads=2, mlp_dim=128)
      run.steps, run.eval.examples, run.eval.batch_size = 12, 24, 24
      run.eval.probe_examples, run.eval.probe_samples = 24, 2
  return c
