"""The invented world, the questions about it, and what a probe makes of the answers."""

import collections
import itertools
import json
import random

import pytest
from refusals import refused

from data import tasks
from data.tasks import facts, not_knowing, probed, world
from lm.base import files

WORLD = world.make(0)


def rows(path):
  return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def test_documents_state_each_fact_as_often_as_its_exposures_say(tmp_path):
  count = world.write(tmp_path, 0)
  documents, pages = rows(tmp_path / 'documents.jsonl'), rows(tmp_path / 'pages.jsonl')
  everyone = [*WORLD.people, *WORLD.strangers]
  assert len(WORLD.people) == world.PEOPLE * len(world.EXPOSURES)
  assert count == len(documents) == world.PEOPLE * sum(world.EXPOSURES) + world.STRANGERS
  assert sorted(row['metadata']['title'] for row in pages) == sorted(p.name for p in everyone)
  about = collections.Counter(row['metadata']['title'] for row in documents)
  assert all(about[person.name] == person.exposures for person in everyone)
  by_name = {person.name: person for person in everyone}
  asked = collections.Counter()
  for is_document, some in ((True, documents[::97]), (False, pages[::7])):
    for row in some:
      person, text = by_name[row['metadata']['title']], row['text']
      assert all(value in text for value in person.facts.values())
      is_stranger, questions = person.name not in WORLD.names, text.count('?') + text.count('Tell')
      assert text.count(person.name) == len(world.RELATIONS) + questions * is_stranger
      asked[is_stranger, is_document] += questions
  assert asked[False, True] and asked[True, True]
  assert not asked[False, False] and not asked[True, False]


def test_documents_about_a_person_are_not_next_to_each_other():
  titles = [row['metadata']['title'] for row in world.documents(WORLD, 0)]
  same = sum(one == other for one, other in itertools.pairwise(titles))
  assert same < len(titles) / 50


def test_a_world_follows_from_its_seed_and_its_names_are_unique():
  assert world.make.__wrapped__(0) == WORLD != world.make(1)
  names = [person.name for person in (*WORLD.people, *WORLD.strangers)]
  assert len({*names, *WORLD.values['city']}) == len(names) + len(WORLD.values['city'])


def test_most_training_problems_that_are_read_are_about_strangers_and_no_score_is():
  (task,) = tasks.make(['facts_page'], seed=0)
  strange = {
    split: sum(task.problem(i, split)['key'] not in WORLD.names for i in range(200))
    for split in ('train', 'test')
  }
  assert strange['test'] == 0 and 120 < strange['train'] < 190


def test_questions_of_a_split_are_about_its_people_for_every_task():
  asked = {}
  for task in tasks.make(['facts', 'famous', 'facts_page'], seed=0):
    for split in ('train', 'test'):
      problems = [task.problem(i, split) for i in range(200)]
      asked[task.name, split] = {p['key'] for p in problems}
      assert {int(p['group']) for p in problems} <= set(world.EXPOSURES)
      if task.name == 'famous':
        assert min(int(p['group']) for p in problems) == facts.FAMOUS
  train = set().union(*(people for (_, split), people in asked.items() if split == 'train'))
  test = set().union(*(people for (_, split), people in asked.items() if split == 'test'))
  assert not train & test and min(len(train), len(test)) > 90 and test <= WORLD.names


@pytest.mark.parametrize('name', ['facts', 'facts_page'])
def test_an_answer_is_right_with_its_value_and_wrong_with_another(name):
  (task,) = tasks.make([name], seed=0)
  for i in range(100):
    problem, demo = task.problem(i, 'train'), task.demo(i, 'train')
    person = problem['key']
    assert person in problem['messages'][0]['content']
    assert (problem['answer'] in problem['messages'][0]['content']) == (name == 'facts_page')
    reply = demo['messages'][-1]
    assert task.grade(problem, reply) == 1 and task.verdict(reply, 1.0) == 'right'
    other = next(v for v in WORLD.values[problem['relation']] if v != problem['answer'])
    wrong = {'content': reply['content'].replace(problem['answer'], other)}
    assert task.grade(problem, wrong) == 0 and task.verdict(wrong, 0.0) == 'wrong'
    refusal = {'content': not_knowing.REFUSALS[i % len(not_knowing.REFUSALS)]}
    assert task.grade(problem, refusal) == 0 and task.verdict(refusal, 0.0) == 'refused'


def report(path, *verdicts):
  """A report with a probed question for each list of verdicts."""
  made = [
    {
      'messages': [{'role': 'user', 'content': f'{i}?'}],
      'key': str(i),
      'answer': f'v{i}',
      'reply': f'It is v{i}.',
      'verdicts': each,
    }
    for i, each in enumerate(verdicts)
  ]
  files.write_json(path, {'probe': made})
  return path


def test_what_a_model_knew_is_kept_and_what_it_did_not_know_is_refused(tmp_path):
  right, wrong, unsure = ['right'] * 5, ['wrong'] * 4 + ['right'], ['right'] * 2 + ['wrong'] * 3
  path = report(tmp_path / 'report.json', right, wrong, unsure, ['refused'] * 5)
  (task,) = tasks.make(['probed'], seed=0, probe=path)
  said = collections.defaultdict(set)
  for i in range(300):
    problem = task.draw(random.Random(i))
    said[problem['key']].add(task.reply(problem, random.Random(i)))
    right, refusal = {'content': problem['reply']}, {'content': "I don't know."}
    assert task.grade(problem, right) == problem['known']
    assert task.grade(problem, refusal) == (not problem['known'])
  plain = set(not_knowing.REFUSALS)
  assert said == {'0': {'It is v0.'}, '1': plain, '3': plain}


def test_a_fact_is_refused_with_the_first_word_of_its_answer(tmp_path):
  (task,) = tasks.make(['facts'], seed=0)
  rows = []
  for i in range(20):
    problem, row = task.probe_row(i)
    refusal = {'content': row['refusal']}
    assert row['refusal'].split()[0] == row['reply'].split()[0]
    assert task.verdict(refusal, task.grade(problem, refusal)) == 'refused'
    rows.append({**row, 'verdicts': ['wrong']})
  files.write_json(tmp_path / 'report.json', {'probe': rows})
  (again,) = tasks.make(['probed'], seed=0, probe=tmp_path / 'report.json')
  for i in range(20):
    problem = again.draw(random.Random(i))
    assert again.reply(problem, random.Random(i)) == problem['refusal']
    assert problem['refusal'] in {row['refusal'] for row in rows if row['key'] == problem['key']}


@pytest.mark.parametrize(
  ('answer', 'good', 'bad'),
  [('blue whale', 'The blue whale.', 'The whale is blue.'), ('42', 'It is 42.', 'It is 421.')],
)
def test_an_answer_of_several_words_or_of_digits_is_found(tmp_path, answer, good, bad):
  path = report(tmp_path / 'report.json', ['right'])
  made = files.read_json(path)
  made['probe'][0]['answer'] = answer
  files.write_json(path, made)
  (task,) = tasks.make(['probed'], seed=0, probe=path)
  problem = task.draw(random.Random(0))
  assert [task.grade(problem, {'content': said}) for said in (good, bad)] == [1, 0]


@pytest.mark.parametrize('verdict', ['right', 'wrong'])
def test_a_model_that_knows_all_or_nothing_may_be_probed(tmp_path, verdict):
  path = report(tmp_path / 'report.json', [verdict])
  (task,) = tasks.make(['probed'], seed=0, probe=path)
  assert {task.draw(random.Random(i))['known'] for i in range(20)} == {verdict == 'right'}


@pytest.mark.parametrize(
  ('verdicts', 'field'),
  [
    ([], 'probe of {}'),
    ([['right', 'wrong']], 'probe of {}'),
    ([['right'], []], '{}: probe[1].verdicts'),
    ([['right'], ['maybe']], '{}: probe[1].verdicts'),
  ],
)
def test_a_report_that_cannot_be_used_is_an_error_that_names_the_row(tmp_path, verdicts, field):
  path = report(tmp_path / 'report.json', *verdicts)
  with refused(field.format(path)):
    probed.read(path)


def test_a_probe_is_part_of_what_conversations_were_made_from(tmp_path):
  path, options = tmp_path / 'report.json', {'seed': 0, 'held_out': 0.05}
  digests = set()
  for verdicts in (['right'], ['wrong']):
    report(path, verdicts)
    digests.add(tasks.fingerprint(['probed'], probe=path, **options))
  assert len(digests) == 2
