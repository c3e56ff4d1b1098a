"""Every command says with --help which flags it has and what each is for."""

import argparse
import importlib
import sys

import pytest
from absl import flags
from commands import ROOT

COMMANDS = sorted(
  '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__main__')
  for pattern in (
    'train.py',
    'eval.py',
    'lm/*.py',
    'data/*.py',
    '*/*/__main__.py',
    '*/*/*/__main__.py',
  )
  for path in ROOT.glob(pattern)
  if "__name__ == '__main__'" in path.read_text()
)


def test_commands_are_found():
  assert {'train', 'eval', 'lm.chat', 'lm.hf', 'data.tokenize', 'data.web'} <= set(COMMANDS)


@pytest.fixture
def own_flags():
  """The names of the absl flags that were defined since; they are gone afterwards, as with the end
  of a process.
  """
  before = set(flags.FLAGS)
  yield lambda: set(flags.FLAGS) - before
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)
  flags.FLAGS.unparse_flags()


def without_help(parser, where=''):
  """The options of an argparse parser, those of its subcommands included, that do not say what they
  are for.
  """
  for action in parser._actions:
    if isinstance(action, argparse._SubParsersAction):
      for name, command in action.choices.items():
        yield from without_help(command, f'{where}{name} ')
    elif action.option_strings and not action.help:
      yield f'{where}{action.option_strings[0]}'


@pytest.mark.parametrize('name', COMMANDS)
def test_help_lists_the_flags_and_ends_well(name, own_flags, capsys, monkeypatch):
  module = importlib.import_module(
    f'{name}.__main__' if (ROOT / name.replace('.', '/')).is_dir() else name
  )
  parsers, parse = [], argparse.ArgumentParser.parse_args
  monkeypatch.setattr(
    argparse.ArgumentParser,
    'parse_args',
    lambda self, argv: parsers.append(self) or parse(self, argv),
  )
  monkeypatch.setattr(sys, 'argv', [name, '--help'])
  with pytest.raises(SystemExit) as ended:
    module.main()
  out, err = capsys.readouterr()
  assert ended.value.code in (0, None) and not err
  for parser in parsers:
    assert list(without_help(parser)) == []
    assert all(
      action.option_strings[-1] in out
      for action in parser._actions
      if action.option_strings and action.help != argparse.SUPPRESS
    )
  if not parsers:
    defined = own_flags()
    assert 'config' in defined and module.__doc__.splitlines()[0] in out
    assert all(flags.FLAGS[flag].help in ' '.join(out.split()) for flag in defined)
    assert 'absl' not in out
