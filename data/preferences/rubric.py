"""Rubrics: files that tell people and models what makes one answer better than another."""

import dataclasses
import pathlib
from typing import Any

from data.records import yaml_files
from data.records.forms import require_text
from lm.base import files
from lm.base.errors import UserError, unknown

DEFAULT = pathlib.Path(__file__).parent / 'rubric.yaml'


@dataclasses.dataclass(frozen=True)
class Example:
  """A prompt with two answers, one of which is better, and why."""

  prompt: str
  better: str
  worse: str
  why: str


@dataclasses.dataclass(frozen=True)
class Criterion:
  """What an answer should be, such as truthful, with examples."""

  name: str
  meaning: str
  examples: tuple[Example, ...]


@dataclasses.dataclass(frozen=True)
class Rubric:
  """What makes one answer better than another.

  Attributes:
    question: what is asked about two answers.
    criteria: what is compared, in the order in which it counts.
    allows_ties: whether neither answer may be the better one.
    tie_rule: when that is so.
  """

  question: str
  criteria: tuple[Criterion, ...]
  allows_ties: bool
  tie_rule: str

  @property
  def text(self) -> str:
    """The rubric as people and models read it."""
    lines = [self.question, '', 'What counts, the most important first:']
    for number, criterion in enumerate(self.criteria, 1):
      lines.append(f'{number}. {criterion.name}: {criterion.meaning}')
      for example in criterion.examples:
        lines += [
          f'   Prompt: {example.prompt}',
          f'   Better: {example.better}',
          f'   Worse: {example.worse}',
          f'   Why: {example.why}',
        ]
    ties = self.tie_rule if self.allows_ties else 'There are no ties: one answer is better.'
    return '\n'.join([*lines, '', f'Ties: {ties}'])


def read(path: files.Path = DEFAULT) -> Rubric:
  """Returns the rubric of a YAML file, such as rubric.yaml beside this module.

  Raises:
    FileNotFoundError: there is no such file.
    UserError: the file is not YAML, or a field is missing, unknown or of another type.
  """
  whole = _fields(yaml_files.read(path), str(path), ('question', 'criteria', 'ties'))
  ties = _fields(whole['ties'], f'ties of {path}', ('allowed', 'rule'))
  if not isinstance(ties['allowed'], bool):
    raise UserError(field=f'ties.allowed of {path}', value=ties['allowed'], allowed='true or false')
  criteria = []
  for i, item in enumerate(_items(whole['criteria'], f'criteria of {path}')):
    where = f'criteria[{i}] of {path}'
    fields = _fields(item, where, ('name', 'meaning', 'examples'))
    examples = _items(fields['examples'], f'examples of {where}')
    criteria.append(
      Criterion(
        _text(fields['name'], f'name of {where}'),
        _text(fields['meaning'], f'meaning of {where}'),
        tuple(_example(example, f'examples[{j}] of {where}') for j, example in enumerate(examples)),
      )
    )
  return Rubric(
    question=_text(whole['question'], f'question of {path}'),
    criteria=tuple(criteria),
    allows_ties=ties['allowed'],
    tie_rule=_text(ties['rule'], f'ties.rule of {path}'),
  )


def _example(value: Any, where: str) -> Example:
  names = tuple(field.name for field in dataclasses.fields(Example))
  fields = _fields(value, where, names)
  return Example(*(_text(fields[name], f'{name} of {where}') for name in names))


def _fields(value: Any, where: str, names: tuple[str, ...]) -> dict[str, Any]:
  """Returns a value that is an object with exactly these fields."""
  if not isinstance(value, dict):
    raise UserError(field=where, value=value, allowed=f'an object with {", ".join(names)}')
  for name in value:
    if name not in names:
      raise unknown(f'field of {where}', name, names)
  for name in names:
    if name not in value:
      raise UserError(field=f'{name} of {where}', allowed='a value')
  return value


def _items(value: Any, where: str) -> list:
  if not isinstance(value, list) or not value:
    raise UserError(field=where, value=value, allowed='a list of one or more')
  return value


def _text(value: Any, where: str) -> str:
  if not require_text(where, value).strip():
    raise UserError(field=where, value=value, allowed='text')
  return value.strip()
