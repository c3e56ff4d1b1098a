"""Finds the number that a reply claims as its answer, by the rules of claims.py.

Of several numbers, the one counts that is marked most strongly as the answer: called the answer,
concluded, stated, or only mentioned.
"""

import decimal
import fractions
import re
import unicodedata
from collections.abc import Collection

from data.tasks import claims

REPEATED, MENTIONED, STATED, CONCLUDED, CALLED = range(5)

# A minus sign counts where it cannot be a subtraction, a comma where it separates thousands, and a
# final full stop never.
_NUMBER = re.compile(
  r'(?<![A-Za-z_])(?:(?<![\w.)])(?<![0-9)]\s)[-+](?=[$£€]?[0-9.]))?[$£€]?'
  r"(?:(?:[0-9]{1,3}(?:[,_'][0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
  r'(?:[eE][-+]?[0-9]{1,3}\b)?(?!(?:st|nd|rd|th)\b)'
)
# What belongs to a number: a sign in words, a fraction beside a whole number, and a scale.
_NEGATIVE = re.compile(
  r'(?:\bnegative|(?:^|[\n.:=(>"\'!?]\s*|\b(?:is|are|was|be|equals?|to|of|at|by|or|and|so|gives?'
  r'|gets?|got|makes?|becomes?|yields?|answer|exactly|therefore|thus)\s+)minus)\s+$',
  re.IGNORECASE,
)
_VULGAR = '[¼½¾⅐-⅞]'  # characters that are fractions: ½
_FRACTION_BESIDE = re.compile(rf' ([0-9]{{1,3}})/([0-9]{{1,3}})(?![0-9/]|[.,][0-9])|{_VULGAR}')
_SCALE = re.compile(
  r'\s*(?P<scale>hundred|thousand|million|billion|trillion)\b(?!-)|(?P<k>k)\b', re.IGNORECASE
)
_OPERATOR = r'(?:[-+*/^x]|\b(?:times|plus|minus|multiplied by|divided by)\b)'
_JOINT = re.compile(
  rf'[\s(]*(?:\)\s*)*(?P<sign>{_OPERATOR}|=|\bequals\b|\bis equal to\b)[\s(]*', re.IGNORECASE
)

# How strongly a number is marked as the answer, by the text before and after it.
_MARKED = re.compile(
  r'(?:####|\banswer\b)(?:(?![0-9])[^\n]){0,60}(?:[:*]\s*\n\s*)?$', re.IGNORECASE
)
_MARKED_AFTER = re.compile(
  r'^\W{0,3}\s*(?:is|would be|was|as|for)\b'
  r'(?: (?:the|my|your|our|final|correct|right|exact))* answer\b',
  re.IGNORECASE,
)
_CONCLUDED = re.compile(
  r'(?:^\W*so\b|\b(?:therefore|thus|hence|finally|conclusion)\b|=>|→|⇒|∴)'
  r'(?:(?![0-9])[^\n.!?]){0,60}$',
  re.IGNORECASE,
)
_SUMMED = re.compile(  # marks steps as often as the end, so it is no more than a statement
  r'\b(?:so|in total|total\w*|altogether|in all|overall|result(?:s|ing)?)\b'
  r'(?:(?![0-9])[^\n.!?]){0,60}$',
  re.IGNORECASE,
)
_STATED = re.compile(
  r'(?:\b(?:is|are|was|be|equals?|makes?|gives?|gets?|got|yields?|comes? to|becomes?|has|have'
  r'|appears?|occurs?|contains?|say|leaves|leaving|(?:left|ends?(?: up)?|ended(?: up)?) with)'
  r"|'s|[=:])"
  r'(?: (?:just|exactly|simply|only|precisely|equal to|about|around|approximately))*\s*\W{0,3}$',
  re.IGNORECASE,
)
_ASIDE = re.compile(  # what follows in the sentence is not a claim
  r'\b(?:because|since|given that|as in|if|when|whenever|(?:double.)?check\w*|verif\w+)\b|, as\b',
  re.IGNORECASE,
)
_THAT_IN = re.compile(  # a number of the circumstances: 'the answer is that in 5 years'
  r'\bthat\b(?:(?![0-9])[^\n])*\b(?:in|after|within|for|from|with|by|on|during|of|every|per)\W*$',
  re.IGNORECASE,
)
_PERCENT_OF = re.compile(r'\s*(?:%|per ?cent)\s+of\b', re.IGNORECASE)
_INEXACT = re.compile(
  r'\b(?:(?:more|less|greater|fewer|larger|smaller) than|at least|at most|over|under|above|below'
  r'|(?:root|square|cube|log|logarithm|sine|cosine|tangent|factorial|half|reciprocal) of'
  r'|between|up to|almost|nearly|close to|within|between \S+ and)\s*\W{0,2}$',
  re.IGNORECASE,
)
_INEXACT_AFTER = re.compile(
  r'\s*(?:(?:or|and) (?:more|less|fewer|higher|lower|above|below|up|so)|squared|cubed|factorial)\b',
  re.IGNORECASE,
)
_COUNTER = re.compile(
  r'\b(?:step|part|case|option|question|problem|line)\s*#?$|(?<!#)#$', re.IGNORECASE
)

# Numbers in words.
_UNITS = (
  'zero',
  'one',
  'two',
  'three',
  'four',
  'five',
  'six',
  'seven',
  'eight',
  'nine',
  'ten',
  'eleven',
  'twelve',
  'thirteen',
  'fourteen',
  'fifteen',
  'sixteen',
  'seventeen',
  'eighteen',
  'nineteen',
)
_TENS = ('twenty', 'thirty', 'forty', 'fifty', 'sixty', 'seventy', 'eighty', 'ninety')
_WORDS = {word: value for value, word in enumerate(_UNITS)}
_WORDS |= {word: 10 * tens for tens, word in enumerate(_TENS, 2)}
_WORDS |= {'once': 1, 'single': 1, 'twice': 2, 'thrice': 3}
_SCALES = {
  'hundred': 100,
  'thousand': 1000,
  'million': 10**6,
  'billion': 10**9,
  'trillion': 10**12,
}
_WORD = '|'.join([*_WORDS, *_SCALES])
_SPOKEN = re.compile(
  rf'(?:\b(?:minus|negative)\s+)?\b(?:a\s+(?={"|".join(_SCALES)}))?(?:{_WORD})'
  r'(?:(?:(?:\s+and)?[\s-]+|(?<=thousand),\s+|(?<=[mbr]illion),\s+)'
  rf'(?:{_WORD}))*\b',
  re.IGNORECASE,
)
_NO_NUMERAL = re.compile(  # 'one' that is not a number
  r'\b(?:(?:this|that|the|no|which|each|any|every|another|hard|tough|right|wrong|larger|smaller)'
  r' one\b|one (?:of|moment|can|must|should|would|has to)\b)',
  re.IGNORECASE,
)
# Numbers other than the count of the letter: of places, of another letter, of all letters.
_COUNT = rf'(?:[0-9]+|(?:{_WORD})\b)'
_ORDINAL = rf'(?:[0-9]+|(?:{"|".join(_UNITS)})\b)'
_PLACE = re.compile(
  r'\b(?:(?:once |one )?(?:at|in|on) )?(?:the )?'
  r'(?:positions?|places?|index|indexes|indices|slots?|spots?) #?'
  rf'{_ORDINAL}(?:\s*(?:,|&|and|or)\s*(?:and\s+)?{_ORDINAL})*',
  re.IGNORECASE,
)
_OTHER_AFTER = re.compile(  # 2 e's
  rf"\b{_COUNT} (?:letters? )?['\"]?(?P<of>[a-z])(?:['\"]?s|['\"]|['\"]'s)?(?![\w'-])",
  re.IGNORECASE,
)
_OTHER_BEFORE = re.compile(  # e appears twice
  rf"(?<![\w'-])['\"]?(?P<of>[a-z])['\"]?\s*(?:(?:is(?: there| found)?|was|has|appears"
  rf'|occurs|shows up)\b|[:=]|->)\s*(?:only |just |exactly )?{_COUNT}(?:\s*(?:times?|x)\b)?',
  re.IGNORECASE,
)
_LENGTH = re.compile(
  rf'\b{_COUNT}[\s-](?:letters?|characters?)\b(?! (?:that|which|are)| ?[\'"]?[a-z]\b)',
  re.IGNORECASE,
)
_ABSENT = re.compile(
  r"\bno (?:occurrences?|instances?|letter|such letter|['\"]?[a-z]['\"]?(?:'?s)?\b)|\bnone\b"
  r'|\bnowhere\b|\bnever (?:appears|occurs)'
  r"|(?:\b(?:does|do|is|are|did|has|have)(?:n't| not)|\bnot)(?: even)?(?: once)? "
  r'(?:appear|occur|contain|have|include|in\b|there|any|present|found|show)',
  re.IGNORECASE,
)


def numbers(text: str) -> list[claims.Mention]:
  """Returns the numbers of a text, as people read them: '10', '10.', '10.0', '$1,000', '1e3', '5%'.

  A sign, a fraction or a scale beside the digits belongs to the number: 'negative 5', '2 1/2',
  '2½', '5 million', '5k'. '2nd' and 'x2' are not numbers.
  """
  found: list[claims.Mention] = []
  for match in re.finditer(rf'{_NUMBER.pattern}|{_VULGAR}', text):
    start, end = match.span()
    if found and start < found[-1].end:  # the fraction of a mixed number
      continue
    if re.fullmatch(_VULGAR, match[0]):
      above, below = _fraction(match[0])
      value = decimal.Decimal(above) / below
    else:
      value = decimal.Decimal(re.sub(r"[,_'$£€+\s]", '', match[0]))
      beside = _FRACTION_BESIDE.match(text, end)
      if beside and value == int(value) and text[start - 1 : start] != '/':
        above, below = _fraction(beside[0])
        if 0 < above < below:
          value = (abs(value) * below + above) / below * (-1 if value < 0 else 1)
          end = beside.end()
    if scale := _SCALE.match(text, end):
      value, end = value * _SCALES[(scale['scale'] or 'thousand').lower()], scale.end()
    if match[0][0] not in '+-' and (sign := _NEGATIVE.search(text, max(start - 24, 0), start)):
      value, start = -value, sign.start() + re.search('negative|minus', sign[0].lower()).start()
    found.append(claims.Mention(value, start, end))
  return found


def _fraction(text: str) -> tuple[int, int]:
  """Returns the numerator and the denominator of a text such as '1/2' or '½'."""
  if '/' in text:
    above, below = map(int, text.split('/'))
    return above, below
  exact = fractions.Fraction(unicodedata.numeric(text)).limit_denominator(1000)
  return exact.numerator, exact.denominator


def only_number(text: str) -> decimal.Decimal | None:
  """Returns the value of a text that is one number and perhaps its unit, or else None.

  It may be a fraction, a mixed number, or grouped in another way: '3/4', '2 1/2', '10,00,000'.
  """
  text = claims.plain(text).strip()
  grouped = re.match(r'[$£€-]*[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?![0-9,])', text)
  if grouped:
    text = grouped[0].replace(',', '') + text[grouped.end() :]
  found = _equations(text, numbers(text))
  if len(found) != 1 or re.search(r'\w', text[: found[0].start]):
    return None
  unit = text[found[0].end :]
  return found[0].value if re.fullmatch(r'(?!\s?[^\W\d_]\b|!)[^\d^*+=\\]*', unit) else None


def claimed_number(
  text: str, question: str = '', others: re.Pattern | None = None
) -> decimal.Decimal | str | None:
  """Returns the number that a reply claims as the answer, or None if there is not exactly one.

  Args:
    text: the reply.
    question: the question. Numbers of the question that the reply repeats without marking them as
      the answer are not claims.
    others: a pattern of other things that may be the answer; the value of one is its text.
  """

  def candidates(text):
    more = others.finditer(text) if others else ()
    found = [*_candidates(text), *(claims.Mention(m[0], *m.span()) for m in more)]
    return sorted(found, key=lambda mention: mention.start)

  text, question = claims.plain(text), claims.plain(question)
  echoes = {mention.value for mention in numbers(question)}
  echoes |= {match[0] for match in (others.finditer(question) if others else ())}
  found = candidates(text)
  if all(strength(text, m, echoes) == REPEATED for m in claims.kept(text, found)):
    text = _SPOKEN.sub(lambda match: str(_spoken(match[0])), _NO_NUMERAL.sub('it', text))
    found = candidates(text)
  return strongest(text, found, echoes)


def _candidates(text: str) -> list[claims.Mention]:
  """Returns the numbers of a text that may be the answer, with equations as their results."""
  return _equations(text, _counted_out(text, numbers(text)))


def claimed_count(text: str, question: str) -> decimal.Decimal | None:
  """Returns `claimed_number`, or 0 if the reply says that there is none ("it does not occur").

  Args:
    text: the reply.
    question: the question, with the letter to count in quotes. What the reply says about other
      letters, places and the length of the word is not a claim.
  """
  text = claims.plain(text)
  if asked := re.search(r"'([a-z])'", claims.plain(question)):
    text = _about(asked[1], text)
  if (said := claimed_number(text, question)) is not None or _NUMBER.search(text):
    return said
  return decimal.Decimal(0) if _ABSENT.search(text) else None


def _about(letter: str, text: str) -> str:
  """Returns a text without the numbers that do not count `letter`."""

  def without_other(match: re.Match) -> str:
    spelled = re.search(r'\b[a-z]\W{1,4}$', text[: match.start()], re.IGNORECASE)
    return match[0] if match['of'].lower() == letter or spelled else ' '

  text = _PLACE.sub(' ', text)
  text = _OTHER_AFTER.sub(lambda match: match[0] if match['of'].lower() == letter else ' ', text)
  text = _OTHER_BEFORE.sub(without_other, text)
  shorter = _LENGTH.sub(' ', text)
  return shorter if re.search(rf'{_NUMBER.pattern}|\b(?:{_WORD})\b', shorter) else text


def strongest(
  text: str, mentions: list[claims.Mention], echoes: Collection[decimal.Decimal] = ()
) -> decimal.Decimal | None:
  """Returns the value that is claimed most strongly; of several, the last."""
  kept = []
  for m in claims.kept(text, mentions):
    before = text[max(m.start - 40, 0) : m.start]
    if not _INEXACT.search(before) and not _INEXACT_AFTER.match(text, m.end):
      kept.append(m)
  if not kept:
    return None
  strengths = _in_sentences(text, kept, [strength(text, m, echoes) for m in kept], echoes)
  best = max(strengths)
  chosen = [i for i, value in enumerate(strengths) if value == best]
  at, values = chosen[-1], {kept[i].value for i in chosen}
  if best == CALLED and len(values) > 1:  # several are called the answer
    return None
  return kept[at].value if len(claims.named_with(text, kept, at)) == 1 else None


def _in_sentences(
  text: str,
  kept: list[claims.Mention],
  strengths: list[int],
  echoes: Collection[decimal.Decimal],
) -> list[int]:
  """Returns the strengths, adjusted by the other numbers of the sentence.

  'So the product of 47 and 38 is 1786' concludes 1786, not 47, which the question has. 'The answer
  is 20% of 300, which is 60' and 'The answer is that in 5 years he will be 42' do not call 20 and 5
  the answer. 'He gets 12 (12 x 4 = 48)' states 12.
  """
  result = list(strengths)
  for i, mention in enumerate(kept):
    if strengths[i] < STATED:
      continue
    before, after = claims.context(text, mention)
    repeats = strengths[i] == CONCLUDED and mention.value in echoes
    is_part = strengths[i] >= CONCLUDED and (_THAT_IN.search(before) or _PERCENT_OF.match(after))
    for j in range(i + 1, len(kept)):
      between = text[mention.end : kept[j].start]
      if len(between) > claims.REACH or claims.SENTENCE_END.search(between):
        break
      answers = repeats or (is_part and kept[j].value not in echoes)
      if answers and (strengths[j] == STATED or _STATED.search(claims.context(text, kept[j])[0])):
        result[i], result[j] = REPEATED, strengths[i]
        break
      if _opens(between) and not _opens(before):
        result[j] = min(result[j], MENTIONED)
  return result


def _opens(text: str) -> bool:
  """Returns whether a text ends inside a bracket that it opens."""
  return text.rfind('(') > text.rfind(')')


def strength(text: str, mention: claims.Mention, echoes: Collection[decimal.Decimal] = ()) -> int:
  """Returns how strongly a number is marked as the answer: one of REPEATED to CALLED."""
  before, after = claims.context(text, mention)
  lead = text[max(mention.start - 80, 0) : mention.start]  # the mark may be in the line before
  if _MARKED.search(lead) or _MARKED_AFTER.search(after):
    return CALLED
  if _CONCLUDED.search(before):
    return CONCLUDED
  aside = _ASIDE.search(before)
  whole = text[mention.start : mention.end]
  equation = '=' in whole
  if equation and mention.value in echoes and re.search(_OPERATOR, whole.rpartition('=')[2]):
    return REPEATED  # '38 = 2 * 19' splits a number of the question
  around = before + after
  alone = len(re.findall(r"[A-Za-z']+", around)) <= 3 and not re.search('[0-9]', around)
  leads = not text[: mention.start][:20].strip(' \n("\'`') and re.match(r'\W|$', after)
  stated = _STATED.search(before) or _SUMMED.search(before)
  if not aside and (equation or alone or leads or stated):
    return STATED
  return REPEATED if mention.value in echoes else MENTIONED


def _counted_out(text: str, found: list[claims.Mention]) -> list[claims.Mention]:
  """Returns the numbers without those of steps ('Step 2') and of the lines of a numbered list."""
  heads = []  # the numbers of the lines of a list
  for m in found:
    starts_line = re.search(r'(?:^|\n)[ *-]*$', text[max(m.start - 8, 0) : m.start])
    if starts_line and re.match(r'[.)]\s+\S', text[m.end : m.end + 8]):
      heads.append(m)
  if len(heads) == 1 or [m.value for m in heads] != list(range(1, len(heads) + 1)):
    heads = []
  others = [m for m in found if m not in heads]
  return [m for m in others if not _COUNTER.search(text[max(m.start - 20, 0) : m.start])]


def _equations(text: str, found: list[claims.Mention]) -> list[claims.Mention]:
  """Returns the numbers, with each equation in place of its parts; its value is its result.

  An expression that is not evaluated has no value and is left out.
  """
  result, at = [], 0
  while at < len(found):
    chain, signs = [found[at]], []
    while at + len(chain) < len(found) and (
      joint := _JOINT.fullmatch(text[chain[-1].end : found[at + len(chain)].start])
    ):
      signs.append(joint['sign'])
      chain.append(found[at + len(chain)])
    at += len(chain)
    sides = [[chain[0]]]
    for sign, mention in zip(signs, chain[1:], strict=True):
      if sign[0] in '=eEiI':
        sides.append([mention])
      else:
        sides[-1].append(mention)
    single = [side[0] for side in sides if len(side) == 1]
    if single:
      result.append(claims.Mention(single[-1].value, chain[0].start, chain[-1].end))
    elif signs == ['/'] and chain[0].end + 1 == chain[1].start and chain[1].value:  # 3/4
      result.append(claims.Mention(chain[0].value / chain[1].value, chain[0].start, chain[1].end))
  return result


def _spoken(words: str) -> int:
  """Returns the value of a number in words."""
  total = group = 0
  for word in re.findall('[a-z]+', words.lower()):
    if word in _WORDS:
      group += _WORDS[word]
    elif word == 'hundred':
      group = max(group, 1) * 100
    elif word in _SCALES:
      total, group = total + max(group, 1) * _SCALES[word], 0
  return -(total + group) if re.match(r'minus|negative', words, re.IGNORECASE) else total + group
