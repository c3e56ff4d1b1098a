"""What a model behind an endpoint is asked, and the questions that one writes, with a server of a
few lines in its place.
"""

import json

import pytest
from commands import call
from endpoints import choices, serving
from refusals import refused

from data import tasks
from data.probing import endpoint, writing
from data.tasks import probed
from lm.base import files
from lm.base.errors import UserError


def test_a_probe_tells_what_is_known_from_what_is_not(tmp_path):
  """The model knows some sums, is wrong about others, and refuses the rest."""
  (task,) = tasks.make(['arithmetic'], seed=0)
  problems = {(p := task.problem(i, 'train'))['messages'][0]['content']: p for i in range(9)}
  order = list(problems)

  def answer(body, headers):
    assert (body['model'], body['n'], body['temperature']) == ('m', 2, 0.5)
    question = body['messages'][0]['content']
    number = order.index(question)
    right = problems[question]['answer']
    return choices(*[(right, '1234567', "I don't know.")[number % 3]] * 2)

  out = tmp_path / 'probe.json'
  with serving(answer) as url:
    options = '--examples=9', '--samples=2', '--temperature=0.5', f'--out={out}'
    status, said, err = call(
      '-m', 'data.probe', 'ask', '--tasks=arithmetic', f'--endpoint={url}', '--model=m', *options
    )
  assert status == 0, err
  assert said == 'refused: 33.3%, right: 33.3%, wrong: 33.3%\n'
  rows = files.read_json(out)['probe']
  assert [row['verdicts'] for row in rows] == [['right'] * 2, ['wrong'] * 2, ['refused'] * 2] * 3
  assert [question['known'] for question in probed.read(out)] == [True, False, False] * 3


def test_a_model_writes_questions_whose_answers_are_in_the_text(tmp_path):
  documents, out = tmp_path / 'documents.jsonl', tmp_path / 'questions.jsonl'
  texts = ['Ada wrote notes in 1843.', 'Tides follow the Moon.', 'Left out.']
  documents.write_text(''.join(json.dumps({'text': t, 'id': t[:3]}) + '\n' for t in texts))
  written = [
    'Here they are: [{"question": "When did Ada write?", "answer": "1843"}, '
    '{"question": "Who was her father?", "answer": "Byron"}]',
    'I cannot. [',
  ]
  with serving(lambda body, headers: choices(written['Tides' in str(body['messages'])])) as url:
    options = f'--documents={documents}', f'--endpoint={url}', '--model=m', '--snippets=2'
    status, said, err = call('-m', 'data.probe', 'write', *options, f'--out={out}')
  assert (status, said, err) == (0, f'1 questions in {out}\n', '')
  (task,) = tasks.make(['written'], seed=0, questions=str(out))
  assert task.questions == (('When did Ada write?', '1843'),)


@pytest.mark.parametrize(
  ('said', 'count'),
  [
    ('', 0),
    ('[]', 0),
    ('[1, null, {"question": 3, "answer": "a"}]', 0),
    ('{"question": "a?", "answer": "cat"}', 0),
    ('[{"question": "a?", "answer": "at"}]', 0),
    ('[{"question": "a?", "answer": ""}]', 0),
    ('```json\n[{"question": "a?", "answer": "The CAT!"}]\n```', 1),
  ],
)
def test_what_a_model_writes_is_read_whatever_it_is(said, count):
  assert len(writing.questions(said, 'On the mat sat the cat.')) == count


def ask(url, **options):
  waited = []
  client = endpoint.Endpoint(url, 'm', sleep=waited.append, **options)
  return client.complete([], samples=1, temperature=0.0, max_tokens=1), waited


def test_a_busy_endpoint_is_asked_again_and_gets_the_key():
  answers = [(503, b'busy'), (429, b''), choices('yes')]
  seen = []

  def answer(body, headers):
    seen.append(headers['Authorization'])
    return answers[len(seen) - 1]

  with serving(answer) as url:
    assert ask(url, key='secret') == (['yes'], [2.0, 4.0])
  assert seen == ['Bearer secret'] * 3


@pytest.mark.parametrize(
  ('answer', 'allowed'),
  [
    ((401, b'no key'), '401'),
    ((503, b'busy'), '503'),
    ((200, b'<html>'), 'Expecting value'),
    ((200, {'choice': []}), 'a chat completion'),
    ((200, [1]), 'a chat completion'),
  ],
)
def test_an_endpoint_that_does_not_answer_is_named(answer, allowed):
  with serving(lambda body, headers: answer) as url, pytest.raises(UserError) as raised:
    ask(url)
  error = raised.value
  assert allowed in error.allowed and url in f'{error.field} {error.value}'


def test_an_endpoint_that_is_not_there_is_named():
  for url in ('http://127.0.0.1:9/v1', 'nonsense'):
    with refused('--endpoint', f'{url}/chat/completions'):
      ask(url)
