"""What eval.py joins: tasks, the chat format and the sampler, without a model."""

import dataclasses
from unittest import mock

import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from refusals import refused

from configs import base
from data import tasks
from data.chat import chat_formats
from data.tasks import gsm8k, problem_files
from data.tools import calculator
from lm.base.errors import UserError
from lm.evals import continuations, pass_at, task_scores
from lm.evals.context import Context
from lm.infer import replies
from lm.infer.requests import Completion
from lm.model import transformer
from lm.parallel import keys


def counting_generate(chat_format, seen):
  """A `generate` that answers 'no' to everything and notes its prompts and keys."""
  stop = chat_format.stops[0]

  def generate(params, prompts, key):
    seen.append((list(map(len, prompts)), tuple(jax.random.key_data(key).tolist())))
    ids = [*chat_format.tokenizer.encode('no'), stop]
    return [Completion(list(ids), [0.0] * len(ids), [True] * len(ids), True) for _ in prompts]

  return generate


def score(config, generate, chat_format, asked):
  """Scores tasks without a model: `generate` replies."""
  context = Context(
    config=config,
    model_config=None,
    mesh=None,
    loss_fn=None,
    batch_axes={},
    complete=None,
    compare=None,
    judge=None,
    held_out=None,
    counts_bytes=False,
    chat_format=chat_format,
    tasks=asked,
    probe_tasks=(),
    call_tool=calculator.calculate,
    grade_format=chat_formats.grade_format,
  )
  return task_scores.score_tasks(context, generate, None)[:2]


def settings(examples, batch_size, seq_len):
  config = base.get_config()
  config.seq_len = seq_len
  config.eval.update(examples=examples, batch_size=batch_size)
  return config


def test_each_batch_of_an_evaluation_draws_with_a_key_of_its_own():
  chat_format, seen = chat_formats.load('bytes'), []
  asked = tasks.make(['arithmetic', 'comparison'], seed=0)
  generate = counting_generate(chat_format, seen)
  scores, _ = score(settings(5, 2, 10**6), generate, chat_format, asked)
  assert len(seen) == len({key for _, key in seen}) == 2 * 3
  assert scores['arithmetic']['n'] == 5 and scores['format']['n'] == 10


def test_a_prompt_that_leaves_no_room_counts_as_wrong_and_is_counted():
  chat_format, seen = chat_formats.load('bytes'), []
  asked = tasks.make(['arithmetic'], seed=0)
  lengths = [
    len(chat_format.render_prompt(asked[0].problem(i, 'test')['messages'])) for i in range(20)
  ]
  limit = int(np.median(lengths))
  short = sum(n < limit for n in lengths)
  assert 0 < short < 20
  generate = counting_generate(chat_format, seen)
  limited = settings(20, 4, limit)
  scores, samples = score(limited, generate, chat_format, asked)
  assert all(n < limit for rows, _ in seen for n in rows) and len(seen) == -(-short // 4)
  assert (scores['arithmetic']['n'], scores['arithmetic']['too_long']) == (20, 20 - short)
  assert scores['format']['accuracy'] == short / 20 and len(samples) == 4
  none, _ = score(settings(20, 4, 1), generate, chat_format, asked)
  assert (none['arithmetic']['accuracy'], none['arithmetic']['too_long']) == (0, 20)


@pytest.mark.slow
@pytest.mark.parametrize('temperature', [0.0, 1.0])
def test_rows_of_the_vocabulary_that_are_no_token_are_never_drawn(temperature):
  chat_format = chat_formats.load('bytes')
  size = chat_format.tokenizer.vocab_size
  fields = base.TINY | {'vocab_size': size + 100, 'num_layers': 1, 'tie_embeddings': False}
  config = FrozenConfigDict(base.get_config().model.to_dict() | fields)
  params = jax.jit(transformer.init_params, static_argnums=0)(
    config, keys.derive(0, 'initialization')
  )
  # by far the likeliest, if they could be drawn
  params['head'] = params['head'].at[size:].multiply(1e3)
  generate = replies.make_generate(
    config,
    chat_format,
    calculator.calculate,
    temperature=temperature,
    max_new_tokens=16,
    max_len=64,
  )
  rows = [
    chat_format.render_prompt([{'role': 'user', 'content': text}]) for text in ('Hi', 'Hello')
  ]
  drawn = [c.tokens for c in generate(params, rows, keys.derive(0, 'evaluation'))]
  assert all(drawn) and max(map(max, drawn)) < size
  [text] = continuations.continue_texts(
    config, params, chat_format, ['Hi'], max_new_tokens=16, seed=0
  )
  assert text['text']


@dataclasses.dataclass(frozen=True, eq=False)
class Even(tasks.Arithmetic):
  """Arithmetic in which a reply with an even number of digits is right, finished or not."""

  def draw(self, rng):
    problem = super().draw(rng)
    return problem | {'group': problem['expression'].split()[1]}

  def grade(self, problem, reply):
    return float(len(''.join(part['text'] for part in reply['content'])) % 2 == 0)


@pytest.mark.slow
def test_scores_within_a_limit_are_those_of_an_evaluation_with_that_limit():
  """A model that draws digits and stop tokens, each as likely as the others."""
  chat_format = chat_formats.load('bytes')
  size = chat_format.tokenizer.vocab_size
  digits = chat_format.tokenizer.encode('0123456789')
  others = tuple(set(range(size)) - {*digits, *chat_format.stops})
  config = FrozenConfigDict(
    base.get_config().model.to_dict() | base.TINY | {'vocab_size': size, 'num_layers': 1}
  )
  params = jax.jit(transformer.init_params, static_argnums=0)(
    config, keys.derive(0, 'initialization')
  )

  def evaluate(max_new_tokens, limits):
    with mock.patch.object(chat_formats.Format, 'banned_ids', lambda *_: others):
      generate = replies.make_generate(
        config,
        chat_format,
        calculator.calculate,
        temperature=1.0,
        max_new_tokens=max_new_tokens,
        max_len=128,
      )
    limited = settings(48, 16, 128)
    limited.eval.update(max_new_tokens=max_new_tokens, limits=limits)
    answer = lambda _, *rest: generate(params, *rest)  # noqa: E731
    scores, _ = score(limited, answer, chat_format, [Even(0)])
    return scores['arithmetic']

  limits = (1, 2, 4, 8, 16)
  within = evaluate(40, limits)['within']
  accuracy = [within[str(limit)]['all']['accuracy'] for limit in limits]
  assert accuracy == sorted(accuracy) and accuracy[0] < accuracy[2] < accuracy[4]
  assert sum(within['8'][op]['n'] for op in '+-*') == within['8']['all']['n'] == 48
  limited = [evaluate(limit + 1, (limit,)) for limit in limits]
  assert [each['within'] for each in limited] == [{k: v} for k, v in within.items()]
  assert limited[0]['accuracy'] > accuracy[0]  # two digits that were cut off are even


def test_the_length_of_an_answer_is_what_was_drawn_before_the_stop_token():
  called = Completion([5, 6, 7, 8], [0.0] * 4, [True, False, True, True], True)
  assert task_scores.answer_length(called) == 2
  assert task_scores.answer_length(dataclasses.replace(called, finished=False)) == float('inf')
  assert task_scores.answer_length(None) == float('inf')


@pytest.mark.parametrize('evaluator', [task_scores.TaskScores, pass_at.PassAt])
def test_too_few_test_problems_are_found_before_training(evaluator):
  rows = tuple(gsm8k.WordProblem(f'How many are {i}?', f'#### {i}') for i in range(4))
  task = tasks.Gsm8k(0, problem_files.Problems(train=rows, test=rows))
  config = settings(5, 2, 100)
  config.eval.pass_at = (1,)
  with refused("number of test problems of task 'gsm8k' that are asked", 5, 'at most 4'):
    evaluator.open(mock.Mock(config=config, tasks=[task]))


@pytest.mark.parametrize('limits', [(0, 4), (4, 16)])
def test_a_limit_leaves_room_for_the_stop_token(limits):
  config = settings(5, 2, 100)
  config.eval.update(max_new_tokens=16, limits=limits)
  with pytest.raises(UserError) as raised:
    task_scores.TaskScores.open(mock.Mock(config=config))
  assert (raised.value.field, raised.value.value) == ('config.eval.limits', limits)
