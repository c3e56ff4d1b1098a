"""Best-of-n: the answer that a reward ranks first of several, and what that is worth.

Command:   python -m lm.best_of --config=configs/best_of.py --workdir=runs/best_of
             --config.init_from=RUN --config.eval.tasks=TASK,... --config.rl.reward_model=RUN,...
           Without a reward model the tasks' graders rank the answers. With
           --config.data.tasks=TASK,... the best answers to training problems are kept in
           runs/best_of/best.jsonl, to fine-tune on; configs/rejection.py does so in rounds.
Hardware:  whatever holds the model and the reward models.
Result:    runs/best_of/report.json: the reward and the true one of the best of n answers, with
           95 % intervals, for n = 1 to config.rl.group_size. A problem whose prompt leaves no room
           for an answer is passed over; prompts_too_long counts them.
:smoke     eight problems with four answers each, by the model of configs/rl.py:smoke, which
           runs/rl-smoke is to hold.
"""

from configs import base
from lm.base.config import variant


def get_config(arg=None):
  c = base.get_config()
  c.init_from = 'runs/quickstart/sft'
  c.seq_len, c.batch_size = 256, 1024  # answers at a time
  c.data.examples = 1000
  c.eval.update(tasks='arithmetic', examples=200)
  c.rl.group_size = 64
  if variant(arg) == 'smoke':
    c.init_from = 'runs/rl-smoke'
    c.seq_len, c.batch_size, c.data.examples = 160, 16, 8
    c.rl.update(group_size=4, max_new_tokens=16)
    c.eval.examples = 8
  return c
