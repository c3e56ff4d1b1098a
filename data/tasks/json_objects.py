"""JSON to write in a form that is asked for, from a sentence that has the values."""

import dataclasses
import json
import random
import re
from typing import Any, ClassVar

from data.chat import schema
from data.tasks import world
from data.tasks.protocol import Task, ask

MAX_CHARS = 10_000  # of a reply that is read
TYPES = {  # what a question calls a type, and which values have it
  'text': lambda value: isinstance(value, str),
  'whole number': lambda value: _is_number(value) and value == int(value),
  'true or false': lambda value: isinstance(value, bool),
  'list of texts': lambda value: (
    isinstance(value, list) and all(isinstance(item, str) for item in value)
  ),
}
_FENCED = re.compile(r'\s*```(?:json)?\s*\n(.*?)```\s*', re.DOTALL | re.IGNORECASE)


@dataclasses.dataclass(frozen=True, eq=False)
class JsonObjects(Task):
  """Facts about a thing, to write as a JSON object; the group is how many fields it has.

  A reply is the object, alone or in one fenced block. It must have the fields that are asked for
  and no others, with values of their types, and each must be the value that the question says.
  """

  sizes: tuple[int, int] = (2, 5)  # fewest and most fields
  name: ClassVar[str] = 'json'
  questions: ClassVar[tuple[str, ...]] = (
    '{facts} Write this as a JSON object with the fields {fields}.',
    'Reply with a JSON object only. Its fields are {fields}. {facts}',
  )

  def draw(self, rng: random.Random) -> dict:
    name = world.invented_word(rng, 2).capitalize()
    places = [world.invented_word(rng, 2).capitalize() for _ in range(3)]
    age, is_open = rng.randint(1, 99), rng.random() < 0.5
    listed = f'{places[1]} and {places[2]}'
    pool: list[tuple[str, str, Any, str]] = [  # field, type, value, sentence
      ('name', 'text', name, f'The name of the shop is {name}.'),
      ('town', 'text', places[0], f'The shop is in {places[0]}.'),
      ('age', 'whole number', age, f'The shop is {age} years old.'),
      ('open', 'true or false', is_open, f'The shop is {"open" if is_open else "closed"}.'),
      ('branches', 'list of texts', places[1:], f'The branches of the shop are {listed}.'),
    ]
    chosen = rng.sample(pool, rng.randint(*self.sizes))
    fields = ', '.join(f'"{field}" ({kind})' for field, kind, _, _ in chosen)
    facts = ' '.join(sentence for *_, sentence in rng.sample(chosen, len(chosen)))
    values = {field: value for field, _, value, _ in chosen}
    return {
      'messages': ask(rng.choice(self.questions).format(facts=facts, fields=fields)),
      'key': json.dumps(values, sort_keys=True),
      'group': f'{len(chosen)} fields',
      'types': {field: kind for field, kind, _, _ in chosen},
      'answer': json.dumps(values),
    }

  def grade(self, problem: dict, reply: dict) -> float:
    said, wanted = read_object(schema.text(reply['content'])), json.loads(problem['answer'])
    return float(
      said is not None
      and said.keys() == wanted.keys()
      and all(TYPES[kind](said[field]) for field, kind in problem['types'].items())
      and said == wanted
    )


def read_object(text: str) -> dict[str, Any] | None:
  """Returns the JSON object that a reply is, alone or in a fenced block, or None.

  Two fields of one name, NaN and infinities are not JSON.
  """
  if len(text) > MAX_CHARS:
    return None
  fenced = _FENCED.fullmatch(text)
  try:
    found = json.loads(
      fenced[1] if fenced else text, object_pairs_hook=_unique, parse_constant=_refuse
    )
  except (ValueError, RecursionError):
    return None
  return found if isinstance(found, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  if len(dict(pairs)) < len(pairs):
    raise ValueError('two fields of one name')
  return dict(pairs)


def _refuse(name: str) -> Any:
  raise ValueError(name)


def _is_number(value: Any) -> bool:
  is_finite = not isinstance(value, float) or abs(value) < float('inf')
  return isinstance(value, int | float) and not isinstance(value, bool) and is_finite
