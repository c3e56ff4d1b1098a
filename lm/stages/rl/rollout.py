"""Samples of the policy, graded and laid out as a batch for the policy-gradient step."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from lm.base.errors import UserError
from lm.infer.requests import Completion
from lm.stages.rl import advantages, health, policy_losses

# The length of a batch's rows is a multiple of this many tokens: with few lengths there are few
# compilations.
MULTIPLE = 32
TRIES = 100  # The problems that are drawn for one question before it is an error.


@dataclasses.dataclass(frozen=True)
class Grade:
  """The grade that a grader gives to one answer.

  `parts` has other measures of it by name, such as the rewards of a model and of a gold program.
  """

  reward: float
  right: bool
  parts: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Question:
  """One question of a run: its index, its problem, and its prompt as token ids.

  `skipped` has a line for each problem that was passed over for it.
  """

  index: int
  problem: dict[str, Any]
  prompt: list[int]
  skipped: list[str]


@dataclasses.dataclass(frozen=True)
class Group:
  """The answers to one prompt, with their grades."""

  prompt: list[int]
  completions: list[Completion]
  grades: list[Grade]


@dataclasses.dataclass(frozen=True)
class Rollouts:
  """Graded answers, laid out as a batch to train on."""

  # The arrays of `lm.stages.rl.policy_gradient.PolicyGradient.batch_fields`, [M, rows, T].
  batch: dict[str, np.ndarray]
  # How many of the M microbatches, from the first, are to be computed. It is 0 if there is nothing
  # to learn.
  count: int
  lengths: list[int]  # The tokens, prompt and answer, of each row that is learned from.
  metrics: dict[str, float]


def ask(
  draw: Callable[[int], tuple[Any, list[int]]],
  index: int,
  stride: int,
  limit: int,
  wants: Callable[[Any, int], bool] = lambda problem, attempt: True,
) -> tuple[Any, list[int], list[tuple[int, int]]]:
  """Returns the first problem that is wanted and whose prompt leaves room for an answer.

  The problems `index`, `index + stride`, ... are tried in order. After TRIES of them the last one
  whose prompt leaves room is returned.

  Args:
    draw: index -> (problem, token ids of its prompt).
    stride: more than the indices that the run asks for otherwise, so that no problem is asked
      twice.
    limit: tokens of prompt and answer together.
    wants: (problem, how many were drawn before it) -> whether it is to be asked.

  Returns:
    (problem, prompt, skipped): `skipped` has (index, tokens of its prompt) for each problem that
    was too long.

  Raises:
    UserError: TRIES prompts in a row are too long.
  """
  skipped: list[tuple[int, int]] = []
  last = None
  for attempt in range(TRIES):
    problem, prompt = draw(index)
    if len(prompt) >= limit:
      skipped.append((index, len(prompt)))
    else:
      last = problem, prompt, skipped
      if wants(problem, attempt):
        break
    index += stride
  if last is not None:
    return last
  raise UserError(
    field='config.seq_len',
    value=limit,
    allowed=f'above {min(n for _, n in skipped)}, the tokens of the shortest prompt',
    message=f'The prompts of {TRIES} problems in a row leave no room for an answer.',
  )


def prime(least: int) -> int:
  """Returns the least prime number that is at least this.

  Steps of so many problems meet all problems of a file, unless their number is a multiple of it.
  """
  candidates = itertools.count(max(least, 2))
  return next(n for n in candidates if all(n % d for d in range(2, math.isqrt(n) + 1)))


def sample(
  generate: Callable[[list[list[int]], int], list[Completion]],
  prompts: list[list[int]],
  grade: Callable[[int, Completion], Grade],
  size: int,
) -> list[Group]:
  """Samples `size` answers of each prompt and grades them.

  Args:
    generate: (prompts, repeats) -> completions, of which each prompt has `repeats` in a row.
    prompts: token ids of the questions.
    grade: (index of the question, answer) -> Grade.
  """
  completions = generate(prompts, size)
  grades = [grade(i // size, c) for i, c in enumerate(completions)]
  ranges = [slice(i * size, (i + 1) * size) for i in range(len(prompts))]
  return [Group(p, completions[r], grades[r]) for p, r in zip(prompts, ranges, strict=True)]


def rewards_of(groups: Sequence[Group]) -> np.ndarray:
  """Returns the rewards of the answers, float32 [Q, G]."""
  return np.array([[grade.reward for grade in group.grades] for group in groups], np.float32)


def rows_of(groups: Sequence[Group]) -> list[list[int]]:
  """Returns the tokens of each prompt with each of its answers, as reward models read them."""
  return [[*group.prompt, *answer.tokens] for group in groups for answer in group.completions]


def overlong_penalty(length: int, longest: int, buffer: int) -> float:
  """Returns DAPO's soft punishment of a long answer, from 0 to -1 (arXiv 2503.14476, equation 13).

  It begins `buffer` tokens before the longest length that is allowed, and grows evenly to -1 there.
  """
  return -max(0, length - (longest - buffer)) / buffer if buffer else 0.0


def layout(
  prompts: Sequence[list[int]], completions: Sequence[Completion]
) -> dict[str, np.ndarray]:
  """Returns prompts and completions as the arrays [B, T] of a batch, without their advantages.

  Rows are padded at the end to the longest.
  """
  rows = [[*p, *c.tokens] for p, c in zip(prompts, completions, strict=True)]
  tokens_BS = np.zeros((len(rows), max(map(len, rows)) + 1), np.int32)
  for padded, row in zip(tokens_BS, rows, strict=True):
    padded[: len(row)] = row
  batch = {'inputs': tokens_BS[:, :-1], 'targets': tokens_BS[:, 1:]}
  weights_BT, old_BT = (
    np.zeros(batch['inputs'].shape, np.float32),
    np.zeros(batch['inputs'].shape, np.float32),
  )
  for i, (prompt, c) in enumerate(zip(prompts, completions, strict=True)):
    # The targets are one place ahead of the inputs.
    drawn = slice(len(prompt) - 1, len(prompt) - 1 + len(c.tokens))
    weights_BT[i, drawn], old_BT[i, drawn] = c.sampled, c.log_probs
  return batch | {'weights': weights_BT, 'old_log_probs': old_BT}


def split(
  batch: dict[str, np.ndarray], learned_B: np.ndarray, rows: int, multiple: int, limit: int
) -> tuple[dict[str, np.ndarray], int, np.ndarray]:
  """Returns a batch as microbatches, those with rows that are learned from first.

  T is a multiple of `multiple`, or else `limit`, and covers no more than the tokens that are
  learned. Rows that are not learned from have a weight of 0.

  Returns:
    ({name: [M, rows, T]}, how many of the M microbatches have rows that are learned from, the
    index that each row had).
  """
  order = np.argsort(~learned_B, kind='stable')
  weights_BT = batch['weights'] * learned_B[:, None]
  reach = np.flatnonzero(weights_BT.any(axis=0)).max(initial=0) + 1
  T = min(-(-reach // multiple) * multiple, limit)

  def place(x):
    x = np.pad(x[order, :T], ((0, 0), (0, max(0, T - x.shape[1]))))
    return x.reshape(-1, rows, T)

  count = -(-int(learned_B.sum()) // rows)
  return {name: place(x) for name, x in (batch | {'weights': weights_BT}).items()}, count, order


def arrange(
  groups: Sequence[Group],
  rl: ConfigDict,
  rows: int,
  multiple: int,
  limit: int,
  score: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda batch: {},
) -> Rollouts:
  """Returns groups of answers as a batch to train on.

  A group whose advantages are all 0, as those of equal rewards, has no policy gradient, and is not
  computed unless `rl.kl` is positive: the divergence from the reference has a gradient at every
  answer, as in GRPO (arXiv 2402.03300, equation 3). Whether the policy loss is the mean over all
  answers or over those of the other groups is decided by `rl.filter_groups` alone: the step divides
  by what is computed, and the advantages are scaled by what remains.

  Args:
    groups: `rl.group_size` answers of each question.
    rows: rows of a microbatch.
    multiple: the number that must divide the length of a row.
    limit: the greatest length of a row, in tokens; the attention can split rows of this length too.
    score: what models say of the batch, [M, rows, T]; see `RolloutBatches`.
  """
  rewards_QG = rewards_of(groups)
  completions = [c for group in groups for c in group.completions]
  prompts = [group.prompt for group in groups for _ in group.completions]
  batch = layout(prompts, completions)
  if rl.mask_truncated:
    batch['weights'] *= np.array([c.finished for c in completions], np.float32)[:, None]
  teaches_B = np.repeat(advantages.teaching(rl, rewards_QG), rl.group_size)
  learned_B = (teaches_B | bool(rl.kl)) & batch['weights'].any(axis=1)
  _, counts_B = policy_losses.AGGREGATIONS[rl.aggregation](batch['weights'], rl.max_new_tokens)
  wanted = counts_B[teaches_B].sum() if rl.filter_groups else counts_B.sum()
  batch, count, order = split(batch, learned_B, rows, multiple, limit)
  if not count:  # Nothing is learned from, and nothing is scored.
    return Rollouts(batch | {'advantages': np.zeros_like(batch['weights'])}, 0, [], {})
  batch |= score(batch)
  batch |= _advantages(rl, rewards_QG, batch, order)
  if wanted:
    batch['advantages'] *= counts_B[learned_B].sum() / wanted
  lengths = [
    len(p) + len(c.tokens)
    for p, c, learned in zip(prompts, completions, learned_B, strict=True)
    if learned
  ]
  metrics = _explained(batch) if 'values' in batch else {}
  if 'reference_log_probs' in batch:
    metrics['rl/answer_kl'] = answer_kl(batch)
  return Rollouts(batch, count, lengths, metrics)


def _advantages(
  rl: ConfigDict, rewards_QG: np.ndarray, batch: dict[str, np.ndarray], order: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns the advantages of a batch of `split`, and with values their returns, [M, rows, T]."""
  shape = batch['weights'].shape
  places = np.argsort(order)  # Of the answers, group after group, among the rows of the batch.
  answers = {name: x.reshape(len(order), -1)[places] for name, x in batch.items()}
  mask_BT, values_BT = answers['weights'], answers.get('values')
  penalties_BT = np.zeros_like(mask_BT)
  if advantages.has_penalties(rl):
    away_BT = np.where(mask_BT > 0, answers['old_log_probs'] - answers['reference_log_probs'], 0)
    penalties_BT = rl.kl * np.asarray(policy_losses.DIVERGENCES[rl.kl_estimator](away_BT))
  found = {'advantages': advantages.of_tokens(rl, rewards_QG, penalties_BT, mask_BT, values_BT)}
  if values_BT is not None:
    found['returns'] = found['advantages'] + np.where(mask_BT > 0, values_BT, 0)
  return {name: x[order].reshape(shape) for name, x in found.items()}


def answer_kl(batch: Mapping[str, np.ndarray]) -> float:
  """Returns the divergence of the policy from the reference, in nats of a whole answer.

  It is the mean over the answers that are learned from of log policy - log reference, summed over
  the tokens: an unbiased estimate of KL(policy || reference) where these are all.
  """
  mask = batch['weights'] > 0
  away = np.where(mask, batch['old_log_probs'] - batch['reference_log_probs'], 0.0)
  return float(away.sum(dtype=np.float64) / mask.any(axis=-1).sum())


def _explained(batch: dict[str, np.ndarray]) -> dict[str, float]:
  """Returns the share of the variance of the returns that the values explain."""
  sampled = batch['weights'] > 0
  returns, values = batch['returns'][sampled], batch['values'][sampled]
  rest, whole = np.var(returns - values), np.var(returns)
  return {'rl/explained_variance': float(1 - rest / whole) if whole else math.nan}


def measure(groups: Sequence[Group]) -> dict[str, float]:
  """Returns the metrics of all answers that were sampled.

  They are the reward and its parts, the accuracy, the lengths of all, of right and of wrong
  answers, the share that was cut off, how much they repeat themselves, and the share of groups of
  equal rewards.
  """
  rewards_QG = rewards_of(groups)
  completions = [c for group in groups for c in group.completions]
  right_B = np.array([grade.right for group in groups for grade in group.grades])
  length_B = np.array([len(c.tokens) for c in completions], np.float32)
  metrics: dict[str, Any] = {
    'rl/reward': rewards_QG.mean(),
    'rl/reward_std': rewards_QG.std(),
    'rl/accuracy': right_B.mean(),
    'rl/pass_at_group': right_B.reshape(rewards_QG.shape).any(axis=1).mean(),
    'rl/length': length_B.mean(),
    'rl/truncated': np.mean([not c.finished for c in completions]),
    'rl/repeats': health.repeats([c.tokens for c in completions]),
    'rl/forced_share': np.mean([not all(c.sampled) for c in completions]),
    'rl/equal_groups': np.mean(np.ptp(rewards_QG, axis=1) == 0),
  }
  for name in groups[0].grades[0].parts:
    metrics[f'rl/{name}'] = np.mean([g.parts[name] for group in groups for g in group.grades])
  for name, rows_B in (('right', right_B), ('wrong', ~right_B)):
    # NaN is written as null in metrics.jsonl.
    metrics[f'rl/length_{name}'] = length_B[rows_B].mean() if rows_B.any() else math.nan
  return {name: float(value) for name, value in metrics.items()}


def first_and_last(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
  """Returns the mean reward and answer length of the first and the last tenth of a run.

  Args:
    lines: the lines of the run's metrics. Lengths are in tokens.
  """
  seen = [line for line in lines if 'rl/reward' in line]
  tenth = max(1, len(seen) // 10)
  ends = {'first': seen[:tenth], 'last': seen[-tenth:]}
  return {
    f'{name}_{end}': float(np.mean([line[key] for line in part]))
    for name, key in (('reward', 'rl/reward'), ('answer_length', 'rl/length'))
    for end, part in ends.items()
  }
