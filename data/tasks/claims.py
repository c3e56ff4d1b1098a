"""Decides what a text claims about the things that it mentions.

Graders find the answer that a reply claims with these rules: a number (claimed_number.py), the
larger of two (claimed_order.py), a name (claimed_name.py), a spelling (claimed_spelling.py) or a
short answer (claimed_answer.py). A thing that is denied ("not 41", "41 is wrong"), asked about
("41?") or retracted ("41. Wait, 42.") is not claimed. Of things named as alternatives ("41 or 42",
"41, 42") none is claimed.
"""

import decimal
import re
from collections.abc import Iterable
from typing import NamedTuple

_CHARACTERS = str.maketrans(
  {
    '\N{MINUS SIGN}': '-',
    '\N{EN DASH}': '-',
    '\N{FULLWIDTH HYPHEN-MINUS}': '-',
    '\N{NON-BREAKING HYPHEN}': '-',
    '\N{RIGHT SINGLE QUOTATION MARK}': "'",
    '\N{LEFT SINGLE QUOTATION MARK}': "'",
    '\N{LEFT DOUBLE QUOTATION MARK}': '"',
    '\N{RIGHT DOUBLE QUOTATION MARK}': '"',
    '\N{NO-BREAK SPACE}': ' ',
    '\N{MULTIPLICATION SIGN}': '*',
    '\N{DIVISION SIGN}': '/',
    '\N{DOT OPERATOR}': '*',
    '\N{MIDDLE DOT}': '*',
  }
)
_REWRITTEN = tuple(
  (re.compile(pattern), replacement)
  for pattern, replacement in (
    (r'(?<=[0-9])[\u2009\u202f](?=[0-9]{3})', ','),  # thousands
    (r'(?<![0-9])([0-9]{1,3}) (?=[0-9]{3}(?![0-9]))', r'\1,'),
    (r'\{,\}|,\\!', ','),  # LaTeX
    (r'(?<=[0-9])\s*(?=\\[dt]?frac\b|\\[dt]?frac[0-9])', ' '),  # a mixed number
    (r'\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}', r'\1/\2'),
    (r'\\[dt]?frac\s*\{?([0-9])\}?\s*\{?([0-9]+)\}?', r'\1/\2'),  # \frac12
    (r'\\(?:times|cdot)\b', '*'),
    (r'\\boxed\{([^{}]*)\}', r' answer: \1 '),
    (r'\\(?:text|textbf|mathbf)\{([^{}]*)\}', r'\1'),
    (r'\\[()\[\],;!]|\$\$', ' '),
    (r'\\([$%])', r'\1'),
    (r'(?<!\w)_([^_\n]+)_(?!\w)', r'\1'),  # Markdown
    (r'\*\*([^*\n]+)\*\*|(?<![\w*])\*(?=\S)([^*\n]+)(?<=\S)\*(?![\w*])', r'\1\2'),
  )
)
REACH = 200  # characters before and after a mention that determine what it is
SENTENCE_END = re.compile(r'(?<=[.!?])["\')\]]*\s+|\n+')
RETRACTED = re.compile(
  r'\b(?:wait|scratch that|correction|i mean|sorry|oops|on second thoughts?|actually|or rather)\b'
  r'|\blet me (?:correct|redo|recheck|reconsider|recalculate|fix)\b'
  r'|(?<=[.!?,;-])\s+no\b(?=[,.:;!\s]\s*)',
  re.IGNORECASE,
)
_BETWEEN = (  # words that may stand between a denial and what it denies
  r"(?:the|a|an|that|it|it's|is|was|be|been|to|in|of|by|from|called|named|function|module|number"
  r'|answer|result|think|believe|say|equal|equals|spelled|spelt|part|call|me|made|built|created'
  r'|developed|trained|read|learned|learn|on|either|really|actually|exactly|do|any|help|with'
  r'|about|questions|handle)'
)
DENIED_BEFORE = re.compile(
  r'(?:\b(?:not|never|neither|nor|cannot|without|rather than|instead of|other than'
  r'|except(?: for)?|unlike|as opposed to|nothing to do with|different from|anything but|far from'
  rf"|no longer)|n't)(?:\s+{_BETWEEN}\b)*\W*"
  r'(?:(?:\w+(?:\.\w+)*[^\w,]*,[^\w,]*)*\w+(?:\.\w+)*\W*\b(?:or|nor)\s\W*)?$',
  re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
  r'^[^\w,;:.]{0,3}\s*(?:(?:module|function|package|library|method) )?(?:'
  r"(?:is|was|are|were|did|does|do|has|have|had|would|could|can|will)(?:n't| not)\b"
  r'(?! (?:only|just|merely|simply)\b)|cannot\b'
  r'|(?:is|was|are|would be|seems|looks) (?:clearly |the |a )?'
  r'(?:wrong|incorrect|false|untrue|mistaken)\b)',
  re.IGNORECASE,
)
_OR = re.compile(r'\b(?:or|maybe|perhaps|possibly|alternatively|might|could)\b', re.IGNORECASE)
_MARKS = r'[\s,;/|&~()"\'`*]*'
_LIST = re.compile(rf'{_MARKS}(?:(?:and|to|vs\.?|versus|both)\b{_MARKS})*', re.IGNORECASE)


class Mention(NamedTuple):
  """A candidate for the answer, at `text[start:end]`."""

  value: decimal.Decimal | str
  start: int
  end: int


def plain(text: str) -> str:
  """Returns the text with quotes, minus signs, Markdown and LaTeX as plain characters."""
  text = text.translate(_CHARACTERS)
  for pattern, replacement in _REWRITTEN:
    text = pattern.sub(replacement, text)
  return text


def denied(text: str, mention: Mention, subject: bool = True) -> bool:
  """Returns whether the text says that the mentioned thing is not the answer.

  Args:
    text: the reply.
    mention: the thing.
    subject: whether 'NAME is not ...' and 'NAME cannot ...' deny it.
  """
  before, after = context(text, mention)
  return bool(DENIED_BEFORE.search(before) or (subject and _DENIED_AFTER.search(after)))


def context(text: str, mention: Mention) -> tuple[str, str]:
  """Returns the text before and after a mention in its sentence, up to `REACH` characters each."""
  before = text[max(mention.start - REACH, 0) : mention.start]
  start = max((m.end() for m in SENTENCE_END.finditer(before)), default=0)
  rest = text[max(mention.end - 1, 0) : mention.end + REACH]
  end = SENTENCE_END.search(rest)
  return before[start:], rest[1 : end.start() if end else None]


def asked(text: str, mention: Mention) -> bool:
  """Returns whether a thing is only asked about, as in 'Is it 41?'"""
  rest = context(text, mention)[1].rstrip('"\')* ')
  # 'It is 41, right?' is not a question.
  return rest.endswith('?') and not re.search('[,;:]', rest)


def kept(text: str, mentions: Iterable[Mention]) -> list[Mention]:
  """Returns the mentions that are not denied, asked about or retracted."""
  claimed = [m for m in mentions if not denied(text, m) and not asked(text, m)]
  last = max((m.start for m in claimed), default=0)
  retracted = max((m.start() for m in RETRACTED.finditer(text) if m.start() <= last), default=0)
  return [m for m in claimed if m.start >= retracted]


def named_with(text: str, mentions: list[Mention], at: int) -> set:
  """Returns the values that are named as alternatives to a mention, and its own."""
  first = last = at
  while first and alternatives(text, mentions[first - 1], mentions[first]):
    first -= 1
  while last + 1 < len(mentions) and alternatives(text, mentions[last], mentions[last + 1]):
    last += 1
  return {mention.value for mention in mentions[first : last + 1]}


def alternatives(text: str, one: Mention, other: Mention) -> bool:
  """Returns whether two successive mentions are named as alternatives or as items of a list."""
  between = text[one.end : other.start]
  if len(between) >= 80:
    return False
  steps = '=' in text[one.start : one.end] or '=' in text[other.start : other.end]
  return bool(_OR.search(between) or (not steps and _LIST.fullmatch(between)))
