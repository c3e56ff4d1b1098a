"""What a model knows: several sampled answers to each of some training problems, graded."""

from typing import Any

from lm.evals.context import Context
from lm.evals.repeated_answers import RepeatedAnswers
from lm.train.evaluators import Result


class Probe:
  """Asks the training problems of `config.eval.probe`, once, after the last update.

  The task `probed` (data/tasks/probed.py) reads the result from the report.
  """

  name = 'probe'
  at_start = False
  every = 0

  def __init__(self, context: Context):
    self._context, self._answers = context, RepeatedAnswers(context, self.name)

  @classmethod
  def open(cls, context: Context) -> 'Probe | None':
    """Returns the evaluator, or None if the config names no tasks to probe with."""
    return cls(context) if context.probe_tasks else None

  def run(self, params: Any) -> Result:
    """Returns the questions with their sampled answers and what these are: right, wrong, refused.

    The report has them as `probe`, in the rows of `Task.probe_row` (data/tasks/protocol.py).
    """
    context, config = self._context, self._context.config
    rows = []
    for number, task in enumerate(context.probe_tasks):
      asked = [task.probe_row(i) for i in range(config.eval.probe_examples)]
      questions = [((problem, row), row['messages']) for problem, row in asked]

      def judge(question, completion, task=task):
        problem, row = question
        reply = context.chat_format.parse(completion.tokens)
        grade = task.grade(problem, reply)
        row['replies'].append(context.chat_format.tokenizer.decode(completion.tokens))
        row['verdicts'].append(task.verdict(reply, grade))
        return grade

      self._answers.grades(params, number, questions, config.eval.probe_samples, judge)
      rows += [row for _, row in asked if row['verdicts']]
    return Result(report={'probe': rows})
