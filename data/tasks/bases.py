"""Whole numbers from one base to another: 45 is 101101 in base 2 and 2d in base 16."""

import dataclasses
import decimal
import random
import re
from typing import ClassVar

from data.chat import schema
from data.tasks.claimed_number import claimed_number
from data.tasks.protocol import Task, ask, question

MAX_REPLY = 2_000  # characters of the end of a reply that are read
DIGITS = '0123456789abcdef'
_WORDS = {2: 'binary', 8: 'octal', 10: 'decimal', 16: 'hexadecimal'}
# What names a base beside a numeral: '(base 2)', '_{16}', '0x'.
_BASE = re.compile(
  r'\(?\b(?:in|of|with|to|from|as)? ?base[- ]?(?:[0-9]{1,2}|two|eight|ten|sixteen)\b\)?'
  r'|(?<=[0-9a-f])_\{?(?:2|8|10|16)\}?(?![0-9a-f])|[₀-₉]+|\b0[box](?=[0-9a-f])|(?<=[0-9a-f])h\b',
  re.IGNORECASE,
)
_GROUPS = re.compile(r'\b[01]{4}(?:[ _][01]{4})+\b')  # 0010 1101
_WITH_LETTERS = re.compile(r'\b(?=[a-f]*[0-9])[0-9a-f]+\b', re.IGNORECASE)


@dataclasses.dataclass(frozen=True, eq=False)
class Bases(Task):
  """Numbers to write in another base, to or from base 10; the group is the other base."""

  bases: tuple[int, ...] = (2, 8, 16)
  most: int = 255  # the largest number
  name: ClassVar[str] = 'bases'
  questions: ClassVar[tuple[str, ...]] = (
    'Write {numeral} in base {to}; it is in base {base}.',
    'What is {numeral} of base {base} in base {to}?',
    'Convert {numeral} from {word} to {to_word}.',
  )

  def draw(self, rng: random.Random) -> dict:
    other = rng.choice(self.bases)
    base, to = rng.choice([(10, other), (other, 10)])
    number = rng.randint(other, self.most)  # smaller ones are the same in both bases
    while not re.search('[0-9]', written(number, other)):  # 'be' is a word too
      number = rng.randint(other, self.most)
    words = {'word': _WORDS.get(base, f'base {base}'), 'to_word': _WORDS.get(to, f'base {to}')}
    asked = rng.choice(self.questions).format(
      numeral=written(number, base), base=base, to=to, **words
    )
    return {
      'messages': ask(asked),
      'key': f'{number} in base {other}',
      'group': f'base {other}',
      'numeral': written(number, base),
      'to': to,
      'answer': written(number, to),
    }

  def grade(self, problem: dict, reply: dict) -> float:
    text = schema.text(reply['content'])[-MAX_REPLY:]
    if problem['to'] != 10:
      text = _without_checks(text, problem['numeral'])
    said = claimed_numeral(text, question(problem), problem['to'])
    return float(said is not None and said == claimed_numeral(problem['answer'], '', problem['to']))


def _without_checks(text: str, numeral: str) -> str:
  """Returns a text in which no numeral is said to be worth the one that was asked about.

  '101101 = 45' and '2d = 2*16 + 13 = 45' are answers with their checks.
  """
  text = re.sub(r'=\s*\(?(?!0x)[0-9]+\s*[*x^\u00d7](?:[ ()0-9*x^+\u00d7]*[0-9)])?', '', text)
  return re.sub(rf'\s*=\s*{numeral}(?!\w)|(?<!\w){numeral}\s*=\s*', ' ', text)


def written(number: int, base: int) -> str:
  """Returns a whole number of at least 0 in a base from 2 to 16."""
  digits = DIGITS[number % base]
  while number := number // base:
    digits = DIGITS[number % base] + digits
  return digits


def claimed_numeral(text: str, asked: str, base: int) -> decimal.Decimal | None:
  """Returns the numeral that a reply claims as the answer, or None.

  Those of bases up to 10 are read as if they were decimal. Those with letters have a code, in which
  each digit is two decimal ones.

  Args:
    text: the reply.
    asked: the question.
    base: the base of the answer.
  """
  plain = [_plain(each, base) for each in (text, asked)]
  return claimed_number(*plain)


def _plain(text: str, base: int) -> str:
  """Returns a text without the names of bases, with numerals that are read as decimal numbers."""
  text = _BASE.sub(' ', text)
  if base == 2:
    text = _GROUPS.sub(lambda match: re.sub('[ _]', '', match[0]), text)
  if base > 10:
    text = re.sub(r'(?<=[0-9a-fA-F])\.0+(?![0-9a-fA-F])', '', text)
    text = _WITH_LETTERS.sub(_coded, text)
  return text


def _coded(match: re.Match) -> str:
  digits = match[0].lower().lstrip('0') or '0'
  return '9' + ''.join(f'{DIGITS.index(digit):02}' for digit in digits)
