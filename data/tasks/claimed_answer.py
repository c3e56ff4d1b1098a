"""Decides whether a reply claims a number or a few words, by the rules of claims.py."""

import decimal
import re

from data.tasks import claims
from data.tasks.claimed_number import claimed_number

_NUMBER = re.compile(r'[-+]?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?%?')


def claims_answer(text: str, answer: str, question: str = '') -> bool:
  """Returns whether a reply claims an answer: the number, or the words in order and in any case.

  Args:
    text: the reply.
    answer: a number, such as '1,000', or words.
    question: what was asked, whose numbers are no claim where the reply only repeats them.
  """
  number = claims.plain(answer).strip()
  if _NUMBER.fullmatch(number):
    return claimed_number(text, question) == decimal.Decimal(re.sub('[$,%]', '', number))
  text = claims.plain(text)
  words = re.findall(r'\w+', claims.plain(answer))
  pattern = r'(?<!\w)' + r'\W+'.join(map(re.escape, words)) + r'(?!\w)'
  found = re.finditer(pattern, text, re.IGNORECASE)
  return bool(claims.kept(text, [claims.Mention(answer, *match.span()) for match in found]))
