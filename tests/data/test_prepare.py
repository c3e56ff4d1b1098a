"""What a run reads is made again when what it was made from has changed, and only then."""

import itertools
import json

import pytest

from configs import base
from data.batches import prepare
from data.chat import chat_formats
from lm.base import files

FORMAT = chat_formats.load('bytes')


def page(index):
  lines = [
    f'Help on module mod{index}',
    f'find_thing{index}(x)',
    f'Return the thing number {index} of all.',
  ]
  return '\n'.join([*lines, 'alpha beta gamma delta'])


def write_documents(path, count):
  rows = [
    {'text': page(i), 'metadata': {'url': f'http://h/mod{i}.html', 'cluster': f'c{i}'}}
    for i in range(count)
  ]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


@pytest.fixture
def config(tmp_path):
  write_documents(tmp_path / 'documents.jsonl', 60)
  c = base.get_config()
  c.stage, c.seed = 'sft', 0
  c.data.update(tasks='docs,arithmetic', examples=20, documents=str(tmp_path / 'documents.jsonl'))
  return c


CHANGES = {
  'tasks': lambda c, folder: c.data.update(tasks='docs,comparison'),
  'weights': lambda c, folder: c.data.update(tasks='docs:3,arithmetic'),
  'examples': lambda c, folder: c.data.update(examples=30),
  'turns': lambda c, folder: c.data.update(turns=2),
  'seed': lambda c, folder: c.update(seed=1),
  'task_seed': lambda c, folder: c.data.update(task_seed=1),
  'documents': lambda c, folder: write_documents(folder / 'documents.jsonl', 50),
  'held_out': lambda c, folder: c.data.update(held_out=0.3),
}


@pytest.mark.parametrize('change', CHANGES)
def test_conversations_are_made_again_after_a_change(config, tmp_path, change):
  def made():
    train, val = prepare.prepare_training_data(config, FORMAT, tmp_path / 'run', 'packed')
    assert val == str(tmp_path / 'run' / 'val' / 'manifest.json')
    return [(tmp_path / 'run' / 'conversations.jsonl').read_bytes(), files.read_json(train)]

  first = made()
  CHANGES[change](config, tmp_path)
  second = made()
  assert first != second
  fresh = prepare.prepare_training_data(config, FORMAT, tmp_path / 'fresh', 'packed')
  assert second == [
    (tmp_path / 'fresh' / 'conversations.jsonl').read_bytes(),
    files.read_json(fresh[0]),
  ]


def test_conversations_are_not_made_again_without_a_change(config, tmp_path, monkeypatch):
  prepare.prepare_training_data(config, FORMAT, tmp_path / 'run', 'packed')
  monkeypatch.setattr(prepare.demonstrations, 'write', lambda *_, **__: pytest.fail('made again'))
  assert prepare.prepare_training_data(config, FORMAT, tmp_path / 'run', 'packed')[1]


def test_conversations_of_a_killed_run_are_made_again(config, tmp_path, monkeypatch):
  counter = itertools.count()

  def write_then_die(*args, write=prepare.demonstrations.write, **options):
    write(*args, **options)
    raise KeyboardInterrupt

  monkeypatch.setattr(prepare.demonstrations, 'write', write_then_die)
  with pytest.raises(KeyboardInterrupt):
    prepare.prepare_training_data(config, FORMAT, tmp_path / 'run', 'packed')
  monkeypatch.undo()
  write = prepare.demonstrations.write
  monkeypatch.setattr(
    prepare.demonstrations,
    'write',
    lambda *args, **options: next(counter) or write(*args, **options),
  )
  prepare.prepare_training_data(config, FORMAT, tmp_path / 'run', 'packed')
  assert next(counter) == 1


def test_a_single_text_file_is_trained_on_without_validation(tmp_path):
  (tmp_path / 'a.txt').write_text('one document')
  c = base.get_config()
  c.data.train = str(tmp_path / 'a.txt')
  for _ in range(2):  # also where it is complete
    train, val = prepare.prepare_training_data(c, FORMAT, tmp_path / 'run', 'windows')
    assert val is None and files.read_json(train)['documents'] == 1
