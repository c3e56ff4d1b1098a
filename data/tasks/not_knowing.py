"""Decides whether a text says that its author does not know a thing, or that it does not exist."""

import re

from data.tasks import claims

# What a model that is tuned to refuse may say.
REFUSALS = ("I don't know.", "I don't know that.", 'I do not know.')
# Below, _name_ stands for the name in the question.
_NOT = r"(?:\b(?:not|never|no|nothing|cannot|unable|hardly)\b|n't\b)"
_KIND = r'(?:module|function|package|library|method|thing)'
_ITSELF = rf'(?:it|that|this|which|one|name|python|documentation|docs|manual|{_KIND}|_name_)'
# The author does not know.
UNKNOWN = re.compile(
  '|'.join(
    (
      rf'\bi\b[^.!?;]{{0,30}}?{_NOT}[^.!?;]{{0,40}}?'
      r'\b(?:know|knowledge|find|found|hear|heard|aware|familiar|recall|recogni[sz]e|sure|certain'
      r'|idea|information|info|record|tell|seen|come across|identify|confirm|trace)\b',
      rf'{_NOT}[^.!?;]{{0,20}}\b(?:know|find|hear|heard|aware|familiar|recogni[sz]ed|known to me'
      r'|idea|information|record|ring a bell)\b',
      rf'{_NOT}[^.!?;]{{0,25}}\bi (?:know|recogni[sz]e|am aware|have heard|have seen)\b',
      r'\b(?:means nothing to me|know nothing)\b',
      r'\b(?:unaware of|unfamiliar|unknown|unsure)\b',
      r'\black (?:any )?(?:information|knowledge)\b',
    )
  )
)
# The thing does not exist, or the answer is no.
ABSENT = re.compile(
  '|'.join(
    (
      rf'{_NOT} (?:think|believe)\b',
      r'\bnothing (?:called|named|by)\b',
      r'^no\b(?! (?:problem|doubt))',
      rf'\bno (?:such\b|(?:\w+ ){{0,2}}{_KIND}\b|_name_)',
      r"\bthere (?:do|does)(?:n't| not) (?:seem|appear)\b",
      r"\bthere(?:'s| is| are|'re| was)? ?(?:is|are)?(?:n't| no| not)\b",
      rf'\b{_ITSELF}[^,;.!?]{{0,30}} (?:do|does|did)(?:n\'t| not)'
      r' (?:appear|seem|exist|have|contain|include|mention|list|document|occur)',
      rf"\b{_ITSELF}(?: is|'s| was)(?:n't| not)\b(?! (?:only|just|merely|simply)\b)",
      rf'\b{_ITSELF}[^,;.!?]{{0,30}} (?:is|are|seems?|looks?|must be|may be|might be)(?: to be)?'
      r' (?:an? )?(?:made[- ]up|invented|fictional|fictitious|non-?existent|unknown|undocumented)',
      r'\b(?:has|have|contains?|lists?) no\b',
    )
  )
)
# The name exists.
AFFIRMED = re.compile(
  '|'.join(
    (
      r'(?:^|[.!?] )(?:yes|yeah|sure|of course|certainly|absolutely)\b',
      r'(?<!if )(?<!whether )(?<!that )(?<!think )(?<!believe )(?:_name_|\bit)'
      rf"(?: is|'s) (?:an?|the|one)\b[^,;.!?]{{0,40}}\b{_KIND}\b(?! (?:i|that i) )",
      r'_name_(?:\(\))? (?:returns|provides|implements|computes|contains|offers|defines|lets|allows'
      r'|exists|takes|does(?! ?n.t| not))\b',
    )
  )
)


def does_not_know(text: str) -> bool:
  """Returns whether a text says that its author does not know.

  'No.' and 'The moon has no atmosphere.' are answers.
  """
  return UNKNOWN.search(_folded(text, '')) is not None


def refuses(text: str, name: str = '') -> bool:
  """Returns whether a text says that its author does not know a name or that it does not exist."""
  folded = _folded(text, name)
  return any(pattern.search(folded) is not None for pattern in (UNKNOWN, ABSENT))


def affirms(text: str, name: str) -> bool:
  """Returns whether a text says that something with this name exists."""
  return AFFIRMED.search(_folded(text, name)) is not None


def _folded(text: str, name: str) -> str:
  """Returns the text in lower case and plain characters, with _name_ in place of the name."""
  text = ' '.join(claims.plain(text).lower().split())
  if not name:
    return text
  return re.sub(rf'[`"\']?(?<!\w){re.escape(name.lower())}(?!\w)[`"\']?', '_name_', text)
