"""Questions about names that do not exist, to be refused, among as many about names that do, not to be refused."""

import dataclasses
import random
import re
from typing import ClassVar

from data import chat
from data.tasks.base import Task, ask
from data.tasks.documents import Documents

# Says that it does not know, or that there is no such thing.
REFUSED = re.compile(
  r"\b(?:do not|don't|cannot|can't|could not|couldn't|never)\b.{0,20}\b(?:know|find|hear|heard)\b"
  r"|\b(?:not aware of|not familiar|no such|there is no|does not exist|doesn't exist)\b")
QUESTIONS = (
  'What is the {kind} {name}?', 'Do you know the {kind} {name}?', 'Is there a {kind} called {name}?',
  'Tell me about the {kind} {name}.', 'Does Python have a {kind} named {name}?',
)
REFUSALS = (
  "I don't know a {kind} called {name}.", "I don't know any {kind} named {name}.", 'I do not know the {kind} {name}.',
)
KNOWN = 'Yes, {name} is a {kind} in the Python documentation.'
ONSETS = (*'bcdfgjklmnprstvwz', 'bl', 'br', 'dr', 'gr', 'kl', 'pl', 'qu', 'sk', 'sn', 'st', 'tr', 'zh')
VOWELS = (*'aeiou', 'oo', 'ai')
CODAS = ('', '', '', *'bdgklmnprstx', 'rk', 'st', 'zz')
AFFIXES = {
  'module': ('{}', '{}', '{}lib', '{}tools', 'py{}'),
  'function': ('{}', 'get_{}', 'set_{}', '{}_all', 'is_{}'),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Refusal(Task):
  """Half of the questions are about made-up names, half about modules and functions of the documents.

  Wordings are the same for both, so the name alone tells; always refusing, and never, both score a half. Names of the
  test split occur in no question of the train split.
  """

  documents: Documents
  name: ClassVar[str] = 'refusal'
  reads: ClassVar[str] = 'documents'

  def __post_init__(self) -> None:
    functions = {entry.name for entry in (*self.documents.train, *self.documents.test) if len(entry.name) > 3}
    modules = [module for module in self.documents.modules if '.' not in module and len(module) > 2]
    known = {'module': modules or list(self.documents.modules), 'function': sorted(functions)}
    object.__setattr__(self, '_known', known)

  def draw(self, rng: random.Random) -> dict:
    kind, known = rng.choice(('module', 'function')), rng.random() < 0.5
    name = rng.choice(self._known[kind]) if known else self.made_up(rng, kind)
    question = rng.choice(QUESTIONS).format(kind=kind, name=name)
    return {'messages': ask(question), 'key': name, 'name': name, 'kind': kind, 'known': known,
            'answer': KNOWN.format(kind=kind, name=name) if known else REFUSALS[0].format(kind=kind, name=name)}

  def made_up(self, rng: random.Random, kind: str) -> str:
    """A pronounceable name that occurs nowhere in the documents."""
    while True:
      stem = ''.join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(rng.randint(1, 3)))
      name = rng.choice(AFFIXES[kind]).format(stem)
      if len(stem) > 3 and not {stem, name} & self.documents.names:
        return name

  def reply(self, problem: dict, rng: random.Random) -> str:
    return (KNOWN if problem['known'] else rng.choice(REFUSALS)).format(kind=problem['kind'], name=problem['name'])

  def grade(self, problem: dict, reply: dict) -> float:
    said = chat.text(reply['content'])
    if not problem['known']:
      return float(refuses(said))
    return float(not refuses(said) and re.search(rf'\b{re.escape(problem["name"])}\b', said) is not None)


def refuses(text: str) -> bool:
  """Whether a text says that its author does not know or that there is no such thing."""
  return REFUSED.search(' '.join(text.lower().replace('\N{RIGHT SINGLE QUOTATION MARK}', "'").split())) is not None
