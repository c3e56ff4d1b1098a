"""What a model knows: several sampled answers to each of some training problems, graded."""

from typing import Any

from lm.evals import scoring
from lm.evals.context import Context
from lm.infer import replies
from lm.parallel import keys
from lm.train.evaluators import Result

TEMPERATURE = 1.0  # at which the answers vary as the model's probabilities say


class Probe:
  """Asks the training problems of `config.eval.probe`, once, after the last update.

  The task `probed` (data/tasks/probed.py) reads the result from the report.
  """

  name = 'probe'
  at_start = False
  every = 0

  def __init__(self, context: Context):
    config = context.config
    self._context = context
    self._generate = replies.make_generate(
      context.model_config,
      context.chat_format,
      context.call_tool,
      temperature=TEMPERATURE,
      max_new_tokens=config.eval.max_new_tokens,
      max_len=config.seq_len,
    )

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
      asked = [task.probe_row(i) for i in range(config.eval.examples)]
      repeated = [each for each in asked for _ in range(config.eval.probe_samples)]
      prompts = [context.chat_format.render_prompt(row['messages']) for _, row in repeated]

      def draw(prompts, batch, number=number):
        return self._generate(params, prompts, keys.derive(config.seed, 'probe', number, batch))

      def judge(question, completion, task=task):
        if completion is None:
          return 0.0
        problem, row = question
        reply = context.chat_format.parse(completion.tokens)
        grade = task.grade(problem, reply)
        row['replies'].append(context.chat_format.tokenizer.decode(completion.tokens))
        row['verdicts'].append(task.verdict(reply, grade))
        return grade

      scoring.score(repeated, prompts, draw, judge, config.eval.batch_size, config.seq_len)
      rows += [row for _, row in asked if row['verdicts']]
    return Result(report={'probe': rows})
