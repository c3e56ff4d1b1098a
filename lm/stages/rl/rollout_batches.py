"""Batches of the policy's own answers: sampled, graded, and scored."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lm.base.errors import UserError
from lm.infer import replies
from lm.infer.requests import Completion
from lm.model.attention import kernels
from lm.parallel import keys, sharding
from lm.stages.rl import advantages, curriculum, policy_losses, rollout
from lm.train.batches import Batch, Run


class RolloutBatches:
  """Samples a batch of answers from the parameters at each step.

  The questions of a step depend on the step alone and, with a curriculum, on how earlier ones were
  answered, which is saved with a checkpoint. Its draws depend on (config.seed, step). So a resumed
  run asks the same questions. A question whose prompt leaves no room for an answer is
  passed over, and another problem of the same task is asked instead.
  """

  waits = True

  def __init__(
    self,
    run: Run,
    axes: Mapping[str, tuple[str, ...]],
    score: Callable[..., policy_losses.Scores],
    copy_start: Callable[[], Any],
    reward_model: Callable[[Sequence[Sequence[int]]], np.ndarray] | None = None,
  ):
    """Prepares the sampler, and the reference where the config asks for one.

    Args:
      run: its source is a `data.batches.questions.Questions`.
      axes: the axes of the arrays of a batch.
      score: scores of a model (`lm.stages.rl.policy_gradient.make_score`).
      copy_start: makes a copy of the starting model's parameters.
      reward_model: scores prompts with answers, beside their tasks' graders; None means none does.

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
    self._reward_model = reward_model
    self.judge = self._judge if reward_model else None
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
    self._curriculum = curriculum.Curriculum(rl, config.seed)
    self._multiple = math.lcm(rollout.MULTIPLE, shortest)
    self._reference_params = None
    if policy_losses.has_reference(rl):
      # The reference is copied before the first update: afterwards its parameters may be donated.
      self._reference_params = copy_start()
    whole = NamedSharding(run.mesh, PartitionSpec())
    self._scores = jax.jit(make_scores(score), static_argnames='names', out_shardings=whole)

  def state(self) -> dict[str, Any]:
    """Returns what the curriculum knows; all else follows from a batch's number."""
    return self._curriculum.state() if self._curriculum.is_on else {}

  def seek(self, update: int, state: Mapping[str, Any]) -> None:
    """Goes back to what the curriculum knew."""
    self._curriculum.restore(state)

  def complete(self, arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Adds nothing, because no rows are held out."""
    return arrays

  def next(self, update: int, params: Any) -> Batch:
    """Returns the answers that `params` give to the questions of an update."""
    with self._run.clock.part('rollout'):
      batch = self._draw(update, params)
      jax.block_until_ready(batch.arrays)
    return batch

  def _draw(self, update: int, params: Any) -> Batch:
    run, config, rl = self._run, self._run.config, self._run.config.rl
    asked, groups = self._sample(run.jumps.batch(update), params)
    teaches = advantages.teaching(rl, rollout.rewards_of(groups))
    kept = sorted(np.argsort(~teaches, kind='stable')[: self._per_step])
    drawn = rollout.arrange(
      [groups[i] for i in kept],
      rl,
      rows=config.batch_size // config.microbatches,
      multiple=self._multiple,
      limit=config.seq_len,
      score=lambda batch: self._timed_score(params, batch),
    )
    if update < rl.value_warmup:
      drawn.batch['advantages'][:] = 0
    skipped = [line for question in asked for line in question.skipped]
    counted = {'rl/prompts_too_long': len(skipped), 'rl/questions': len(asked)}
    if self._curriculum.is_on:
      levels = [self._difficulty(question) for question in asked]
      counted['rl/between_bounds'] = float(np.mean([*map(self._curriculum.teaches, levels)]))
      for level, group in zip(levels, groups, strict=True):
        self._curriculum.learn(level, np.array([grade.right for grade in group.grades]))
    is_kept = rl.rollouts_every and (update + 1) % rl.rollouts_every == 0
    return Batch(
      self._put(drawn.batch),
      drawn.count,
      drawn.lengths,
      rollout.measure(groups) | drawn.metrics | counted,
      texts=[('rl/prompts_too_long', line) for line in skipped],
      rollouts=self._records(asked, groups) if is_kept else [],
    )

  def _sample(self, step: int, params: Any) -> tuple[list[rollout.Question], list[rollout.Group]]:
    """Returns the questions of a step and their answers, group by group.

    Questions whose answers teach nothing are followed by as many others, up to `rl.resamples`
    times: the dynamic sampling of DAPO (arXiv 2503.14476, equation 11), bounded.
    """
    rl, run = self._run.config.rl, self._run
    asked: list[rollout.Question] = []
    groups: list[rollout.Group] = []
    missing = self._per_step
    for attempt in range(1 + rl.resamples):
      first = (step * (1 + rl.resamples) + attempt) * self._per_step
      new = [self._ask(first + i) for i in range(missing)]
      place = (step, attempt) if attempt else (step,)
      key = keys.derive(run.config.seed, 'rollouts', *place)
      drawn = rollout.sample(
        lambda prompts, repeats, key=key: self._generate(params, prompts, key, repeats),
        [question.prompt for question in new],
        lambda number, completion, new=new: self._grade(new[number], completion),
        rl.group_size,
      )
      groups += self._add_proxy(drawn) if self._reward_model else drawn
      asked += new
      missing = self._per_step - int(advantages.teaching(rl, rollout.rewards_of(groups)).sum())
      if not missing:
        break
    return asked, groups

  def _difficulty(self, question: rollout.Question) -> str:
    return self._questions.difficulty(question.index, question.problem)

  def _grade(self, question: rollout.Question, completion: Completion) -> rollout.Grade:
    rl = self._run.config.rl
    right, well_formed = self._questions.grade(question.index, question.problem, completion.tokens)
    penalty = rollout.overlong_penalty(
      sum(completion.sampled), rl.max_new_tokens, rl.overlong_buffer
    )
    reward = rl.grade_weight * right + rl.format_reward * well_formed + penalty
    parts = {}
    if self._reward_model:
      parts['gold'] = self._questions.gold(question.index, question.problem, completion.tokens)
    return rollout.Grade(reward, right >= 0.5, parts)

  def _add_proxy(self, groups: Sequence[rollout.Group]) -> list[rollout.Group]:
    """Returns the groups with the reward model's rewards, the proxy, added to those they have."""
    proxies = iter(self._reward_model(rollout.rows_of(groups)).tolist())

    def add(grade):
      proxy = next(proxies)
      parts = {'proxy': proxy, **grade.parts}
      return dataclasses.replace(grade, reward=grade.reward + proxy, parts=parts)

    return [
      dataclasses.replace(group, grades=[add(grade) for grade in group.grades]) for group in groups
    ]

  def _judge(self, params: Any, examples: int, batch_size: int) -> dict[str, np.ndarray]:
    """Returns the proxy and the gold reward of an answer to each of some test problems.

    The answers are sampled as in training. Problems whose prompts leave no room for one are left
    out.
    """
    seed, limit = self._run.config.seed, self._run.config.seq_len
    drawn = [
      (i, *self._questions.draw(i, i // self._questions.num_tasks, 'test')) for i in range(examples)
    ]
    asked = [
      rollout.Question(i, problem, prompt, [])
      for i, problem, prompt in drawn
      if len(prompt) < limit
    ]
    groups: list[rollout.Group] = []
    for start in range(0, len(asked), batch_size):
      part, key = asked[start : start + batch_size], keys.derive(seed, 'judging', start)
      groups += rollout.sample(
        lambda prompts, repeats, key=key: self._generate(params, prompts, key, repeats),
        [question.prompt for question in part],
        lambda number, completion, part=part: self._grade(part[number], completion),
        1,
      )
    grades = [group.grades[0] for group in self._add_proxy(groups)]
    return {name: np.array([g.parts[name] for g in grades]) for name in ('proxy', 'gold')}

  def _timed_score(self, params: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with self._run.clock.part('score'):
      return self._score(params, batch)

  def _score(self, params: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what the reference and the present model say of a batch before its first update."""
    rl = self._run.config.rl
    tokens = self._put({name: batch[name] for name in ('inputs', 'targets', 'weights')})

    def scores(params, *names):
      return jax.tree.map(np.asarray, self._scores(params, **tokens, names=names))

    found = {}
    if self._reference_params is not None:
      found['reference_log_probs'] = scores(self._reference_params, 'log_probs')['log_probs']
    own = []
    if rl.importance_cap:
      own.append('log_probs')
    if advantages.has_values(rl):
      own.append('values')
    if own:
      found |= scores(params, *own)
    if rl.importance_cap:
      found['sampler_log_probs'] = batch['old_log_probs']
      found['old_log_probs'] = found.pop('log_probs')
    return found

  def _put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    mesh = self._run.mesh
    return sharding.put_batch(sharding.own_rows(batch, mesh), self._axes, mesh)

  def _records(
    self, asked: Sequence[rollout.Question], groups: Sequence[rollout.Group]
  ) -> list[dict[str, Any]]:
    """Returns a line of rollouts.jsonl for each answer.

    Its `asked` and `reply` are messages, which data/tasks/conversation_rows.py reads.
    """
    chat_format = self._run.chat_format
    decode = chat_format.tokenizer.decode
    return [
      {
        'number': question.index,
        'prompt': decode(question.prompt),
        'answer': decode(answer.tokens),
        'reward': float(grade.reward),
        'right': bool(grade.right),
        **grade.parts,
        'tokens': len(answer.tokens),
        'end': answer.end,
        'asked': question.problem['messages'],
        'reply': chat_format.parse(answer.tokens)['content'],
      }
      for question, group in zip(asked, groups, strict=True)
      for answer, grade in zip(group.completions, group.grades, strict=True)
    ]

  def _ask(self, index: int) -> rollout.Question:
    """Returns question `index` of the run."""
    task, number = self._questions.place(index)
    config = self._run.config
    # The most questions of the whole run.
    in_all = config.steps * self._per_step * (1 + config.rl.resamples)
    rounds = -(-in_all // self._questions.num_tasks)  # The problems of each task.
    wanted = self._curriculum.wants
    problem, prompt, skipped = rollout.ask(
      lambda n: self._questions.draw(index, n),
      number,
      rollout.prime(rounds),
      config.seq_len,
      lambda problem, n: wanted(self._questions.difficulty(index, problem), index, n),
    )
    lines = [
      f'task {task}, training problem {n}: a prompt of {length} tokens' for n, length in skipped
    ]
    return rollout.Question(index, problem, prompt, lines)


def make_scores(
  score: Callable[..., policy_losses.Scores],
) -> Callable[..., dict[str, jax.Array]]:
  """Returns `scores(params, inputs, targets, weights, names)`: those fields of `Scores`, by name.

  The arrays are [M, rows, T]. One microbatch is scored after the other, so that it needs no more
  memory than the loss.
  """

  def scores(params, inputs, targets, weights, names):
    def one(parts):
      found = score(params, *parts)
      return {name: getattr(found, name) for name in names}

    return jax.lax.map(one, (inputs, targets, weights))

  return scores
