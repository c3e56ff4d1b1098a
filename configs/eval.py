"""Evaluation of a checkpoint: bits per byte, task scores with 95 % intervals, and continuations.

Command:   python eval.py --config=configs/eval.py --checkpoint=runs/quickstart --out=report.json
           --config.data.val=runs/quickstart/tokens/val/manifest.json adds bits per byte.
           --config.data.documents=runs/quickstart/clean/documents.jsonl
           --config.eval.tasks=docs,refusal,... adds tasks about documents.
Hardware:  whatever holds the model.
Result:    report.json, with the score and the interval of each task.
Time:      one second per hundred problems of a small model on two CPU cores.
:smoke     eight problems.
"""

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_config()
  c.seq_len = 256
  c.eval.tasks, c.eval.turns = 'arithmetic,calculator,identity', 3
  c.eval.prompts = ('The function returns',)
  if variant(arg) == 'smoke':
    c.eval.update(batch_size=8, tasks='arithmetic', examples=8, turns=2, max_new_tokens=8)
  return c
