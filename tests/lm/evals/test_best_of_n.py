"""Best-of-n, against all subsets of the answers and against the paper's formula of its divergence."""

import itertools

import numpy as np
import pytest
from refusals import refused

from configs import base, best_of
from lm.evals import best_of_n
from lm.infer.requests import Completion


def by_subsets(ranking, values, n):
  """The mean over all subsets of n answers of the mean value of those ranked first."""
  found = []
  for subset in itertools.combinations(range(len(ranking)), n):
    top = max(ranking[i] for i in subset)
    found.append(np.mean([values[i] for i in subset if ranking[i] == top]))
  return np.mean(found)


def test_the_estimate_is_the_mean_over_all_subsets():
  rng = np.random.default_rng(0)
  ranking, values = rng.normal(size=(3, 7)), rng.normal(size=(3, 7))
  found = best_of_n.expected_best(ranking, values)
  expected = [
    [by_subsets(r, v, n) for n in range(1, 8)] for r, v in zip(ranking, values, strict=True)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-9)
  np.testing.assert_allclose(found[:, 0], values.mean(axis=1))
  np.testing.assert_allclose(found[:, -1], values[range(3), ranking.argmax(axis=1)])


def test_answers_that_are_ranked_equally_are_equally_likely():
  """Of n answers of a policy whose share p is right, one is right with probability 1 - (1 - p)^n."""
  ranking, values = np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([[4.0, 0.0, 1.0, 3.0]])
  found = best_of_n.expected_best(ranking, values)[0]
  np.testing.assert_allclose(found, [2, 2, 2, 2])
  np.testing.assert_allclose(best_of_n.expected_best(ranking, ranking)[0], [1 / 2, 5 / 6, 1, 1])


def test_the_divergence_is_that_of_the_paper():
  """KL = log n - (n - 1) / n; here, of uniform rewards, by the integral of their density."""
  assert [round(best_of_n.divergence(n), 2) for n in (1, 4, 16, 64, 256)] == [0, 0.64, 1.84, 3.17, 4.55]  # fmt: skip
  u = (np.arange(200_000) + 0.5) / 200_000
  for n in (2, 5):
    density = n * u ** (n - 1)
    assert best_of_n.divergence(n) == pytest.approx(np.mean(density * np.log(density)), abs=1e-4)


def completion(token, finished=True):
  return Completion([token], [-1.0], [True], finished)


def sampled(ranking, finished=(True, True, True)):
  answers = [completion(i, ended) for i, ended in enumerate(finished)]
  gold = np.array([0.0, 1.0, 0.0])
  return best_of_n.Sampled(0, answers, gold, {'rm': np.array(ranking)} if ranking else {})


def parse(tokens):
  return {'content': [{'type': 'text', 'text': str(tokens[0])}], 'well_formed': tokens[0] != 2}


def test_the_answer_that_is_ranked_first_becomes_a_conversation():
  problem = {'messages': [{'role': 'user', 'content': 'q'}], 'task': 't'}

  def kept(found):
    conversation = best_of_n.conversation(problem, found, parse)
    return conversation and conversation['messages'][1]['content'][0]['text']

  assert kept(sampled([3.0, 1.0, 2.0])) == '0'
  assert kept(sampled([1.0, -1.0, 9.0])) == '0'  # the third is not well formed
  assert kept(sampled(None)) == '1'  # by gold
  nothing = best_of_n.Sampled(0, [completion(0)], np.array([0.0]), {})
  assert kept(nothing) is None


def test_answers_are_sampled_scored_and_summed_up():
  def generate(prompts, repeats, start):
    return [completion(10 * (start + i) + j) for i in range(len(prompts)) for j in range(repeats)]

  found = best_of_n.sample(
    generate,
    [[1], [2], [3]],
    lambda number, answer: float(answer.tokens[0] == 10 * number),
    {'rm': lambda rows: np.array([row[-1] for row in rows])},
    samples=4,
    at_once=2,
    max_len=2,
  )
  assert [one.number for one in found] == [0, 1, 2]
  assert found[2].proxies['rm'].tolist() == [20, 21, 22, 23]
  assert found[2].gold.tolist() == [1, 0, 0, 0]
  summary = best_of_n.summary(found)
  curve = summary['rankings']['rm']['curve']
  assert [point['n'] for point in curve] == [1, 2, 3, 4]
  assert curve[0]['gold'] == pytest.approx(1 / 4) and curve[3]['gold'] == 0
  assert curve[3]['proxy'] == pytest.approx(13)
  assert curve[0]['proxy_low'] < curve[0]['proxy'] < curve[0]['proxy_high']
  assert summary['samples'] == 4 and summary['problems'] == 3
  record = best_of_n.record({'task': 't', 'messages': [{'content': 'q'}]}, found[0], str)
  assert record['gold'] == [1, 0, 0, 0] and record['proxies']['rm'] == [0, 1, 2, 3]


def test_a_problem_whose_prompt_leaves_no_room_is_passed_over():
  asked = []

  def generate(prompts, repeats, start):
    asked.extend(prompts)
    return [completion(prompt[0]) for prompt in prompts for _ in range(repeats)]

  found = best_of_n.sample(
    generate,
    [[7, 7, 7], [8], [9, 9, 9, 9], [6, 6]],
    lambda number, answer: float(number),
    {},
    samples=2,
    at_once=2,
    max_len=3,
  )
  assert asked == [[8], [6, 6]]
  assert [one.number for one in found] == [1, 3]
  assert [one.gold.tolist() for one in found] == [[1, 1], [3, 3]]


def test_a_field_that_is_not_read_is_refused():
  config = best_of.get_config()
  best_of_n.check(config, base.get_config())
  config.rl.kl = 0.1
  with refused('config.rl.kl', 0.1):
    best_of_n.check(config, base.get_config())
