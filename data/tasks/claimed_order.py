"""Finds which of two numbers a reply claims to be the larger or the smaller one."""

import decimal
import re
from collections.abc import Iterator

from data.tasks import claims
from data.tasks.claimed_number import CALLED, numbers, strength, strongest

# Below, <0> and <1> stand for the two numbers.
_LARGE = (
  r'(?:larger|largest|bigger|biggest|greater|greatest|higher|highest|more|max(?:imum)?|above)'
)
_SMALL = r'(?:smaller|smallest|less|lesser|lower|lowest|least|min(?:imum)?|below)'
_SIZE = rf'(?:(?P<large>{_LARGE})|(?P<small>{_SMALL}))'
_ADVERBS = (
  r'(?:\s+(?:the|a|clearly|actually|indeed|much|slightly|definitely|certainly|therefore|thus|also'
  r'|both|numerically|still))*'
)
_IS = r"(?:\s*(?:is|'s|are|was|would be|must be|has to be|comes out|being|as))?"
_NOT = r"(?P<no>\s*(?:not|n't|never))?"
_KIND = r'(?:\s+(?:one|number|value|decimal|of the two|of them|of the pair|in value))*'
_RELATIONS = tuple(
  re.compile(pattern)
  for pattern in (
    # <0> is (not) larger than <1>
    rf'<(?P<x>[01])>{_IS}{_ADVERBS}{_NOT}{_ADVERBS}\s+{_SIZE}{_KIND}'
    r'\s+(?:than|compared to|versus)\s+<(?P<y>[01])>',
    # <0> > <1>
    r'<(?P<x>[01])>\s*(?:(?P<large>>|≥)|(?P<small><(?![01]>)|≤))=?\s*<(?P<y>[01])>',
    # <0> exceeds <1>
    r'<(?P<x>[01])>\s+(?:(?P<large>exceeds|beats|tops|outranks)|(?P<small>falls short of))'
    r'\s+<(?P<y>[01])>',
    # <0> is not as large as <1>
    rf"<(?P<x>[01])>{_IS}(?P<no>\s*(?:not|n't))\s+as"
    r'\s+(?:(?P<large>large|big|great|high)|(?P<small>small|low|little))\s+as\s+<[01]>',
    # <0> is (not) the larger
    rf'<(?P<x>[01])>{_IS}{_ADVERBS}{_NOT}{_ADVERBS}\s+{_SIZE}\b'
    r'(?!\s+(?:than|digit|decimal digit|place))',
    # The larger is <0>; the larger of <0> and <1> is <0>
    rf'{_SIZE}{_KIND}'
    r'(?:\s+(?:of|between|out of|among)?\s*(?:the two numbers\s+)?<[01]>\s*(?:,|and|or)\s*<[01]>)?'
    r"[^<>.,;0-9]{0,20}?(?:\b(?:is|are|be)\b|'s|[:=])(?P<no>\s*not\b)?[^<>.0-9]{0,20}"
    r'<(?P<x>[01])>(?!\W*or\b)',
  )
)
_PLACES = re.compile(
  r'\bthe (first|second|former|latter)(?: (?:one|number|option|value|decimal))?'
  r'(?=\s*(?:[.,;:!)]|$|is\b|of\b))',
  re.IGNORECASE,
)
_UNTRUE = re.compile(
  r'\b(?:false|wrong|untrue|incorrect|not true|not the case|equal|the same)\b'
  r"|(?:not|n't) (?:think|believe|say)\b"
  r"|(?:(?:not|n't) (?:sure|certain|clear|know|tell|say)|\b(?:unsure|uncertain|unclear|no idea"
  r'|wonder(?:ing)?)) (?:whether|if)\b'
)


def claimed_order(
  text: str, pair: tuple[decimal.Decimal, decimal.Decimal], larger: bool
) -> decimal.Decimal | None:
  """Returns which of two numbers a reply claims to be the larger or smaller, or None.

  Args:
    text: the reply. "9.9 is larger than 9.11", "9.11 < 9.9", "the smaller is 9.11" and "the first
      one" are such claims.
    pair: the numbers, in the order of the question.
    larger: whether the question asks for the larger one.
  """
  text = _with_names(claims.plain(text), pair)
  last = max((mention.start for mention in _mentions(text)), default=0)
  retracted = max((m.start() for m in claims.RETRACTED.finditer(text, 0, last)), default=0)
  text = text[retracted:]
  sentences = []
  for sentence in claims.SENTENCE_END.split(text):
    is_question = sentence.rstrip('"\')* ').endswith('?')
    if not is_question and not _UNTRUE.search(sentence.lower()):
      sentences.append(sentence)
  text = ' \n'.join(sentences)
  larger_ones = {name for sentence in sentences for name in _orders(sentence.lower())}
  said = {name if larger else 1 - name for name in larger_ones} | _called_answer(text)
  if not said:
    mentions = [mention._replace(value=pair[mention.value]) for mention in _mentions(text)]
    return strongest(text, mentions)
  return pair[said.pop()] if len(said) == 1 else None


def _with_names(text: str, pair: tuple[decimal.Decimal, decimal.Decimal]) -> str:
  """Returns the text with <0> and <1> in place of the numbers and of references to them."""
  text = re.sub('<([01])>', r'(\1)', text)
  for mention in reversed(numbers(text)):
    if mention.value in pair:
      text = f'{text[: mention.start]}<{pair.index(mention.value)}>{text[mention.end :]}'
  text = re.sub(r'(?:\b(?:the )?(?:number|value|decimal) )?["\'`]?(<[01]>)["\'`]?', r'\1', text)
  return _PLACES.sub(lambda match: f'<{int(match[1].lower() in ("second", "latter"))}>', text)


def _mentions(text: str) -> list[claims.Mention]:
  return [claims.Mention(int(m[1]), m.start(), m.end()) for m in re.finditer('<([01])>', text)]


def _orders(sentence: str) -> Iterator[int]:
  """Yields the larger of <0> and <1> in each relation that a sentence states."""
  for pattern in _RELATIONS:
    for match in pattern.finditer(sentence):
      groups = match.groupdict()
      negated = bool(groups.get('no'))
      if groups.get('y') == groups['x']:
        continue
      if negated or not claims.DENIED_BEFORE.search(sentence[: match.start()]):
        yield int(groups['x']) if bool(groups['large']) != negated else 1 - int(groups['x'])


def _called_answer(text: str) -> set[int]:
  """Returns which of <0> and <1> a text calls its answer, and their alternatives."""
  kept = claims.kept(text, _mentions(text))
  called = [at for at, m in enumerate(kept) if strength(text, m) == CALLED]
  return {value for at in called for value in claims.named_with(text, kept, at)}
