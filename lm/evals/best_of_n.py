"""Best-of-n: n answers are sampled, and the one that a reward ranks first is kept.

From one set of N answers follows what the best of n = 1, ..., N of them is worth on average, to the
reward that ranks them and to another one (Stiennon et al., arXiv 2009.01325; Gao, Schulman and
Hilton, arXiv 2210.10760).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from lm.base import config as config_lib
from lm.base import files
from lm.base.errors import UserError
from lm.base.intervals import of_mean
from lm.infer.requests import Completion

READ = (  # fields, and groups of fields, of the config that best-of-n reads
  'init_from',
  'seed',
  'batch_size',
  'seq_len',
  'data',
  'tools',
  'model',
  'mesh',
  'eval.tasks',
  'eval.examples',
  'rl.reward_model',
  'rl.gold',
  'rl.group_size',
  'rl.temperature',
  'rl.max_new_tokens',
)


def check(config: ConfigDict, defaults: ConfigDict) -> None:
  """Raises UserError for a field that is set and that best-of-n does not read."""
  for path, default, value in files.differences(*map(config_lib.as_json, (defaults, config))):
    if not config_lib.covers(READ, path):
      raise UserError(
        field=f'config.{path}', value=value, allowed=f'{default}, which best-of-n does not read'
      )


@dataclasses.dataclass(frozen=True)
class Sampled:
  """The answers to one problem.

  Attributes:
    number: the place of the problem in the order that was asked.
    answers: N completions.
    gold: their true rewards, [N].
    proxies: their rewards by reward models, each [N], by name.
  """

  number: int
  answers: list[Completion]
  gold: np.ndarray
  proxies: dict[str, np.ndarray]


def sample(
  generate: Callable[[list[list[int]], int, int], list[Completion]],
  prompts: Sequence[list[int]],
  gold: Callable[[int, Completion], float],
  scorers: Mapping[str, Callable[[list[list[int]]], np.ndarray]],
  *,
  samples: int,
  at_once: int,
  max_len: int,
) -> list[Sampled]:
  """Samples answers to problems and rewards them.

  A problem whose prompt leaves no room for an answer is passed over: it has no `Sampled`.

  Args:
    generate: (prompts, repeats, place of the first among those asked) -> the completions of each
      prompt in turn.
    prompts: token ids of each problem.
    gold: (number of a problem, answer) -> its true reward.
    scorers: (prompts with answers) -> rewards, by name.
    samples: N, answers to each problem.
    at_once: problems whose answers are sampled at the same time.
    max_len: tokens of prompt and answer together.
  """
  found = []
  fitting = [i for i, prompt in enumerate(prompts) if len(prompt) < max_len]
  for start in range(0, len(fitting), at_once):
    numbers = fitting[start : start + at_once]
    part = [prompts[number] for number in numbers]
    completions = generate(part, samples, start)
    rows = [[*part[i // samples], *answer.tokens] for i, answer in enumerate(completions)]
    proxies = {name: np.asarray(score(rows), float) for name, score in scorers.items()}
    for i, number in enumerate(numbers):
      mine = slice(i * samples, (i + 1) * samples)
      answers = completions[mine]
      rewards = np.array([gold(number, answer) for answer in answers])
      own = {name: proxy[mine] for name, proxy in proxies.items()}
      found.append(Sampled(number, answers, rewards, own))
  return found


def conversation(
  problem: Mapping[str, Any], found: Sampled, parse: Callable[[list[int]], dict]
) -> dict[str, Any] | None:
  """Returns the problem with its best answer, to fine-tune on; None where none is good enough.

  The first reward model ranks the answers, or the gold reward where there is none: then the best
  must be above 0. An answer that was cut off, or is not well formed, is never taken.

  Args:
    parse: reads a completion (`data.chat.chat_formats.Format.parse`).
  """
  ranking = next(iter(found.proxies.values()), found.gold)
  replies = [parse(answer.tokens) for answer in found.answers]
  usable = [i for i, reply in enumerate(replies) if reply['well_formed'] and reply['content']]
  best = max(usable, key=lambda i: ranking[i], default=None)
  if best is None or not (found.proxies or ranking[best] > 0):
    return None
  answer = {'role': 'assistant', 'content': replies[best]['content']}
  return {'messages': [*problem['messages'], answer], 'task': problem['task']}


def record(
  problem: Mapping[str, Any], found: Sampled, decode: Callable[[list[int]], str]
) -> dict[str, Any]:
  """Returns all answers to a problem with their rewards, as a line of answers.jsonl."""
  return {
    'task': problem['task'],
    'prompt': problem['messages'][-1]['content'],
    'answers': [decode(answer.tokens) for answer in found.answers],
    'gold': found.gold.tolist(),
    'proxies': {name: proxy.tolist() for name, proxy in found.proxies.items()},
  }


def divergence(n: int) -> float:
  """Returns KL(best of n || policy) in nats: log n - (n - 1) / n (arXiv 2009.01325, appendix G.3).

  It is exact where no two answers have the same rank, and otherwise an upper bound.
  """
  return math.log(n) - (n - 1) / n


def weights(count: int) -> np.ndarray:
  """Returns [N, N]: the probability that the best of n of N answers is the one of rank i.

  Row n - 1 has C(i, n - 1) / C(N, n) for the ranks i = 0 (the worst) to N - 1: of all subsets of n
  answers, those in which n - 1 are of lower rank.
  """
  return np.array(
    [[math.comb(i, n - 1) / math.comb(count, n) for i in range(count)] for n in range(1, count + 1)]
  )


def expected_best(ranking_QN: np.ndarray, values_QN: np.ndarray) -> np.ndarray:
  """Returns the unbiased estimates of the value of the best of n = 1, ..., N answers, [Q, N].

  Answers that are ranked equally are equally likely to be taken: each has the mean of their values.

  Args:
    ranking_QN: the rewards that rank the N answers to each of Q problems.
    values_QN: what the answers are worth.
  """
  sorted_QN = np.empty(np.shape(values_QN))
  for sorted_N, ranking_N, values_N in zip(sorted_QN, ranking_QN, values_QN, strict=True):
    _, group_N, size = np.unique(ranking_N, return_inverse=True, return_counts=True)
    shared_N = (np.bincount(group_N, values_N) / size)[group_N]
    sorted_N[:] = shared_N[np.argsort(ranking_N, kind='stable')]
  return sorted_QN @ weights(sorted_QN.shape[1]).T


def curve(proxy_QN: np.ndarray, gold_QN: np.ndarray) -> list[dict[str, float]]:
  """Returns {n, kl, proxy, proxy_low, proxy_high, gold, gold_low, gold_high} of each n.

  The intervals, of 95 %, are over problems.
  """
  values = {
    name: expected_best(proxy_QN, x_QN) for name, x_QN in (('proxy', proxy_QN), ('gold', gold_QN))
  }
  points = []
  for n in range(1, proxy_QN.shape[1] + 1):
    point: dict[str, Any] = {'n': n, 'kl': divergence(n)}
    for name, x_QN in values.items():
      mean, low, high = of_mean(x_QN[:, n - 1])
      point |= {name: mean, f'{name}_low': low, f'{name}_high': high}
    points.append(point)
  return points


def summaries(**asked: Sequence[tuple[Any, Sampled]]) -> dict[str, dict[str, Any]]:
  """Returns the `summary` of each set of problems with their answers that is not empty."""
  return {name: summary([one for _, one in found]) for name, found in asked.items() if found}


def summary(found: Sequence[Sampled]) -> dict[str, Any]:
  """Returns {samples, problems, gold_std, rankings: {name: {proxy_std, curve}}}.

  Without reward models the gold reward ranks the answers, as 'gold'. Standard deviations are of
  single answers, over all problems.
  """
  gold_QN = np.array([one.gold for one in found])
  rankings = {name: np.array([one.proxies[name] for one in found]) for name in found[0].proxies}
  return {
    'problems': gold_QN.shape[0],
    'samples': gold_QN.shape[1],
    'gold_std': float(gold_QN.std()),
    'rankings': {
      name: {'proxy_std': float(proxy_QN.std()), 'curve': curve(proxy_QN, gold_QN)}
      for name, proxy_QN in (rankings or {'gold': gold_QN}).items()
    },
  }
