"""The rooms of the house and the arrows between them, read from the imports."""

import ast
import collections
import pathlib
import re
import sys

import pytest
from commands import ROOT

# Each room may import those named here, and itself. lm/base may be imported by data/ too.
LM_ROOMS = {
  'base': set(),
  'parallel': {'base'},
  'model': {'base', 'parallel'},
  'weights': {'base', 'parallel', 'model'},
  'infer': {'base', 'parallel', 'model'},
  'train': {'base', 'parallel', 'model', 'weights', 'infer'},
  'stages': {'base', 'parallel', 'model', 'weights', 'infer', 'train'},
  'evals': {'base', 'parallel', 'model', 'weights', 'infer', 'train', 'stages'},
  'serve': {'base', 'parallel', 'model', 'weights', 'infer', 'train', 'stages'},
  'report': {'base', 'parallel', 'model', 'weights', 'infer', 'train', 'stages'},
  'launch': {'base', 'parallel', 'model', 'weights', 'infer', 'train', 'stages', 'report'},
  'cost': {'base', 'parallel', 'model', 'weights', 'infer', 'train', 'stages'},
}
DATA_ROOMS = {
  'records': set(),
  'crawling': {'records'},
  'web': {'records'},
  'tools': {'records'},
  'tokenizers': {'records'},
  'chat': {'records', 'tokenizers'},
  'shards': {'records', 'tokenizers', 'chat'},
  'tasks': {'records', 'tokenizers', 'chat', 'tools'},
  'probing': {'records', 'chat', 'tools', 'tasks'},
  'preferences': {'records', 'chat', 'tools', 'tasks', 'probing'},
  'batches': {'records', 'tokenizers', 'chat', 'shards', 'tasks', 'tools', 'preferences'},
  'pipeline': {
    'records',
    'crawling',
    'web',
    'tokenizers',
    'chat',
    'shards',
    'tasks',
    'tools',
    'preferences',
  },
  'benchmarks': {'records', 'web', 'tokenizers', 'chat', 'shards'},
}
SOURCES = [p for tree in ('lm', 'data') for p in sorted((ROOT / tree).rglob('*.py'))]


def imported(path: pathlib.Path) -> set[str]:
  """Names of the modules of ours that a file imports, wherever it does."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def is_door(path: pathlib.Path) -> bool:
  relative = path.relative_to(ROOT)
  return (len(relative.parts) == 2 and path.name != '__init__.py') or path.name == '__main__.py'


def name_of(path: pathlib.Path) -> str:
  return str(path.relative_to(ROOT))


def test_every_folder_is_a_room():
  folders = {
    tree: {p.parent.name for p in (ROOT / tree).glob('*/__init__.py')} for tree in ('lm', 'data')
  }
  assert folders == {'lm': set(LM_ROOMS), 'data': set(DATA_ROOMS)}


def test_every_folder_says_what_it_is_for():
  for path in SOURCES:
    if path.name == '__init__.py':
      assert ast.get_docstring(ast.parse(path.read_text())), path


def files_named(tree: str, text: str) -> list[pathlib.Path]:
  """The files that a text of a tree's README names, from the tree or from the root."""
  names = re.findall(r'`((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)`', text)
  return [ROOT / tree / n if (ROOT / tree / n).exists() else ROOT / n for n in names]


@pytest.mark.parametrize(('tree', 'rooms'), [('lm', LM_ROOMS), ('data', DATA_ROOMS)])
def test_the_tour_of_a_tree_names_every_room_and_only_files_that_exist(tree, rooms):
  text = (ROOT / tree / 'README.md').read_text()
  assert [room for room in rooms if f'`{room}/`' not in text and f'[{room}/]' not in text] == []
  assert [path for path in files_named(tree, text) if not path.exists()] == []


@pytest.mark.parametrize('tree', ['lm', 'data'])
def test_what_the_tables_of_places_name_is_defined_in_the_files_of_its_row(tree):
  text = (ROOT / tree / 'README.md').read_text()
  sections = re.split(r'^## ', text, flags=re.MULTILINE)
  tables = ''.join(s for s in sections if re.match('Where is it|To add', s))
  rows = [line for line in tables.splitlines() if re.match(r'\| (?!what|to add)', line)]
  assert len(rows) >= 10
  missing = []
  for row in rows:
    paths = [*files_named(tree, row), ROOT / 'configs' / 'base.py']
    sources = ''.join(path.read_text() for path in paths)
    spans = [span for span in re.findall(r'`([^`]+)`', row) if not span.endswith('.py')]
    names = [re.split(r'\W', span)[-1] for span in spans if re.fullmatch(r'[\w.]+', span)]
    defined = r"(?:def|class) {0}\b|^ *(?:\w+\.)*{0}\b *[:=,]|'{0}'"
    missing += [
      f'{name}: {row}'
      for name in names
      if not re.search(defined.format(name), sources, re.MULTILINE)
    ]
  assert missing == []


def test_doors_are_short_and_have_a_main():
  for path in filter(is_door, SOURCES):
    text = path.read_text()
    assert len(text.splitlines()) <= 120, path
    assert 'def main(' in text and "if __name__ == '__main__':" in text, path


def test_no_module_but_a_door_has_the_name_of_one_of_pythons():
  for path in SOURCES:
    if not is_door(path) and path.stem not in ('__init__', '__main__'):
      assert path.stem not in sys.stdlib_module_names, path


def test_no_two_files_share_a_name():
  """Doors of the two trees may: they are told apart as commands, lm.bench and data.bench."""
  files = [*(p for p in SOURCES if not is_door(p)), *ROOT.glob('*.py')]
  stems = collections.Counter(p.stem for p in files if not p.stem.startswith('__'))
  assert [stem for stem, count in stems.items() if count > 1] == []


@pytest.mark.parametrize('path', [p for p in SOURCES if p.parts[-2] != 'lm'], ids=name_of)
def test_rooms_import_only_rooms_before_them(path):
  tree, *inner = path.relative_to(ROOT).parts
  if is_door(path) or len(inner) == 1:
    return
  for name in imported(path):
    parts = name.split('.')
    if tree == 'data':
      assert parts[0] not in ('jax', 'flax', 'optax', 'orbax'), f'data/ never imports jax: {name}'
      assert parts[0] != 'lm' or parts[1] == 'base', f'data/ imports only lm/base: {name}'
      if parts[0] == 'data':
        assert parts[1] == inner[0] or parts[1] in DATA_ROOMS[inner[0]], name
    elif parts[0] == 'lm':
      assert parts[1] == inner[0] or parts[1] in LM_ROOMS[inner[0]], name
    else:
      assert parts[0] not in ('data', 'eval', 'train'), f'rooms of lm/ never import {name}'


def test_training_reads_as_one_story():
  assert len((ROOT / 'train.py').read_text().splitlines()) < 200


def calls_in(path: pathlib.Path, name: str) -> list[ast.Call]:
  """Calls of the functions with this name in a file, whatever module they are taken from."""
  text = path.read_text()
  nodes = ast.walk(ast.parse(text)) if f'{name}(' in text else ()
  calls = [node for node in nodes if isinstance(node, ast.Call)]
  return [call for call in calls if ast.unparse(call.func).rpartition('.')[2] == name]


def test_every_error_of_the_users_names_its_field():
  for path in [*SOURCES, *(ROOT / 'configs').rglob('*.py'), ROOT / 'train.py', ROOT / 'eval.py']:
    for call in calls_in(path, 'UserError'):
      names = {keyword.arg for keyword in call.keywords}
      assert 'field' in names and not call.args, f'{path}:{call.lineno}'


def test_tests_read_the_attributes_of_errors_and_not_their_text():
  for path in (ROOT / 'tests').rglob('*.py'):
    for call in calls_in(path, 'raises'):
      by_text = any(keyword.arg == 'match' for keyword in call.keywords)
      assert not (by_text and 'UserError' in ast.unparse(call.args[0])), f'{path}:{call.lineno}'


@pytest.mark.slow
def test_no_stage_is_asked_for_by_name():
  """What differs between stages is in lm/stages: nothing else compares `config.stage`."""
  sources = [*SOURCES, ROOT / 'train.py', ROOT / 'eval.py']
  for path in sources:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        named = [s for s in sides if isinstance(s, ast.Attribute) and s.attr == 'stage']
        assert not named or 'stages' in path.parts, f'{path}:{node.lineno}'
