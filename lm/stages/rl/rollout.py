"""Samples of the policy, graded and laid out as a batch for the policy-gradient step."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from lm.base.errors import UserError
from lm.infer.requests import Completion
from lm.stages.rl import advantages

# The length of a batch's rows is a multiple of this many tokens: with few lengths there are few
# compilations.
MULTIPLE = 32
TRIES = 100  # The problems that are drawn for one question before it is an error.


@dataclasses.dataclass(frozen=True)
class Grade:
  """The grade that a grader gives to one answer."""

  reward: float
  right: bool


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
class Rollouts:
  """Graded answers, laid out as a batch to train on."""

  # The arrays of `lm.stages.rl.policy_gradient.make_loss`, [M, rows, T].
  batch: dict[str, np.ndarray]
  # How many of the M microbatches, from the first, are to be computed. It is 0 if there is nothing
  # to learn.
  count: int
  lengths: list[int]  # The tokens, prompt and answer, of each row that is learned from.
  metrics: dict[str, float]


def ask(
  draw: Callable[[int], tuple[Any, list[int]]], index: int, stride: int, limit: int
) -> tuple[Any, list[int], list[tuple[int, int]]]:
  """Returns the first problem whose prompt leaves room for an answer.

  The problems `index`, `index + stride`, ... are tried in order.

  Args:
    draw: index -> (problem, token ids of its prompt).
    stride: more than the indices that the run asks for otherwise, so that no problem is asked
      twice.
    limit: tokens of prompt and answer together.

  Returns:
    (problem, prompt, skipped): `skipped` has (index, tokens of its prompt) for each problem that
    was passed over.

  Raises:
    UserError: TRIES prompts in a row are too long.
  """
  skipped: list[tuple[int, int]] = []
  while len(skipped) < TRIES:
    problem, prompt = draw(index)
    if len(prompt) < limit:
      return problem, prompt, skipped
    skipped.append((index, len(prompt)))
    index += stride
  raise UserError(
    field='config.seq_len',
    value=limit,
    allowed=f'above {min(n for _, n in skipped)}, the tokens of the shortest prompt',
    message=f'The prompts of {TRIES} problems in a row leave no room for an answer.',
  )


def layout(
  prompts: Sequence[list[int]], completions: Sequence[Completion], advantages_B: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns prompts and completions as the arrays [B, T] of a batch.

  The arrays are those of `lm.stages.rl.policy_gradient.make_loss`. Rows are padded at the end to
  the longest.
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
  wide_BT = np.broadcast_to(advantages_B.astype(np.float32)[:, None], weights_BT.shape)
  return batch | {
    'weights': weights_BT,
    'old_log_probs': old_BT,
    'advantages': np.where(weights_BT > 0, wide_BT, 0),
  }


def split(
  batch: dict[str, np.ndarray], learned_B: np.ndarray, rows: int, multiple: int, limit: int
) -> tuple[dict[str, np.ndarray], int]:
  """Returns ({name: [M, rows, T]}, how many of the M microbatches have rows that are learned from).

  The rows that are learned from come first, and the others last, with a weight of 0. T is a
  multiple of `multiple`, or else `limit`, and covers no more than the tokens that are learned.
  """
  order = np.argsort(~learned_B, kind='stable')
  weights_BT = batch['weights'] * learned_B[:, None]
  reach = np.flatnonzero(weights_BT.any(axis=0)).max(initial=0) + 1
  T = min(-(-reach // multiple) * multiple, limit)

  def place(x):
    x = np.pad(x[order, :T], ((0, 0), (0, max(0, T - x.shape[1]))))
    return x.reshape(-1, rows, T)

  return {name: place(x) for name, x in (batch | {'weights': weights_BT}).items()}, -(
    -int(learned_B.sum()) // rows
  )


def collect(
  generate: Callable[[list[list[int]], int], list[Completion]],
  prompts: list[list[int]],
  grade: Callable[[int, Completion], Grade],
  rl: ConfigDict,
  rows: int,
  multiple: int,
  limit: int,
) -> Rollouts:
  """Samples `rl.group_size` answers of each prompt and grades them.

  A group whose rewards are all equal has no policy gradient, and is not computed unless `rl.kl` is
  positive: the divergence from the reference has a gradient at every answer, as in GRPO (arXiv
  2402.03300, equation 3). The advantages of a batch with such groups are scaled so that the policy
  loss, which the step divides by the sampled tokens of all its answers, is the mean over those of
  the other groups: it is the same whether they are computed or not.

  Args:
    generate: (prompts, repeats) -> completions, of which each prompt has `repeats` in a row.
    prompts: token ids of Q questions.
    grade: (index of the question, answer) -> Grade.
    rows: rows of a microbatch.
    multiple: the number that must divide the length of a row.
    limit: the greatest length of a row, in tokens; the attention can split rows of this length too.

  Returns:
    The batch, and metrics over all answers: reward, accuracy, the lengths of all, of right and of
    wrong answers, the share that was cut off and the share of groups whose rewards are equal.
  """
  group = rl.group_size
  completions = generate(prompts, group)
  repeated = [p for p in prompts for _ in range(group)]
  grades = [grade(i // group, c) for i, c in enumerate(completions)]
  rewards_QG = np.array([g.reward for g in grades], np.float32).reshape(-1, group)
  differ_Q = np.ptp(rewards_QG, axis=1) > 0
  differ_B = np.repeat(differ_Q, group)
  learned_B = np.ones_like(differ_B) if rl.kl else differ_B
  batch = layout(
    repeated, completions, advantages.group_relative(rewards_QG, rl.normalize_std).reshape(-1)
  )
  tokens_B = batch['weights'].sum(axis=1)
  if differ_B.any():
    batch['advantages'] *= tokens_B[learned_B].sum() / tokens_B[differ_B].sum()
  batch, count = split(batch, learned_B, rows, multiple, limit)
  lengths = [
    len(p) + len(c.tokens)
    for p, c, learned in zip(repeated, completions, learned_B, strict=True)
    if learned
  ]
  return Rollouts(batch, count, lengths, _metrics(completions, grades, rewards_QG, differ_Q))


def _metrics(
  completions: Sequence[Completion],
  grades: Sequence[Grade],
  rewards_QG: np.ndarray,
  differ_Q: np.ndarray,
) -> dict[str, float]:
  right_B = np.array([g.right for g in grades])
  length_B = np.array([len(c.tokens) for c in completions], np.float32)
  metrics: dict[str, Any] = {
    'rl/reward': rewards_QG.mean(),
    'rl/reward_std': rewards_QG.std(),
    'rl/accuracy': right_B.mean(),
    'rl/pass_at_group': right_B.reshape(rewards_QG.shape).any(axis=1).mean(),
    'rl/length': length_B.mean(),
    'rl/truncated': np.mean([not c.finished for c in completions]),
    'rl/forced_share': np.mean([not all(c.sampled) for c in completions]),
    'rl/equal_groups': np.mean(~differ_Q),
  }
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
