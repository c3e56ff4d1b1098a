"""Configs from the command line: what is read, and how what is wrong is told."""

import pathlib
from unittest import mock

import pytest
from absl import flags
from ml_collections import ConfigDict
from refusals import refused

from lm.base import config as config_lib
from lm.base.errors import UserError

CONFIG = """
from configs import base
from lm.base.config import variant

def get_config(arg=None):
  c = base.get_config()
  c.steps = 7
  if variant(arg) == 'smoke':
    c.model.num_layers = 2
  return c
"""


@pytest.fixture
def parse(tmp_path):
  (tmp_path / 'mine.py').write_text(CONFIG)
  (tmp_path / 'plain.py').write_text(
    'def get_config():\n  from ml_collections import ConfigDict\n  return ConfigDict()\n'
  )
  (tmp_path / 'broken.py').write_text('def get_config(:\n')
  (tmp_path / 'empty.py').write_text('')

  def parse_in_folder(*arguments):
    """Parses arguments, in which DIR stands for the folder of these files."""
    placed = [a.replace('DIR', str(tmp_path)) for a in arguments]
    return config_lib.parse(flags.FlagValues(), placed, '')

  return parse_in_folder


def test_overrides_are_applied(parse):
  c = parse(
    '--config=DIR/mine.py:smoke',
    '--config.optim.lr=1e-3',
    '--config.eval.batch_size=4',
    '--config.model.tie_embeddings=False',
    "--config.eval.prompts=('a','b')",
    '--config.data.train=x=y,z',
  )
  assert (c['steps'], c['model']['num_layers'], c['optim']['lr'], c['eval']['batch_size']) == (
    7,
    2,
    1e-3,
    4,
  )
  assert (
    c['model']['tie_embeddings'] is False
    and c['eval']['prompts'] == ('a', 'b')
    and c['data']['train'] == 'x=y,z'
  )
  assert parse('--config=DIR/mine.py')['model']['num_layers'] == 12


@pytest.mark.parametrize(
  'arguments, field, value',
  [
    (['--config=DIR/mine.py', '--config.optim.lrr=1'], 'config field', 'config.optim.lrr'),
    (['--config=DIR/mine.py', '--config.optm.lr=1'], 'config field', 'config.optm'),
    (['--config=DIR/mine.py', '--config.steps.more=1'], 'config field', 'config.steps.more'),
    (['--config=DIR/mine.py', '--config.steps=many'], '--config.steps', 'many'),
    (['--config=DIR/mine.py', '--config.optim.lr=fast'], '--config.optim.lr', 'fast'),
    (['--config=DIR/mine.py', '--config.steps=1.5'], '--config.steps', '1.5'),
    (['--config=DIR/mine.py', '--config.steps'], 'command line', mock.ANY),
    (['--config=DIR/mine.py:smok'], 'config variant', 'smok'),
    (['--config=DIR/plain.py:smoke'], 'variant of DIR/plain.py', 'smoke'),
    (['--config=DIR/broken.py'], 'DIR/broken.py', mock.ANY),
    (['--config=DIR/empty.py'], 'function get_config() of DIR/empty.py', None),
    (['--config=DIR/mine.py', '--confg=1'], 'flag', '--confg'),
    (['--config=DIR/mine.py', 'config.steps=1'], 'argument', 'config.steps=1'),
    ([], '--config', None),
  ],
)
def test_what_is_wrong_is_told(parse, arguments, field, value, tmp_path):
  with refused(field.replace('DIR', str(tmp_path)), value):
    parse(*arguments)


def test_a_config_that_is_not_there_is_told(parse):
  with pytest.raises(FileNotFoundError, match=r'none\.py'):
    parse('--config=DIR/none.py')


def test_place_fills_in_the_folder_everywhere_in_a_copy():
  config = ConfigDict(
    {'a': '{workdir}/x', 'n': 3, 'inner': {'b': '{workdir}/{workdir}', 'c': 'plain'}}
  )
  placed = config_lib.place(config, pathlib.Path('runs/1'))
  assert placed.to_dict() == {
    'a': 'runs/1/x',
    'n': 3,
    'inner': {'b': 'runs/1/runs/1', 'c': 'plain'},
  }
  assert config.a == '{workdir}/x' and config.inner.b == '{workdir}/{workdir}'


def test_names_of_a_comma_separated_field():
  assert config_lib.names(' a, b,,c ') == ('a', 'b', 'c') and config_lib.names('') == ()


def test_variant():
  assert (
    config_lib.variant(None) == ''
    and config_lib.variant('') == ''
    and config_lib.variant('smoke') == 'smoke'
  )
  with pytest.raises(UserError) as raised:
    config_lib.variant('smoke', ('tiny', 'large'))
  assert (raised.value.value, raised.value.allowed) == ('smoke', ('tiny', 'large'))
