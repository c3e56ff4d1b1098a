"""Supervised fine-tuning of a checkpoint on conversations; the loss is on the assistant's tokens.

Command:   python train.py --config=configs/sft.py --workdir=runs/sft
             --config.init_from=runs/quickstart/pretrain
           --config.data.train takes files of conversations (JSONL or Parquet rows with messages);
           `python -m data.conversations --input=FILE --out=OUT` writes them from rows of
           UltraChat, ShareGPT, Alpaca and GSM8K. With '' the conversations are demonstrations of
           config.data.tasks.
           --config.sft.loss_by=conversation gives every conversation the same weight, and
           --config.sft.neftune=5 adds noise to embeddings in training.
Hardware:  whatever trains the model.
Result:    the model answers questions on identity, spelling and arithmetic in the chat format
           (see the quickstart's report).
Time:      two minutes for the quickstart's base model on two CPU cores.
:smoke     a two-layer model for bytes, started from scratch, on demonstrations of four tasks: 40
           seconds on two cores.
"""

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_config()
  c.stage = 'sft'
  c.init_from = 'runs/quickstart/pretrain'
  c.data.tasks = 'identity,arithmetic:3,calculator,comparison'
  c.steps, c.batch_size, c.seq_len = 300, 32, 256
  c.optim.update(lr=3e-4, warmup=20, weight_decay=0.0)
  if variant(arg) == 'smoke':
    c.init_from, c.data.examples = '', 300
    c.steps, c.batch_size, c.seq_len = 20, 8, 128
    c.model.update(base.TINY)
    c.optim.update(name='muon', schedule='wsd', lr=1e-2, warmup=5)
    c.eval.update(
      every=10, batch_size=8, tasks='identity,arithmetic', examples=8, turns=2, max_new_tokens=24
    )
    c.checkpoint.every, c.log_every = 10, 5
  return c
