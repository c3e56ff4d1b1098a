"""Batches of the policy's own answers: sampled, graded, and scored by the reference model."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax

from lm.base.errors import UserError
from lm.infer import replies
from lm.model.attention import kernels
from lm.parallel import keys, sharding
from lm.stages.rl import rollout
from lm.train.batches import Batch, Run


class RolloutBatches:
  """Samples a batch of answers from the parameters at each step.

  The questions of a step depend on the step alone, and its draws on (config.seed, step), so a
  resumed run asks the same questions. A question whose prompt leaves no room for an answer is
  passed over, and another problem of the same task is asked instead.
  """

  waits = True

  def __init__(
    self,
    run: Run,
    axes: Mapping[str, tuple[str, ...]],
    reference: Callable[..., jax.Array],
    copy_start: Callable[[], Any],
  ):
    """Prepares the sampler, and the reference where `config.rl.kl` is positive.

    Args:
      run: its source is a `data.batches.questions.Questions`.
      axes: the axes of the arrays of a batch.
      reference: log-probabilities of the starting model (`policy_gradient.make_reference`).
      copy_start: makes a copy of the starting model's parameters.

    Raises:
      UserError: `config.rl.group_size` does not divide the batch.
    """
    config, rl = run.config, run.config.rl
    if config.batch_size % rl.group_size:
      raise UserError(
        field='config.rl.group_size',
        value=rl.group_size,
        allowed=f'a divisor of batch_size, {config.batch_size}',
      )
    self._run, self._axes, self._questions = run, axes, run.source
    self._per_step = config.batch_size // rl.group_size  # The number of questions.
    self._generate = replies.make_generate(
      run.model_config,
      run.chat_format,
      run.call_tool,
      temperature=rl.temperature,
      max_new_tokens=rl.max_new_tokens,
      max_len=config.seq_len,
    )
    shortest = kernels.length_multiple(run.model_config.attention, run.mesh.shape['context'])
    self._multiple = math.lcm(rollout.MULTIPLE, shortest)
    self._reference_params = None
    if rl.kl:
      # The reference is copied before the first update: afterwards its parameters may be donated.
      self._reference_params = copy_start()
      layout = run.program.batch['reference_log_probs'].sharding
      self._reference = jax.jit(reference, out_shardings=layout)

  def seek(self, update: int) -> None:
    """Does nothing, because every batch follows from its number."""

  def complete(self, arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Adds nothing, because no rows are held out."""
    return arrays

  def next(self, update: int, params: Any) -> Batch:
    """Returns the answers that `params` give to the questions of an update."""
    with self._run.clock.part('rollout'):
      batch = self._draw(self._run.jumps.batch(update), params)
      jax.block_until_ready(batch.arrays)  # the scores of the reference are part of the rollout
    return batch

  def _draw(self, step: int, params: Any) -> Batch:
    run, config = self._run, self._run.config
    asked = [self._ask(step * self._per_step + i) for i in range(self._per_step)]
    key = keys.derive(config.seed, 'rollouts', step)

    def grade(number, completion):
      question = asked[number]
      right, well_formed = self._questions.grade(
        question.index, question.problem, completion.tokens
      )
      return rollout.Grade(right + config.rl.format_reward * well_formed, right >= 0.5)

    drawn = rollout.collect(
      lambda prompts, repeats: self._generate(params, prompts, key, repeats),
      [question.prompt for question in asked],
      grade,
      config.rl,
      rows=config.batch_size // config.microbatches,
      multiple=self._multiple,
      limit=config.seq_len,
    )
    arrays = sharding.put_batch(sharding.own_rows(drawn.batch, run.mesh), self._axes, run.mesh)
    if self._reference_params is not None:
      arrays['reference_log_probs'] = self._reference(
        self._reference_params, arrays['inputs'], arrays['targets']
      )
    skipped = [line for question in asked for line in question.skipped]
    return Batch(
      arrays,
      drawn.count,
      drawn.lengths,
      drawn.metrics | {'rl/prompts_too_long': len(skipped)},
      texts=[('rl/prompts_too_long', line) for line in skipped],
    )

  def _ask(self, index: int) -> rollout.Question:
    """Returns question `index` of the run."""
    task, number = self._questions.place(index)
    in_all = self._run.config.steps * self._per_step  # The questions of the whole run.
    rounds = -(-in_all // self._questions.num_tasks)  # The problems of each task.
    problem, prompt, skipped = rollout.ask(
      lambda n: self._questions.draw(index, n), number, rounds, self._run.config.seq_len
    )
    lines = [
      f'task {task}, training problem {n}: a prompt of {length} tokens' for n, length in skipped
    ]
    return rollout.Question(index, problem, prompt, lines)
