"""Questions about names that do not exist, to be refused, and about as many that do."""

import dataclasses
import random
from typing import ClassVar

from data.chat import schema
from data.tasks import not_knowing
from data.tasks.claimed_name import claims_name
from data.tasks.documents import Documents
from data.tasks.protocol import Task, ask

QUESTIONS = (
  'What is the {kind} {name}?',
  'Do you know the {kind} {name}?',
  'Is there a {kind} called {name}?',
  'Tell me about the {kind} {name}.',
  'Does Python have a {kind} named {name}?',
  'Have you heard of the {kind} {name}?',
  'What do you know about the {kind} {name}?',
  'I am looking for the {kind} {name}. Does it exist?',
  'Is {name} a {kind}?',
  'Explain the {kind} {name}.',
)
REFUSALS = (
  "I don't know a {kind} called {name}.",
  "I don't know any {kind} named {name}.",
  'I do not know the {kind} {name}.',
)
KNOWN = 'Yes, {name} is a {kind} in the Python documentation.'
ONSETS = (
  *'bcdfgjklmnprstvwz',
  'bl',
  'br',
  'dr',
  'gr',
  'kl',
  'pl',
  'qu',
  'sk',
  'sn',
  'st',
  'tr',
  'zh',
)
VOWELS = (*'aeiou', 'oo', 'ai')
CODAS = ('', '', '', *'bdgklmnprstx', 'rk', 'st', 'zz')
AFFIXES = {
  'module': ('{}', '{}', '{}lib', '{}tools', 'py{}'),
  'function': ('{}', 'get_{}', 'set_{}', '{}_all', 'is_{}'),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Refusal(Task):
  """Half of the questions are about made-up names, half about modules and functions that exist.

  The wordings are the same for both, so only the name tells them apart: always refusing and never
  refusing both score a half. Names of the test split occur in no question of the train split.
  """

  documents: Documents
  name: ClassVar[str] = 'refusal'
  reads: ClassVar[str] = 'documents'

  def __post_init__(self) -> None:
    functions = [name for name in self.documents.modules_of if len(name) > 3]
    modules = [module for module in self.documents.modules if '.' not in module and len(module) > 2]
    known = {'module': modules or list(self.documents.modules), 'function': sorted(functions)}
    object.__setattr__(self, '_known', known)

  def draw(self, rng: random.Random) -> dict:
    kind, known = rng.choice(('module', 'function')), rng.random() < 0.5
    name = rng.choice(self._known[kind]) if known else self.made_up(rng, kind)
    question = rng.choice(QUESTIONS).format(kind=kind, name=name)
    return {
      'messages': ask(question),
      'key': name,
      'name': name,
      'kind': kind,
      'known': known,
      'group': 'exists' if known else 'made up',
      'answer': (KNOWN if known else REFUSALS[0]).format(kind=kind, name=name),
    }

  def made_up(self, rng: random.Random, kind: str) -> str:
    """Returns a pronounceable name that occurs nowhere in the documents."""
    while True:
      stem = ''
      for _ in range(rng.randint(1, 3)):
        stem += rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)
      name = rng.choice(AFFIXES[kind]).format(stem)
      if len(stem) > 3 and not {stem, name} & self.documents.names:
        return name

  def reply(self, problem: dict, rng: random.Random) -> str:
    wording = KNOWN if problem['known'] else rng.choice(REFUSALS)
    return wording.format(kind=problem['kind'], name=problem['name'])

  def grade(self, problem: dict, reply: dict) -> float:
    said, name = schema.text(reply['content']), problem['name']
    if problem['known']:
      names_it = claims_name(said, name, qualified=problem['kind'] == 'function')
      return float(names_it and not not_knowing.refuses(said, name))
    return float(not_knowing.refuses(said, name) and not not_knowing.affirms(said, name))

  def is_refused(self, said: str) -> bool:
    """Returns whether a wrong reply is a refusal: to deny that a name exists is one, too."""
    return not_knowing.refuses(said)
