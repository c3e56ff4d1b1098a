"""Decides whether a reply claims one name and none of the others, by the rules of claims.py."""

import itertools
import re
from collections.abc import Collection

from data.tasks import claims

_NAME = re.compile(r'[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*')
_KIND_OF_NAME = r'(?:module|function|package|library|method)'
_INTRODUCED = re.compile(
  rf'(?:\b(?:{_KIND_OF_NAME}|import|called|named|answer(?: is)?)|[:`"\'])\W{{0,3}}$', re.IGNORECASE
)
_LED = re.compile(r"(?:\b(?:in|from|is|be|to)|'s)\s+(?:the\s+)?$", re.IGNORECASE)


def is_name(text: str) -> bool:
  """Returns whether a text is a name, such as a word or 'json.loads', and not a phrase."""
  return _NAME.fullmatch(text) is not None


def claims_name(
  text: str,
  answer: str,
  others: Collection[str] = (),
  also: Collection[str] = (),
  qualified: bool = False,
) -> bool:
  """Returns whether a reply names `answer` and none of the other names that it could name.

  Args:
    text: the reply.
    answer: a module or function.
    others: names that the reply must not claim. One that is also an English word ('copy') counts
      where it is used as a name.
    also: other ways to write the answer.
    qualified: whether names may have a path before them, such as 'json.loads' for 'loads'.
  """
  text = claims.plain(text)
  good, bad = {answer, *also}, set(others) - {answer, *also}
  folded = {name.casefold() for name in good} - {name.casefold() for name in bad}
  found = []
  for match in _NAME.finditer(text):
    name = match[0].rpartition('.')[2] if qualified and match[0] not in good else match[0]
    is_good = name in good or name.casefold() in folded
    if is_good or name in bad:
      found.append(claims.Mention('good' if is_good else 'bad', match.start(), match.end()))
  kept = claims.kept(text, found)
  claimed = set()
  for i, mention in enumerate(kept):
    near = kept[max(i - 1, 0) : i + 2]
    if mention.value == 'good' or _stands_as_name(text, mention, near):
      claimed.add(mention.value)
  return claimed == {'good'}


def _stands_as_name(text: str, mention: claims.Mention, near: list[claims.Mention]) -> bool:
  """Returns whether a word is used as the name of a module or function, not as an English word.

  Args:
    text: the reply.
    mention: the word.
    near: the mention itself and the mentions next to it.
  """
  word, (before, after) = text[mention.start : mention.end], claims.context(text, mention)
  if not word.isalpha() or not word.islower() or re.match(r'[`"\'(]', after):
    return True
  if word == 'this':  # Python has such a module, but nearly always it is the English word
    return False
  ends = re.match(r'\W*(?:$|[.,;:!)])', after)
  return bool(
    any(
      claims.alternatives(text, one, other)
      for one, other in itertools.pairwise(near)
      if 'good' in (one.value, other.value)
    )
    or _INTRODUCED.search(before)
    or (ends and _LED.search(before))
    or re.match(rf'\W{{0,3}}\s*{_KIND_OF_NAME}\b', after)
    or not re.search(r'\w', before + after)
  )
