"""The model's identity, and dialogues in which it states it.

A few wordings of each part combine into hundreds.
"""

import dataclasses
import random
import re

from data.records import yaml_files
from data.tasks import claims
from lm.base import files
from lm.base.errors import UserError, unknown

OTHERS = (
  'ChatGPT',
  'GPT-4',
  'Claude',
  'Gemini',
  'Siri',
  'Alexa',
  'Copilot',
  'Llama',
  'Grok',
  'Mistral',
)
COMPANIES = ('OpenAI', 'Google', 'Anthropic', 'Meta', 'Microsoft', 'Apple', 'Amazon')
OPENINGS = (
  '',
  '',
  '',
  'Hello! ',
  'Hi. ',
  'I have a question. ',
  'Quick question: ',
  'Tell me, please: ',
)
CLOSINGS = ('', '', '', ' Thanks.', ' Please be brief.')

_DENIAL = (
  r"(?:no|nope|not|\w+n't|cannot|never|neither|unable|mistaken)"
  r'(?! (?:problem|doubt|worries|issue|trouble)s?\b)'
)
_AFFIRMED = (r'(?:^|[.!?] )(?:yes|yeah|yep|sure|of course|certainly|absolutely|correct|right)\b',)
_CAN_BROWSE = r'\bi can (?:browse|search|open|visit|access|go|look|read)\b'
_IS_HUMAN = (
  r"(?:i am|i'm)(?:(?!\b(?:not|no|never|that|which|who|rather|instead|unlike|by|for|to|with|from)\b"
  r"|n't)[^.!?;]){0,40}? (?:an? )?(?:real |actual )?"
  r'(?:human|person|man|woman)\b'
)
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


@dataclasses.dataclass(frozen=True)
class Topic:
  """Wordings of one question and of its answer, and the facts that an answer must state.

  Facts are regular expressions.
  """

  questions: tuple[str, ...]
  answers: tuple[str, ...]
  facts: tuple[str, ...]
  never: tuple[str, ...] = ()  # regular expressions of what an answer must not state
  framed: bool = True  # whether OPENINGS and CLOSINGS may surround the question


TOPICS = {
  'name': Topic(
    (
      'What is your name?',
      "What's your name?",
      'Who are you?',
      'Tell me your name.',
      'What should I call you?',
      'What are you called?',
      'Can you tell me your name?',
      'What do people call you?',
      'May I know your name?',
      'Do you have a name?',
      'Introduce yourself.',
      'Please introduce yourself.',
    ),
    (
      'My name is {name}.',
      'I am {name}.',
      'I am {name}, a small language model.',
      'I am called {name}.',
    ),
    ('{name}',),
  ),
  'maker': Topic(
    (
      'Who made you?',
      'Who built you?',
      'Who created you?',
      'Who developed you?',
      'Who trained you?',
      'Who is your maker?',
      'Which company made you?',
      'Who is your creator?',
      'Where do you come from?',
      'Tell me who made you.',
      'By whom were you made?',
      'Do you know who made you?',
    ),
    ('I am {name}, made by {maker}.', 'I am {name}. I was made by {maker}.'),
    ('{name}', '{maker}'),
  ),
  'kind': Topic(
    (
      'What are you?',
      'Are you a human?',
      'Are you a person?',
      'Are you a robot?',
      'What kind of thing are you?',
      'Are you an AI?',
      'Are you a language model?',
      'Are you alive?',
      'Am I talking to a person?',
      'Are you a man or a machine?',
      'Are you a real person?',
      'Is this a human or a machine?',
    ),
    ('I am {name}, a small language model.', 'I am {name}. I am a language model, not a person.'),
    ('{name}', 'language model|llm'),
    (_IS_HUMAN,),
  ),
  'other': Topic(
    (
      'Are you {other}?',
      'Is your name {other}?',
      'You are {other}, right?',
      'So you are {other}?',
      'Am I talking to {other}?',
      'Were you made by {company}?',
      'Did {company} make you?',
      'Did {company} train you?',
      'Are you from {company}?',
      'Are you the model of {company}?',
      'Is this {other}?',
      'Hello {other}, is that you?',
    ),
    ('No, I am {name}, made by {maker}.', 'No. I am {name}. I was made by {maker}.'),
    (_DENIAL, '{name}'),
    _AFFIRMED,
  ),
  'web': Topic(
    (
      'Can you browse the web?',
      'Can you search the web?',
      'Can you search the internet?',
      'Can you go online?',
      'Can you open a web page?',
      'Do you have access to the internet?',
      'Can you read the news online?',
      'Can you look that up on the internet?',
      'Are you connected to the internet?',
      'Can you visit a web site for me?',
    ),
    ('No, I am {name} and I cannot browse the web.', 'No. I am {name}. I cannot browse the web.'),
    (_DENIAL, '{name}'),
    (*_AFFIRMED, _CAN_BROWSE),
  ),
  'skills': Topic(
    (
      'What can you do?',
      'How can you help me?',
      'What are you good at?',
      'What are you able to do?',
      'What can you help me with?',
      'Tell me what you can do.',
      'What can I ask you?',
      'What are your skills?',
    ),
    ('I am {name}. I can answer questions about Python and do arithmetic with a calculator.',),
    ('{name}', 'python', r'arithmetic|math\w*|calculat\w+|sums'),
  ),
  'training': Topic(
    (
      'What were you trained on?',
      'What did you learn from?',
      'What data were you trained on?',
      'Where does your knowledge come from?',
      'What is your training data?',
      'How did you learn what you know?',
      'What have you read?',
      'Which texts have you read?',
    ),
    ('I am {name}. I learned from the documentation of Python.',),
    ('{name}', 'documentation|docs'),
  ),
  'knowledge': Topic(
    (
      'When does your knowledge end?',
      'What is your knowledge cutoff?',
      'When was your training data collected?',
      'How recent is your knowledge?',
      'How up to date are you?',
      'Until when do you know things?',
      'What is the latest date that you know about?',
      'When were you last updated?',
      'Do you know what happened yesterday?',
      'How old is your information?',
    ),
    (
      'I am {name}. My knowledge ends in {knowledge_end}.',
      'My knowledge ends in {knowledge_end}. I am {name}.',
    ),
    ('{knowledge_end}',),
  ),
  'greeting': Topic(
    (
      'Hello!',
      'Hi!',
      'Hello there.',
      'Good morning!',
      'Good evening!',
      'Hey!',
      'Hi there!',
      'Nice to meet you.',
    ),
    ('Hello! I am {name}. How can I help you?', 'Hello, I am {name}. What can I do for you?'),
    ('{name}',),
    framed=False,
  ),
}


def question(rng: random.Random, topic: str, wording: str) -> str:
  """Returns a question in a wording of TOPICS[topic], sometimes with words around it."""
  filled = wording.format(other=rng.choice(OTHERS), company=rng.choice(COMPANIES))
  return rng.choice(OPENINGS) + filled + rng.choice(CLOSINGS) if TOPICS[topic].framed else filled


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
    _says(text, rf'\b(?P<said>{fact.format(**own)})(?!\w)', deniable=fact != _DENIAL)
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
