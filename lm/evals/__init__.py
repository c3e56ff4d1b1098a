"""Evaluators, by name: what training and eval.py measure of a model.

This room may import all rooms of lm/ up to stages. Start reading at held_out.py, the shortest. A
new evaluation is one file and one line of EVALUATORS.
"""

from lm.evals.calibration import Calibration
from lm.evals.context import Context
from lm.evals.continuations import Continuations
from lm.evals.held_out import HeldOutLoss
from lm.evals.held_out_rewards import HeldOutRewards
from lm.evals.pass_at import PassAt
from lm.evals.probe import Probe
from lm.evals.task_scores import TaskScores
from lm.train.evaluators import Evaluator

# Each has `open(context)`, which returns an evaluator, or None if the config asks for none.
EVALUATORS = (
  HeldOutLoss,
  Calibration,
  Continuations,
  TaskScores,
  HeldOutRewards,
  Probe,
  PassAt,
)


def make(context: Context) -> list[Evaluator]:
  """Returns the evaluators that a config asks for, in the order of the registry."""
  made = [evaluator.open(context) for evaluator in EVALUATORS]
  return [evaluator for evaluator in made if evaluator is not None]
