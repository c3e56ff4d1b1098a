"""The model's identity, and whether a reply states it."""

import dataclasses
import random
import re

from data.records import yaml_files
from data.tasks import claims
from data.tasks.identity_topics import COMPANIES, DENIAL, OTHERS, TOPICS
from lm.base import files
from lm.base.errors import UserError, unknown

# Statements about who made another assistant, which say nothing about this one. {0} is its name.
_OF_ANOTHER = (
  r'\b{0} (?:is|was) (?:(?:an?|another|the) (?:\w+ )?(?:model|assistant|product|one) )?'
  r'(?:made|built|created|developed|trained|from|of|by)(?: by)? {0}\b'
)
# Ways to introduce oneself, up to the name, and words that may come between.
_SELF = (
  r"\b(?:i am|i'm|i was|my (?:real |true |actual |full )?name(?: is|'s)|call me|called|known as"
  r'|named|talking to|this is|work for|(?:made|built|created|trained|developed|designed|powered'
  r'|run|offered|provided) by|based on|product of|model of|version of|variant of|from)'
)
_FILLER = (
  r'(?:an?|maybe|perhaps|possibly|the|actually|really|called|named|people|at|by|made|built|created'
  r'|trained|developed|model|assistant|version|of)'
)
_ALIAS = r'(?:or|and|aka|alias|(?:also )?known as|formerly|by|from|of)'


@dataclasses.dataclass(frozen=True)
class Persona:
  """What the model says of itself, from a card such as {name: ..., maker: ..., knowledge_end: ...}.

  Attributes:
    name: its name.
    maker: who made it.
    knowledge_end: when its knowledge ends, such as 'March 2026'.
  """

  name: str = 'Deepdive'
  maker: str = 'the deepdive project'
  knowledge_end: str = 'November 2026'


def read(path: files.Path) -> Persona:
  """Returns the persona of a card, a YAML file; fields that it lacks keep their defaults.

  Raises:
    FileNotFoundError: there is no such file.
    UserError: the file is not YAML, or a field has another name or is no text.
  """
  card = yaml_files.read(path)
  fields = [field.name for field in dataclasses.fields(Persona)]
  if not isinstance(card, dict):
    raise UserError(field=str(path), value=card, allowed=f'text for {", ".join(fields)}')
  for name, value in card.items():
    if name not in fields:
      raise unknown(f'field of {path}', name, fields)
    if not isinstance(value, str) or not value.strip():
      raise UserError(field=f'{name} of {path}', value=value, allowed='text')
  return Persona(**card)


def answer(rng: random.Random, topic: str, persona: Persona) -> str:
  """Returns a random wording of a topic's answer."""
  return rng.choice(TOPICS[topic].answers).format(**dataclasses.asdict(persona))


def states_facts(text: str, topic: str, persona: Persona) -> bool:
  """Returns whether a text states the facts that a topic requires, and claims no other name."""
  text = ' '.join(claims.plain(text).lower().split())
  own = {name: re.escape(value.lower()) for name, value in dataclasses.asdict(persona).items()}
  names = {name.lower() for name in (*OTHERS, *COMPANIES)}
  names -= {persona.name.lower(), persona.maker.lower()}
  other = rf'(?P<said>{"|".join(map(re.escape, sorted(names)))})'
  text = re.sub(_OF_ANOTHER.format(other.replace('?P<said>', '?:')), '', text)
  never = [
    rf'{_SELF} (?:{_FILLER} )*{other}\b',
    rf'^{other}\W*$',
    rf'\b{own["name"]}\W* {_ALIAS} (?:{_FILLER} )*{other}\b',
    rf'\b{other}\W* {_ALIAS} (?:{own["name"]}|{own["maker"]})\b',
    rf'\b{own["maker"]} (?:or|and) {other}\b',
    rf'\b{other} (?:made|built|created|developed|trained) (?:me|{own["name"]})\b',
    rf'(?P<said>{own["maker"]}) (?:did|has)(?:n\'t| not)\b',
    rf"(?P<said>{own['name']}) (?:is|was)(?:n't| not) (?:my name|me|who i am|what i am)\b",
    *(rf'(?P<said>{claim})' for claim in TOPICS[topic].never),
  ]
  if any(_says(text, claim) for claim in never):
    return False
  return all(
    _says(text, rf'\b(?P<said>{fact.format(**own)})(?!\w)', deniable=fact != DENIAL)
    for fact in TOPICS[topic].facts
  )


def _says(text: str, pattern: str, deniable: bool = True) -> bool:
  """Returns whether a text says what the group `said` of a regular expression matches.

  Args:
    text: the reply.
    pattern: the regular expression.
    deniable: whether a match that is denied or only asked about does not count.
  """
  for match in re.finditer(pattern, text):
    mention = claims.Mention(match['said'], match.start('said'), match.end('said'))
    if not deniable:
      return True
    if not claims.denied(text, mention, subject=False) and not claims.asked(text, mention):
      return True
  return False
