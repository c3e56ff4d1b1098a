"""Every config field is read by the code that runs it: a field that nobody reads is a knob that turns nothing."""

import inspect
import json

import pytest
from commands import ROOT, run
from datatrove.io import DataFolder
from ml_collections import ConfigDict

from configs import base
from configs.data import fineweb
from data.web import train_classifier
from data.web.blocks import Quality
from data.web.clean import pipeline
from data.web.executors import ray_options, slurm_options
from lm.config import load

RECORD = """
import json, pathlib, sys
from ml_collections import ConfigDict
from lm.config import load
import train

read, plain = set(), ConfigDict.__getattr__

def record(self, name):
  if not name.startswith('_'):
    read.add((tuple(sorted(self.keys())), name))  # a part of the config is known by the names of its fields
  return plain(self, name)

config = load(sys.argv[1])
ConfigDict.__getattr__ = record
train.train(config, pathlib.Path(sys.argv[2]))
json.dump(sorted(read), sys.stdout)
"""


def fields(config, prefix=''):
  """{dotted name: (names of the part, name)} of every leaf."""
  found = {}
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      found |= fields(value, f'{prefix}{name}.')
    else:
      found[prefix + name] = (tuple(sorted(config.keys())), name)
  return found


@pytest.fixture(scope='module')
def reads(tmp_path_factory):
  """Which fields a run of each config reads."""
  found = {}
  for name in ('pretrain', 'sft', 'rl'):
    status, out, err = run('-c', RECORD, f'configs/{name}.py:smoke', tmp_path_factory.mktemp(name))
    assert status == 0, err
    found[name] = {(tuple(names), field) for names, field in json.loads(out)}
  return found


def test_every_field_is_read(reads):
  everything = set().union(*reads.values())
  assert [name for name, field in fields(base.get_config()).items() if field not in everything] == []


@pytest.mark.parametrize('name', ['pretrain', 'sft', 'rl'])
def test_a_field_that_a_config_sets_is_read_when_it_runs(reads, name):
  config, plain = load(f'configs/{name}.py:smoke'), fields(base.get_config())
  values = {field: value for field, value in _values(config).items() if value != _values(base.get_config())[field]}
  assert values
  assert [field for field in values if plain[field] not in reads[name]] == []


def _values(config, prefix=''):
  found = {}
  for name, value in config.items():
    found |= _values(value, f'{prefix}{name}.') if isinstance(value, ConfigDict) else {prefix + name: value}
  return found


def test_every_field_of_web_cleaning_is_read(tmp_path, monkeypatch):
  """The thresholds go to the rules as keywords, where an unknown one is a TypeError."""
  read, plain = set(), ConfigDict.__getattr__
  config = fineweb.get_config()
  config.passage_lines = 3
  monkeypatch.setattr(ConfigDict, '__getattr__', lambda self, name: read.add(name) or plain(self, name))
  settings = ('gopher_repetition', 'gopher_quality', 'c4_lines', 'c4', 'fineweb', 'languages')
  (tmp_path / 'items.txt').write_text('word ' * 13)
  config.decontaminate = f'{tmp_path}/*.txt'
  config.quality.model = str(tmp_path / 'classifier')
  train_classifier.train([train_classifier.Row('a', 0), train_classifier.Row('b', 1)], config.quality.model, buckets=1)
  stages = pipeline(config, [], DataFolder(str(tmp_path)), 1, {})
  slurm_options(config), ray_options(config), config.ray_address
  assert [f for f in fields(config) if f.partition('.')[0] not in settings and f.rpartition('.')[2] not in read] == []
  assert set(settings) <= read
  for step in stages[0].steps:
    if isinstance(step, Quality):
      assert inspect.signature(step.rule).parameters.keys() == {'text', *step.thresholds}


@pytest.mark.parametrize('name', sorted(p.stem for p in (ROOT / 'configs').glob('*.py') if p.stem != 'base'))
def test_a_config_adds_no_field(name, monkeypatch):
  monkeypatch.chdir(ROOT)
  config = load(f'configs/{name}.py')
  plain = base.get_recipe() if config.stage == 'recipe' else base.get_config()
  assert [f for f in fields(config) if f not in fields(plain) and not f.startswith('clean.languages.')] == []
