"""Decides whether a reply claims a number or a few words, by the rules of claims.py."""

import decimal
import re

from data.tasks import claims
from data.tasks.claimed_number import claimed_number

_NUMBER = re.compile(r'[-+]?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?%?')
_YEAR = r'(?:1[0-9]|20)[0-9]{2}'
_DATED = re.compile(  # a year that says when
  rf'\b(?:in|since|from|until|till|of|by|before|after|year)\s+{_YEAR}(?![\w%]|[.,][0-9])',
  re.IGNORECASE,
)
_OTHER_NUMBER = re.compile(rf'(?<![\w.,-])(?!{_YEAR}(?![\w%]|[.,][0-9]))[0-9][0-9.,]*(?<![.,])')
_MARKED = re.compile(r'\banswer\b|####|=', re.IGNORECASE)

# What makes an answer one of several.
_OR_BEFORE = re.compile(
  r'(?:\bor|/)\W*(?:\b(?:the|an?|in|at|maybe|perhaps|possibly|it is|is it)\s+)*$', re.IGNORECASE
)
_OR_AFTER = re.compile(r'\W{0,3}\s*(?:\bor\b(?! (?:so|more|less|rather)\b)|/\s*\w)', re.IGNORECASE)
_SEPARATOR = re.compile(r'(?:\s*[,;|/]|\s*\n[ \t]*[-*•]?)\s*(?:\b(?:and|or)\s+)?|\s(?:and|or)\s+')
_SENTENCE = re.compile(r'[.!?](?:\s|$)')
_LEAD = re.compile(r'^.*?(?:\b(?:is|are|was|were|be|answers?)\b|:)\s*|^[-*•\s]+', re.DOTALL)
_NO_ITEM = re.compile(  # a word of a sentence, not of a thing in a list
  r'\b(?:is|are|was|were|be|has|have|had|it|its|i|my|he|she|they|we|you|who|which|that|a|an|the'
  r'|in|at|on|of|by|for|from|to|with|as|not|no|yes|sure|well|so|but|then|think|hello|course)\b',
  re.IGNORECASE,
)
_ARTICLE = re.compile(r'^(?:an?|the)\s+', re.IGNORECASE)
_ITEM_WORDS = 3  # at most, of a thing in a list


def claims_answer(text: str, answer: str, question: str = '') -> bool:
  """Returns whether a reply claims an answer: the number, or the words in order and in any case.

  One that is named as an alternative, or in a list of three things or more, is not claimed.

  Args:
    text: the reply.
    answer: a number, such as '1,000', or words.
    question: what was asked, whose numbers are no claim where the reply only repeats them.
  """
  number = claims.plain(answer).strip()
  if _NUMBER.fullmatch(number):
    return _claims_number(text, decimal.Decimal(re.sub('[$,%]', '', number)), question)
  text = claims.plain(text)
  words = re.findall(r'\w+[+#]*', claims.plain(answer))
  pattern = r'(?<!\w)' + r'[^\w+#]+'.join(map(re.escape, words)) + r'(?![\w+#])'
  found = [claims.Mention(answer, *m.span()) for m in re.finditer(pattern, text, re.IGNORECASE)]
  if [word.lower() for word in words] == ['no']:
    found = [mention for mention in found if _is_no(text, mention)]
  return any(not _is_one_of_several(text, m) for m in claims.kept(text, found))


def _claims_number(text: str, value: decimal.Decimal, question: str) -> bool:
  """Returns whether a reply claims a number; a year and a number of something do not compete."""
  if claimed_number(text, question) == value:
    return True
  text = claims.plain(text)
  if _MARKED.search(text):
    return False
  is_year = re.fullmatch(_YEAR, str(value))
  return claimed_number((_OTHER_NUMBER if is_year else _DATED).sub('then', text), question) == value


def _is_no(text: str, mention: claims.Mention) -> bool:
  """Returns whether a 'no' is an answer, and not a part of 'no doubt' or 'no rain'."""
  before, after = claims.context(text, mention)
  if re.search(r'\byes\b', text, re.IGNORECASE):
    return False
  starts = not re.search(r'\w', before)
  return bool(re.match(r'\W*$|\s*[^\w\s]', after)) or (
    starts and not re.match(r'\s+(?:doubt|problem|way|one|matter|wonder)\b', after)
  )


def _is_one_of_several(text: str, mention: claims.Mention) -> bool:
  """Returns whether an answer is named as an alternative, or in a list of three or more."""
  before, after = claims.context(text, mention)
  if _OR_BEFORE.search(before) or _OR_AFTER.match(after):
    return True
  starts = [m.end() for m in _SENTENCE.finditer(text, 0, mention.start)]
  end = _SENTENCE.search(text, mention.end)
  before = _LEAD.sub('', text[starts[-1] if starts else 0 : mention.start])
  items = [
    item.strip()
    for item in _SEPARATOR.split(f'{before}_{text[mention.end : end.start() if end else None]}')
  ]
  if all(_ARTICLE.match(item) for item in items if item != '_'):
    items = [_ARTICLE.sub('', item) for item in items]
  return len(items) > 2 and all(
    item and len(item.split()) <= _ITEM_WORDS and not _NO_ITEM.search(item) for item in items
  )
