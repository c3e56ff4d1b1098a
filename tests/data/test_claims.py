"""Which number a reply claims, and which number a text is."""

import decimal

import pytest
from refusals import refused

from data.tasks import gsm8k
from data.tasks.claimed_number import claimed_number, only_number


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
