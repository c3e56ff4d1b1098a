"""Samples of the policy, graded and laid out as a batch for the policy-gradient step."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from lm.sample import Completion, pad_tokens
from lm.steps.rl import advantages

MULTIPLE = 32  # tokens, of the length of a batch's rows: few lengths, so few compilations


@dataclasses.dataclass(frozen=True)
class Grade:
  """What a grader says of one answer."""

  reward: float
  right: bool


def layout(prompts: Sequence[list[int]], completions: Sequence[Completion], advantages_B: np.ndarray,
           multiple: int = MULTIPLE) -> dict[str, np.ndarray]:
  """Rows of prompt + completion as the arrays [B, T] of `lm.steps.rl.make_loss`, padded at the end to a multiple of T."""
  rows = [[*p, *c.tokens] for p, c in zip(prompts, completions, strict=True)]
  tokens_BS, _ = pad_tokens(rows, multiple)
  tokens_BS = np.pad(tokens_BS, ((0, 0), (0, 1)))
  batch = {'inputs': tokens_BS[:, :-1], 'targets': tokens_BS[:, 1:]}
  weights_BT, old_BT = np.zeros(batch['inputs'].shape, np.float32), np.zeros(batch['inputs'].shape, np.float32)
  for i, (prompt, c) in enumerate(zip(prompts, completions, strict=True)):
    drawn = slice(len(prompt) - 1, len(prompt) - 1 + len(c.tokens))  # targets are one place ahead of inputs
    weights_BT[i, drawn], old_BT[i, drawn] = c.sampled, c.log_probs
  wide_BT = np.broadcast_to(advantages_B.astype(np.float32)[:, None], weights_BT.shape)
  return batch | {'weights': weights_BT, 'old_log_probs': old_BT, 'advantages': np.where(weights_BT > 0, wide_BT, 0)}


def split(batch: dict[str, np.ndarray], rows: int, multiple: int = MULTIPLE) -> tuple[dict[str, np.ndarray], int]:
  """Rows that carry an advantage first, in microbatches of `rows`: ({name: [M, rows, T]}, how many M hold any).

  Answers of a group whose rewards are all equal teach nothing: they go last, their microbatches are not computed, and T, a
  multiple of `multiple`, does not reach further than the others.
  """
  useful_B = np.abs(batch['advantages']).max(axis=1) > 0
  order = np.argsort(~useful_B, kind='stable')
  learned_T = (batch['weights'] * useful_B[:, None]).any(axis=0)
  T = -(-(np.flatnonzero(learned_T).max(initial=0) + 1) // multiple) * multiple
  batch = {name: x[order, :T].reshape(-1, rows, min(T, x.shape[1])) for name, x in batch.items()}
  batch['weights'] = batch['weights'] * useful_B[order].reshape(-1, rows, 1)
  return batch, -(-int(useful_B.sum()) // rows)


def collect(generate: Callable[[list[list[int]]], list[Completion]], prompts: list[list[int]],
            grade: Callable[[int, Completion], Grade], rl: ConfigDict) -> tuple[dict[str, np.ndarray], dict[str, float]]:
  """Samples `rl.group_size` answers of each prompt and grades them.

  Args:
    generate: continues prompts.
    prompts: token ids of Q questions.
    grade: (index of the question, answer) -> Grade.

  Returns:
    (batch, metrics): the arrays of Q x group_size rows, and what is worth a curve: reward, accuracy, lengths of all, right
    and wrong answers apart, the share that was cut off and the share of groups with nothing to learn.
  """
  group = rl.group_size
  repeated = [p for p in prompts for _ in range(group)]
  completions = generate(repeated)
  grades = [grade(i // group, c) for i, c in enumerate(completions)]
  rewards_QG = np.array([g.reward for g in grades], np.float32).reshape(-1, group)
  right_B = np.array([g.right for g in grades])
  length_B = np.array([len(c.tokens) for c in completions], np.float32)
  batch = layout(repeated, completions, advantages(rewards_QG, rl.normalize_std).reshape(-1))
  metrics: dict[str, Any] = {
    'rl/reward': rewards_QG.mean(), 'rl/reward_std': rewards_QG.std(), 'rl/accuracy': right_B.mean(),
    'rl/pass_at_group': right_B.reshape(-1, group).any(axis=1).mean(), 'rl/length': length_B.mean(),
    'rl/truncated': np.mean([not c.finished for c in completions]),
    'rl/forced_share': np.mean([not all(c.sampled) for c in completions]),
    'rl/equal_groups': np.mean(np.ptp(rewards_QG, axis=1) == 0),
  }
  for name, rows_B in (('right', right_B), ('wrong', ~right_B)):
    metrics[f'rl/length_{name}'] = length_B[rows_B].mean() if rows_B.any() else math.nan  # null in metrics.jsonl
  return batch, {name: float(value) for name, value in metrics.items()}


def first_and_last(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
  """Mean reward and answer length (tokens) of the first and the last tenth of a run, from the lines of its metrics."""
  seen = [line for line in lines if 'rl/reward' in line]
  tenth = max(1, len(seen) // 10)
  ends = {'first': seen[:tenth], 'last': seen[-tenth:]}
  return {f'{name}_{end}': float(np.mean([line[key] for line in part]))
          for name, key in (('reward', 'rl/reward'), ('answer_length', 'rl/length')) for end, part in ends.items()}
