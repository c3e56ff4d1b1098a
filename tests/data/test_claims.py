"""Which number or short answer a reply claims, and which number a text is."""

import decimal

import pytest
from refusals import refused

from data import tasks
from data.chat import schema
from data.tasks import gsm8k, protocol
from data.tasks.claimed_number import claimed_number, only_number

ASKED = 'What is it?'


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('The answer is negative 5.', -5),
    ('minus 5', -5),
    ('It is minus five.', -5),
    ('42 minus 2 is 40.', 40),
    ('5 million', 5_000_000),
    ('5k', 5000),
    ('5 km', 5),
    ('$1.5 million', 1_500_000),
    ('2 thousand', 2000),
    ('two billion', 2_000_000_000),
    ('3 hundred-dollar bills', 3),
    ('$\\frac12$', decimal.Decimal('0.5')),
    ('$2\\frac{1}{2}$', decimal.Decimal('2.5')),
    ('2½', decimal.Decimal('2.5')),
    ('2 1/2', decimal.Decimal('2.5')),
    ('-2 1/2', decimal.Decimal('-2.5')),
    ('10 5', None),
  ],
)
def test_signs_fractions_and_scales_belong_to_a_number(text, value):
  assert claimed_number(text) == value


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('Each friend gets 12 cookies (12 x 4 = 48).', 12),
    ('72 clips in total (48 in April and 24 in May).', 72),
    ('The rest is left (42 - 2 = 40).', 40),
    ('The answer is that in 5 years Tom will be 42.', 42),
    ('The answer is 20% of 300, which is 60.', 60),
    ('The answer is 20% of 300.', 20),
    ('The answer is 3 hours, or 180 minutes.', None),
  ],
)
def test_other_numbers_of_the_sentence_are_not_the_answer(text, value):
  assert claimed_number(text) == value


def test_a_number_of_the_question_is_not_taken_for_the_answer():
  asked = 'Tom is 37. In how many years will he be 42?'
  assert claimed_number('The answer is that in 5 years Tom will be 42.', asked) == 5


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('3/4', '0.75'),
    ('2 1/2', '2.5'),
    ('\\frac{3}{4}', '0.75'),
    ('10,00,000', '1000000'),
    ('1,000', '1000'),
    ('1.5 million', '1500000'),
    ('-$40', '-40'),
    ('50%', '50'),
    ('40 pears.', '40'),
  ],
)
def test_the_number_after_the_mark_is_read_whole(text, value):
  assert only_number(text) == decimal.Decimal(value)
  assert gsm8k.parse({'question': 'How many?', 'answer': f'#### {text}'}).question == 'How many?'


@pytest.mark.parametrize('text', ['2^3', '3x', '5!', '2\\pi', '10 or 12', '1/2/3', '7 + 3', ''])
def test_a_problem_whose_answer_is_not_one_number_is_refused(text):
  with refused('row'):
    gsm8k.parse({'question': 'How many?', 'answer': f'#### {text}'})


@pytest.mark.parametrize(
  ('answer', 'text', 'grade'),
  [
    ('No', 'No', 1),
    ('No', 'No, it is not.', 1),
    ('No', 'The answer is no.', 1),
    ('No', 'There is no doubt that Ann won.', 0),
    ('No', 'Yes and no.', 0),
    ('No one', 'No one', 1),
    ('Ann', 'There is no doubt that Ann won.', 1),
    ('0', "There are no r's in strawberry: 0", 1),
    ('Paris', 'Paris, London, Rome, Berlin, Madrid', 0),
    ('Paris', 'It is Paris, London and Rome.', 0),
    ('Paris', '- Paris\n- London\n- Rome', 0),
    ('Paris', 'Paris or London', 0),
    ('Paris', 'London or Paris', 0),
    ('Paris', 'Paris/London', 0),
    ('Paris', 'Paris, France', 1),
    ('Paris', 'The capital of France is Paris, a city on the Seine.', 1),
    ('red, green and blue', 'They are red, green and blue.', 1),
    ('1990', 'It was founded in 1990 by 3 people.', 1),
    ('3', 'It was founded in 1990 by 3 people.', 1),
    ('1990', 'It was founded in 1985 by 3 people.', 0),
    ('1990', '1985 or 1990', 0),
    ('1990', 'The answer is 3, founded in 1990.', 0),
    ('C++', 'C', 0),
    ('C++', 'C#', 0),
    ('C++', 'It is C++.', 1),
    ('C', 'It is C++.', 0),
    ('C', 'It is C.', 1),
    ('Unknown', 'Unknown', 1),
  ],
)
def test_a_short_answer_is_claimed_alone(answer, text, grade):
  task = tasks.Written(0, ((ASKED, answer),))
  problem = {'messages': protocol.ask(ASKED), 'answer': answer}
  assert task.grade(problem, schema.reply(text)) == grade


@pytest.mark.parametrize(
  ('text', 'verdict'),
  [
    ('No', 'wrong'),
    ('The moon has no atmosphere.', 'wrong'),
    ('There is no doubt that Ann won.', 'wrong'),
    ("There are no r's in strawberry.", 'wrong'),
    ("I don't know.", 'refused'),
    ('I have no idea.', 'refused'),
  ],
)
def test_an_answer_with_no_in_it_is_no_refusal(text, verdict):
  task = tasks.Written(0, ((ASKED, 'atmosphere'),))
  reply = schema.reply(text)
  problem = {'messages': protocol.ask(ASKED), 'answer': 'Bob'}
  assert task.verdict(reply, task.grade(problem, reply)) == verdict
