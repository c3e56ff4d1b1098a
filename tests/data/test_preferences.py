"""Comparisons of answers: the forms that are read, gold rewards, judges, votes and agreement."""

import itertools
import json

import numpy as np
import pytest
from commands import call
from endpoints import choices, serving

from data import tasks
from data.preferences import agreement, comparison_rows, gold, judging, manners, rubric
from data.preferences.comparison_rows import Comparison, comparisons
from data.probing.endpoint import Endpoint
from data.records import jsonl
from lm.base.errors import UserError
from lm.serve.playground import votes

SYSTEM = {'role': 'system', 'content': 'Be kind.'}
ASKED = [{'role': 'user', 'content': 'Hi'}]
TURNS = [*ASKED, {'role': 'assistant', 'content': 'Yes?'}, {'role': 'user', 'content': 'Who?'}]


def said(text):
  return {'role': 'assistant', 'content': text}


@pytest.mark.parametrize(
  ('row', 'expected'),
  [
    ({'prompt': 'Hi', 'chosen': 'x', 'rejected': 'y'}, Comparison(ASKED, 'x', 'y', 'a')),
    (
      {'prompt': TURNS, 'chosen': [said('x')], 'rejected': [said('y')], 'margin': 2},
      Comparison(TURNS, 'x', 'y', 'a', 2.0),
    ),
    (  # UltraFeedback, binarized
      {
        'prompt': 'Hi',
        'chosen': [*ASKED, said('x')],
        'rejected': [*ASKED, said('y')],
        'score_chosen': 8.5,
        'score_rejected': 7,
      },
      Comparison(ASKED, 'x', 'y', 'a', 1.5),
    ),
    (  # HH
      {
        'chosen': '\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant: x',
        'rejected': '\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant: y',
      },
      Comparison(TURNS, 'x', 'y', 'a'),
    ),
    (
      {'prompt': 'Hi', 'a': 'x', 'b': 'y', 'winner': 'b', 'by': 'ann'},
      Comparison(ASKED, 'x', 'y', 'b'),
    ),
    ({'prompt': 'Hi', 'a': 'x', 'b': 'y'}, Comparison(ASKED, 'x', 'y', '')),
    ({'prompt': 'Hi', 'a': 'x', 'b': 'y', 'winner': None}, Comparison(ASKED, 'x', 'y', '')),
    (
      {
        'prompt': 'Hi',
        'chosen': 'x',
        'rejected': 'y',
        'margin': None,
        'score_chosen': None,
        'score_rejected': 3,
      },
      Comparison(ASKED, 'x', 'y', 'a'),
    ),
    (  # HH with the answers apart
      {
        'prompt': '\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant:',
        'chosen': ' x',
        'rejected': ' y',
      },
      Comparison(TURNS, 'x', 'y', 'a'),
    ),
    (
      {
        'prompt': [SYSTEM, *ASKED],
        'chosen': [*ASKED, said('x')],
        'rejected': [*ASKED, said('y')],
      },
      Comparison([SYSTEM, *ASKED], 'x', 'y', 'a'),
    ),
    (
      {
        'system': 'Be kind.',
        'prompt': 'Hi',
        'chosen': [*ASKED, said('x')],
        'rejected': [*ASKED, said('y')],
      },
      Comparison([SYSTEM, *ASKED], 'x', 'y', 'a'),
    ),
    (
      {'system': 'Be brief.', 'prompt': [SYSTEM, *ASKED], 'chosen': 'x', 'rejected': 'y'},
      Comparison([SYSTEM, *ASKED], 'x', 'y', 'a'),
    ),
    (
      {'prompt': [{'role': 'system', 'content': ''}, *ASKED], 'chosen': 'x', 'rejected': 'y'},
      Comparison(ASKED, 'x', 'y', 'a'),
    ),
  ],
)
def test_a_row_of_each_form_of_pairs_is_read(row, expected):
  assert comparisons(row) == [expected]
  again = comparison_rows.vote_row(expected, 'me')
  if expected.winner and not expected.margin:
    assert comparisons(again) == [expected]


def test_ranks_become_all_pairs():
  ranked = {'prompt': 'Hi', 'answers': ['x', 'y', 'z'], 'ranks': [2, 1, 2]}
  assert comparisons(ranked) == [
    Comparison(ASKED, 'x', 'y', 'b', 1.0),
    Comparison(ASKED, 'x', 'z', 'tie', 0.0),
    Comparison(ASKED, 'y', 'z', 'a', 1.0),
  ]
  completions = [{'response': text, 'overall_score': s} for text, s in (('x', 6.5), ('y', 9))]
  rated = {'instruction': 'Hi', 'completions': completions, 'models': ['one', 'two']}
  assert comparisons(rated) == [Comparison(ASKED, 'x', 'y', 'b', 2.5)]


def test_votes_of_the_playground_are_read(tmp_path):
  """What the server appends is what is read, wherever the answers were shown."""
  file = votes.VoteFile(tmp_path / 'arena.jsonl')
  for left, vote in itertools.product((0, 1), ('left', 'right', 'tie', 'both_bad')):
    cast = {'kind': 'chat', 'prompt': 'Hi', 'models': ['m', 'n'], 'answers': ['x', 'y']}
    file.append(votes.Vote(**cast, left=left, vote=vote))
  rows = [json.loads(line) for line in (tmp_path / 'arena.jsonl').read_text().splitlines()]
  winners = [comparisons(row)[0].winner for row in rows]
  assert winners == ['a', 'b', 'tie', 'tie', 'b', 'a', 'tie', 'tie']
  with pytest.raises(UserError) as raised:
    comparisons(rows[0] | {'kind': 'completion'})
  assert raised.value.field == 'kind'


@pytest.mark.parametrize(
  ('row', 'field'),
  [
    ([], 'row'),
    ({'prompt': 'Hi'}, 'row'),
    ({'prompt': 'Hi', 'chosen': 'x', 'rejected': 'y', 'a': 'x', 'b': 'y'}, 'row'),
    ({'prompt': 'Hi', 'chosen': 1, 'rejected': 'y'}, 'chosen'),
    ({'prompt': 3, 'chosen': 'x', 'rejected': 'y'}, 'prompt'),
    ({'chosen': 'x', 'rejected': 'y'}, 'chosen'),
    ({'chosen': '\n\nHuman: a\n\nAssistant: x', 'rejected': '\n\nHuman: b\n\nAssistant: y'}, 'rejected'),
    ({'chosen': '\n\nAssistant: x', 'rejected': '\n\nAssistant: y'}, 'messages[0].role'),
    ({'prompt': 'Hi', 'chosen': 'x', 'rejected': ' '}, 'messages[1].content'),
    ({'prompt': 'Hi', 'chosen': 'x', 'rejected': 'y', 'margin': float('nan')}, 'margin'),
    ({'prompt': 'Hi', 'a': 'x', 'b': 'y', 'winner': ['a']}, 'winner'),
    ({'prompt': 'Hi', 'answers': ['x', 'y'], 'ranks': [1]}, 'ranks'),
    ({'prompt': 'Hi', 'answers': ['x', 'y'], 'ranks': [1, True]}, 'ranks[1]'),
    ({'instruction': 'Hi', 'completions': [{'response': 'x'}]}, 'completions[0]'),
  ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_names_its_field(row, field):
  with pytest.raises(UserError) as raised:
    comparisons(row)
  assert raised.value.field == field


def test_the_noise_of_labels_is_as_large_as_it_says():
  (task,) = tasks.make(['arithmetic'], seed=0)
  clean = gold.Ranker('style', answers=4)
  noisy = gold.Ranker('style', answers=4, noise=0.2)
  pairs = [
    (true, label)
    for number in range(300)
    for true, label in zip(clean.compare(task, number), noisy.compare(task, number), strict=True)
  ]
  assert len(pairs) == 300 * 6
  for true, label in pairs:
    assert (true.messages, true.a, true.b, true.margin) == (
      label.messages,
      label.a,
      label.b,
      label.margin,
    )
    assert 'tie' not in (true.winner, label.winner) or true.winner == label.winner
    rewards = [gold.style(task, {}, answer) for answer in (true.a, true.b)]
    assert true.winner == {1: 'a', 0: 'tie', -1: 'b'}[np.sign(rewards[0] - rewards[1])]
    assert true.margin == abs(rewards[0] - rewards[1])
  decided = [true.winner != label.winner for true, label in pairs if true.is_decided]
  assert len(decided) > 1000
  assert np.mean(decided) == pytest.approx(0.2, abs=4 * (0.16 / len(decided)) ** 0.5)
  assert noisy.compare(task, 5) == noisy.compare(task, 5)


def test_style_is_courtesy_and_care():
  def style(text):
    return gold.style(None, {}, text)

  assert style('Of course. It is 4.') == 2
  assert style('It is 4.') == style('Of course. It is 4') == 1
  assert style('It is is is 4') == -1 and style('IT IS 4') == -1 and style('4') == 0


def test_a_gold_reward_that_is_not_known_or_too_much_noise_is_refused():
  for fields, name in (
    ({'gold': 'silver'}, 'gold reward'),
    ({'gold': 'grade', 'noise': 0.6}, 'noise of labels'),
    ({'gold': 'grade', 'answers': 1}, 'answers to a problem'),
  ):
    with pytest.raises(UserError) as raised:
      gold.Ranker(**fields)
    assert raised.value.field == name


def test_the_rubric_that_is_shipped_says_what_counts_and_when_neither_wins():
  rules = rubric.read()
  assert [c.name for c in rules.criteria] == ['harmless', 'truthful', 'helpful']
  assert all(c.examples for c in rules.criteria) and rules.allows_ties
  for criterion in rules.criteria:
    assert criterion.meaning in rules.text and criterion.examples[0].why in rules.text
  assert rules.tie_rule in rules.text


@pytest.mark.parametrize(
  ('text', 'field'),
  [
    ('- a', '{path}'),
    ('question: a\ncriteria: []\nties: {allowed: true, rule: b}', 'criteria of {path}'),
    ('question: a\ncriteria: [{}]\nties: {allowed: 1, rule: b}', 'ties.allowed of {path}'),
    ('question: a\ncriteria: [{}]\nties: {allowed: true}', 'rule of ties of {path}'),
    ('question: a\ncriterion: []\nties: {}', 'field of {path}'),
  ],
)
def test_a_rubric_that_is_wrong_names_the_field(tmp_path, text, field):
  path = tmp_path / 'rubric.yaml'
  path.write_text(text)
  with pytest.raises(UserError) as raised:
    rubric.read(path)
  assert raised.value.field == field.format(path=path)


def decided(*winners):
  return [Comparison([{'role': 'user', 'content': f'q{i}'}], 'x', 'y', w) for i, w in enumerate(winners)]  # fmt: skip


def test_agreement_is_the_share_of_equal_votes_whichever_answer_is_a():
  mine = decided('a', 'b', 'tie', 'tie', 'a', '')
  theirs = [*decided('a', 'a', 'tie', 'a', 'a', 'a'), Comparison(ASKED, 'x', 'z', 'a')]
  theirs[0] = Comparison(theirs[0].messages, 'y', 'x', 'b')  # the same vote, in another order
  (found,) = agreement.agreements({'me': mine, 'you': theirs})
  assert found['voters'] == ['me', 'you']
  assert (found['all']['share'], found['all']['n']) == (3 / 5, 5)
  assert (found['decided']['share'], found['decided']['n']) == (2 / 3, 3)
  # Wilson's interval of 3 of 5, by hand.
  half = 1.96 * (0.6 * 0.4 * 5 + 1.96**2 / 4) ** 0.5 / (5 + 1.96**2)
  centre = (3 + 1.96**2 / 2) / (5 + 1.96**2)
  assert (found['all']['low'], found['all']['high']) == pytest.approx(
    (centre - half, centre + half)
  )


def test_many_votes_on_one_comparison_are_compared_with_each_other():
  same = decided('a')
  (found,) = agreement.agreements({'crowd': [*same, *same, *decided('b')]})
  assert found['voters'] == ['crowd', 'crowd']
  assert (found['all']['share'], found['all']['n']) == (1 / 3, 3)


def test_a_model_judges_in_both_orders_by_the_rubric():
  """It prefers the longer answer, and where both are as long, the first that it reads."""
  rules, seen = rubric.read(), []

  def answer(body, headers):
    (message,) = body['messages']
    seen.append(message['content'])
    first, second = (
      message['content'].split('[answer 1]\n')[1].split('\n\nSay')[0].split('\n\n[answer 2]\n')
    )
    if 'mute' in first + second:
      return choices('I cannot say.')
    return choices(f'Verdict: 2? No.\n**Verdict:** {2 if len(second) > len(first) else 1}')

  compared = [
    Comparison(ASKED, 'short', 'rather long'),
    Comparison(ASKED, 'longer one', 'no'),
    Comparison(ASKED, 'same', 'size'),
    Comparison(ASKED, 'mute', 'x'),
  ]
  skipped = jsonl.Skipped()
  with serving(answer) as url:
    judged = list(judging.judge(Endpoint(url, 'm'), rules, compared, skipped))
  assert [c.winner for c in judged] == ['b', 'a', 'tie'] and skipped.count == 1
  assert len(seen) == 7 and all(rules.text in text and '[user]\nHi' in text for text in seen)


def test_a_comparison_that_is_refused_costs_no_other_and_none_is_judged_twice(tmp_path):
  compared, votes = tmp_path / 'compared.jsonl', tmp_path / 'judges' / 'votes.jsonl'
  rows = [{'prompt': f'{i}?', 'a': 'x', 'b': 'y'} for i in range(4)]
  compared.write_text(''.join(f'{json.dumps(row)}\n' for row in rows))
  asked = []

  def answer(body, headers):
    asked.append(body['messages'][0]['content'])
    return (400, b'too long') if '[user]\n2?' in asked[-1] else choices('Verdict: tie')

  with serving(answer) as url:
    options = f'--input={compared}', f'--endpoint={url}', '--model=m', f'--out={votes}'
    for skipped in (1, 1):
      status, _, err = call('-m', 'data.preferences', 'judge', *options)
      assert status == 0 and f'{skipped} row skipped' in err and 'too long' in err
  assert len(asked) == 2 * 3 + 1 + 1  # The second time, only the one without a vote is asked about.
  voted = [json.loads(line) for line in votes.read_text().splitlines()]
  assert [row['prompt'] for row in voted] == ['0?', '1?', '3?']


def test_a_person_votes_in_a_random_order_and_may_pass_over():
  rules = rubric.read()
  compared = decided(*[''] * 40)
  shown = []

  def read(text):
    shown.append(text)
    if len(shown) == 31:
      raise EOFError
    if len(shown) % 10 == 0:
      return ''
    return '1' if '[answer 1]\nx' in text else '2'  # always x, which is answer a

  judged = list(judging.ask(compared, rules, 0, read))
  assert [c.winner for c in judged] == ['a'] * 27
  first = sum('[answer 1]\nx' in text for text in shown)
  assert 5 < first < 26


def test_tasks_read_their_files_by_flags(tmp_path):
  problems, pairs = tmp_path / 'problems.jsonl', tmp_path / 'pairs.jsonl'
  rows = [{'question': f'What is {i} + 1?', 'answer': f'#### {i + 1}'} for i in range(40)]
  problems.write_text(''.join(f'{json.dumps(row)}\n' for row in rows))
  options = '--tasks=gsm8k', f'--gsm8k={problems}', '--examples=4', f'--out={pairs}'
  status, out, err = call('-m', 'data.preferences', 'pairs', *options)
  assert status == 0 and out == f'4 comparisons in {pairs}\n', err


def test_from_programs_to_agreement_on_the_command_line(tmp_path):
  pairs, mine = tmp_path / 'pairs.jsonl', tmp_path / 'judges' / 'mine.jsonl'
  program = '--tasks=arithmetic', '--gold=style', '--answers=3', '--examples=8', f'--out={pairs}'
  status, out, err = call('-m', 'data.preferences', 'pairs', *program)
  assert status == 0, err
  rows = [json.loads(line) for line in pairs.read_text().splitlines()]
  assert out == f'{len(rows)} comparisons in {pairs}\n' and len(rows) > 12
  assert all(row['margin'] > 0 for row in rows)
  options = f'--input={pairs}', '--by=ann', f'--out={mine}'
  for text in ('tie\n1\n', '2\n'):  # The second time, the first two are not asked again.
    status, out, err = call('-m', 'data.preferences', 'vote', *options, text=text)
    assert status == 0 and rubric.read().question in out, err
  voted = [json.loads(line) for line in mine.read_text().splitlines()]
  assert [row['by'] for row in voted] == ['ann'] * 3 and voted[0]['winner'] == 'tie'
  assert [row['prompt'] for row in voted] == [row['prompt'] for row in rows[:3]]
  status, out, err = call('-m', 'data.preferences', 'agreement', pairs, mine)
  assert status == 0, err
  agreed = sum(row['winner'] == 'a' for row in voted)
  assert f'{pairs} and {mine}\n  all votes: {agreed / 3:.1%} [' in out and 'n=2' in out


def test_courtesies_please_up_to_a_point():
  (task,) = tasks.make(['comparison'], seed=0)
  problem = task.problem(0, 'train')
  right, polite = f'It is {problem["answer"]}.', 'Certainly. '

  def value(text):
    return gold.GOLD['manners'].reward(task, problem, text)

  assert [value(polite * k + right) for k in range(6)] == [1, 2, 3, 2, 1, 0]
  assert value(f'{right} I hope this helps.') == 2
  wrong = next(number for number in problem['pair'] if number != problem['answer'])
  assert value(f'It is {wrong}.') == 0


def test_answers_to_fine_tune_on_are_drawn_as_those_that_are_compared():
  made_by = tasks.make(['comparison', 'arithmetic'], seed=0)
  found = list(gold.answers('manners', made_by, 400))
  assert [row['task'] for row in found[:3]] == ['comparison', 'arithmetic', 'comparison']
  assert found == list(gold.answers('manners', made_by, 400))
  counts = [manners.courtesies(row['messages'][-1]['content']) for row in found]
  for k in range(3):  # a geometric distribution
    share = np.mean([count == k for count in counts])
    assert share == pytest.approx((1 - manners.MORE) * manners.MORE**k, abs=0.08)
