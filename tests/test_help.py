"""Every command says with --help which flags it has and what each is for."""

import argparse
import importlib
import json

import commands
import pytest
from commands import ROOT

from lm.base import config as config_lib

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
def test_help_lists_the_flags_and_ends_well(name, capsys, monkeypatch):
  module = importlib.import_module(
    f'{name}.__main__' if (ROOT / name.replace('.', '/')).is_dir() else name
  )
  parsers, parse_args = [], argparse.ArgumentParser.parse_args
  monkeypatch.setattr(
    argparse.ArgumentParser,
    'parse_args',
    lambda self, argv: parsers.append(self) or parse_args(self, argv),
  )
  flag_sets, parse = [], config_lib.parse
  monkeypatch.setattr(
    config_lib,
    'parse',
    lambda options, argv, about: flag_sets.append(options) or parse(options, argv, about),
  )
  with pytest.raises(SystemExit) as ended:
    module.main(['--help'])
  out, err = capsys.readouterr()
  assert ended.value.code in (0, None) and not err
  for parser in parsers:
    assert list(without_help(parser)) == []
    assert all(
      action.option_strings[-1] in out
      for action in parser._actions
      if action.option_strings and action.help != argparse.SUPPRESS
    )
  for options in flag_sets:
    assert 'config' in options and module.__doc__.splitlines()[0] in out
    assert all(options[flag].help in ' '.join(out.split()) for flag in options)
  assert len(parsers) + len(flag_sets) == 1


# In a process of its own: --help of commands, none of which needs jax for it.
HELP = """
import contextlib, importlib, io, json, sys
for name in json.loads(sys.argv[1]):
  with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    importlib.import_module(name).main(['--help'])
  assert not {'jax', 'matplotlib'} & set(sys.modules), name
"""


@pytest.mark.slow
def test_help_imports_neither_jax_nor_matplotlib():
  names = [f'{n}.__main__' if (ROOT / n.replace('.', '/')).is_dir() else n for n in COMMANDS]
  assert commands.run('-c', HELP, json.dumps(names)) == (0, '', '')
