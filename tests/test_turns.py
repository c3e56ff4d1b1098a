"""Scores of tasks and of the turns of conversations, with scripted replies."""

import collections
from unittest import mock

import pytest
from test_eval import score as score_tasks

from configs import base
from data import tasks
from data.chat import chat_formats
from lm.base.errors import UserError
from lm.evals import task_scores
from lm.infer.requests import Completion

FORMAT = chat_formats.load('bytes')
TASKS = tasks.make(['identity', 'arithmetic'], seed=0)
PROBLEMS = [[task.problem(i, 'test') for i in range(20)] for task in TASKS]
ANSWERS = {
  problem['messages'][-1]['content']: str(problem['answer'])
  for problems in PROBLEMS
  for problem in problems
}
USER, REPLY = '<|user|>', '<|end|><|assistant|>'


def settings(**fields):
  config = base.get_config()
  config.seq_len = fields.pop('seq_len', 1000)
  config.eval.update({'examples': 20, 'batch_size': 8, 'turns': 3} | fields)
  return config


class Model:
  """Answers the last question rightly if `knows` is true of how many were asked before it."""

  def __init__(self, knows=lambda before: True, stops=True):
    self._knows, self._stops, self.prompts = knows, stops, []

  def __call__(self, params, prompts, key):
    self.prompts += map(FORMAT.tokenizer.decode, prompts)
    return [Completion(self.reply(prompt), [], [], self._stops) for prompt in prompts]

  def reply(self, prompt):
    _, *questions = FORMAT.tokenizer.decode(prompt).split(USER)
    right = self._knows(len(questions) - 1)
    said = ANSWERS[questions[-1].removesuffix(REPLY)] if right else 'Banana.'
    return [*FORMAT.tokenizer.encode(said), *FORMAT.stops[: self._stops]]


def score(model, **fields):
  return score_tasks(settings(**fields), model, FORMAT, TASKS)


def score_all(model):
  """The scores, and the records that they are made from."""
  context = mock.Mock(
    config=settings(), chat_format=FORMAT, tasks=TASKS, grade_format=chat_formats.grade_format
  )
  scores, _, records = task_scores.score_tasks(context, model, None)
  return scores, records


def test_one_turn_is_scored_unless_more_are_asked_for():
  scores, _ = score(Model(), turns=1)
  assert scores.keys() == {'identity', 'arithmetic', 'format'}
  assert all(s['accuracy'] == 1 for s in scores.values())
  with pytest.raises(UserError) as raised:
    task_scores.TaskScores.open(mock.Mock(config=settings(turns=0), tasks=TASKS))
  assert (raised.value.field, raised.value.value) == ('config.eval.turns', 0)


def test_later_turns_have_scores_of_their_own_and_leave_the_others_as_they_are():
  model = Model(lambda before: before != 1)
  scores, samples = score(model)
  turns = {name: scores[name] for name in ('turn_1', 'turn_2', 'turn_3')}
  assert scores == score(Model(), turns=1)[0] | turns
  assert [scores[f'turn_{turn}']['accuracy'] for turn in (1, 2, 3)] == [1, 0, 1]
  assert scores['turn_2']['n'] == 20 and 0 < scores['turn_2']['high'] < 0.5
  last = [sample for sample in samples if sample['task'] == 'turn_3']
  assert len(last) == 4 and {sample['grade'] for sample in last} == {1}
  assert all(sample['prompt'].count('Banana.') == 1 for sample in last)


def test_every_turn_asks_the_same_problems_of_every_task_in_another_order():
  model = Model()
  score(model)
  turns = []
  for turn in (1, 2, 3):
    asked = [prompt.split(USER)[-1] for prompt in model.prompts if prompt.count(USER) == turn]
    turns.append(asked[-24:-4])  # before them the single questions; the last batch is filled up
  first, *later = map(collections.Counter, turns)
  assert later == [first, first] and turns[0] != turns[1] != turns[2]
  expected = [p['messages'][-1]['content'] + REPLY for problems in PROBLEMS for p in problems[:10]]
  assert first == collections.Counter(expected)


def test_a_turn_is_scored_for_each_task_and_every_reply_is_on_record():
  model = Model(lambda before: before != 1)
  scores, records = score_all(model)
  assert {name: s['accuracy'] for name, s in scores['turn_2']['tasks'].items()} == {
    'identity': 0,
    'arithmetic': 0,
  }
  for turn in (1, 2, 3):
    for name, found in scores[f'turn_{turn}']['tasks'].items():
      mine = [each for each in records if (each['task'], each['turn']) == (name, turn)]
      assert found['n'] == len(mine) == 10
      assert found['accuracy'] == sum(each['verdict'] == 'right' for each in mine) / 10
  single = [each for each in records if each['turn'] == 0]
  assert len(single) == 40 and all(ANSWERS[each['question']] in each['reply'] for each in single)


@pytest.mark.parametrize('stops', [True, False])
def test_the_models_own_replies_are_what_was_said_before(stops):
  model = Model(lambda before: before > 0, stops)
  score(model)
  talk = next(p for p in model.prompts if p.count(USER) == 3)
  *_, before, _ = talk.split(USER)
  assert 'Banana.' in talk.split(USER)[1]
  question, answer = before.split(REPLY)
  assert answer == f'{ANSWERS[question]}<|end|>'  # a reply that was cut off gets its end


def test_a_question_for_which_the_context_has_no_room_is_answered_wrongly():
  longest = max(len(question) for question in ANSWERS) + 20
  scores, _ = score(Model(), turns=4, seq_len=longest)
  accuracy = [scores[f'turn_{turn}']['accuracy'] for turn in (1, 2, 3, 4)]
  assert accuracy[0] == 1 > accuracy[2] and accuracy == sorted(accuracy, reverse=True)
  assert scores['turn_4']['n'] == 20
