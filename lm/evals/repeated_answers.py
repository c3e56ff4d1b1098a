"""Several sampled answers to each of some problems, which evaluators grade."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lm.evals import scoring
from lm.evals.context import Context
from lm.infer import replies
from lm.infer.requests import Completion
from lm.parallel import keys

T = TypeVar('T')
TEMPERATURE = 1.0  # at which the answers vary as the model's probabilities say


class RepeatedAnswers:
  """Samples answers with random keys that belong to one evaluator."""

  def __init__(self, context: Context, name: str):
    """Prepares the sampler.

    Args:
      context: what is evaluated.
      name: the evaluator's, of which the random keys are made.
    """
    config = context.config
    self._context, self._name = context, name
    self._generate = replies.make_generate(
      context.model_config,
      context.chat_format,
      context.call_tool,
      temperature=TEMPERATURE,
      max_new_tokens=config.eval.max_new_tokens,
      max_len=config.seq_len,
    )

  def grades(
    self,
    params: Any,
    number: int,
    asked: Sequence[tuple[T, list[dict]]],
    samples: int,
    grade: Callable[[T, Completion], float],
  ) -> list[float]:
    """Returns the grades of `samples` answers to each problem in turn.

    Where a prompt leaves no room for an answer, its grades are 0.

    Args:
      number: of the task, of which the random keys are made too.
      asked: the problems, each with its messages.
      grade: (problem, answer) -> grade.
    """
    context, config = self._context, self._context.config
    repeated = [each for each in asked for _ in range(samples)]
    prompts = [context.chat_format.render_prompt(messages) for _, messages in repeated]

    def draw(prompts, batch):
      key = keys.derive(config.seed, self._name, number, batch)
      return self._generate(params, prompts, key)

    def grade_if_any(problem, completion):
      return 0.0 if completion is None else grade(problem, completion)

    problems = [problem for problem, _ in repeated]
    return scoring.score(
      problems, prompts, draw, grade_if_any, config.eval.batch_size, config.seq_len
    )
