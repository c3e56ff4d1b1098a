"""What a run reads: rows of any form, held-out files; made again only when its origin changed."""

import datetime
import itertools
import json

import pyarrow as pa
import pytest
from pyarrow import parquet as pq
from refusals import refused

from configs import base
from data.batches import prepare, readers
from data.chat import chat_formats
from data.shards import tokenization
from lm.base import files
from lm.base.errors import UserError

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


def read(config, folder, layout='packed'):
  """What is learned of each row of a config's training data, and its held-out manifest."""
  train, val = prepare.prepare_training_data(config, FORMAT, folder, layout)
  made = readers.open_loader(config, FORMAT, train, layout=layout, batch_size=1, train=False)
  texts = []
  for batch in made.iterate(0, made.steps_per_epoch):
    learned = batch['targets'][batch['weights'] > 0].tolist()
    texts.append(FORMAT.tokenizer.decode(learned))
  return texts, val


def tuning_on(source, **fields):
  c = base.get_config()
  c.stage, c.seq_len = 'sft', 128
  c.data.update(train=str(source), held_out=0.0, **fields)
  return c


ROLLOUT = {
  'asked': [{'role': 'user', 'content': 'What is 2 + 2?'}],
  'reply': [{'type': 'text', 'text': '4'}],
  'right': True,
  'end': 'stop',
}
ALPACA = {'instruction': 'Say 4.', 'input': '', 'output': '4', 'text': 'Say 4. ### Response: 4'}
CHAT = {'messages': [*ROLLOUT['asked'], {'role': 'assistant', 'content': '4'}]}


@pytest.mark.parametrize('row', [ROLLOUT, ALPACA, CHAT], ids=['rollout', 'alpaca', 'messages'])
@pytest.mark.parametrize('name', ['rows.jsonl', 'rows.json', 'rows.parquet'])
def test_fine_tuning_learns_the_answers_of_rows_of_any_form(tmp_path, row, name):
  path, rows = tmp_path / name, [row | {'when': '2026'}, dict(row)]
  if path.suffix == '.parquet':
    rows[0]['when'] = rows[1]['when'] = datetime.datetime(2026, 1, 1)
    pq.write_table(pa.Table.from_pylist(rows), path)
  elif path.suffix == '.json':
    path.write_text(json.dumps(rows))
  else:
    path.write_text(''.join(json.dumps(each) + '\n' for each in rows))
  texts, _ = read(tuning_on(path), tmp_path / 'run')
  assert ''.join(texts) == '4<|end|>' * 2


def test_fine_tuning_refuses_text(tmp_path):
  (tmp_path / 'a.txt').write_text('one document')
  with pytest.raises(UserError):
    read(tuning_on(tmp_path / 'a.txt'), tmp_path / 'run')
  tokenization.tokenize(str(tmp_path / 'a.txt'), tmp_path / 'tokens', FORMAT, held_out=0.0)
  manifest = tmp_path / 'tokens' / 'train' / 'manifest.json'
  with refused(f'kind of {manifest}', 'text'):
    read(tuning_on(manifest), tmp_path / 'run')


def test_manifests_and_files_make_one_mixture(tmp_path):
  (tmp_path / 'a.jsonl').write_text(json.dumps(CHAT))
  tokenization.tokenize(str(tmp_path / 'a.jsonl'), tmp_path / 'tokens', FORMAT, held_out=0.0)
  manifest = str(tmp_path / 'tokens' / 'train' / 'manifest.json')
  for names in itertools.permutations([manifest, str(tmp_path / 'a.jsonl')]):
    c = tuning_on(','.join(names), weights='1,1')
    made, _ = prepare.prepare_training_data(c, FORMAT, tmp_path / f'run{names[0][-1]}', 'packed')
    kinds = [files.read_json(name)['kind'] for name in made.split(',')]
    assert kinds == ['conversations'] * 2 and manifest in made


@pytest.mark.parametrize('layout', ['packed', 'windows'])
def test_held_out_data_may_be_files_as_training_data(tmp_path, layout):
  row = CHAT if layout == 'packed' else {'text': 'a b c d'}
  for name in ('train', 'val'):
    (tmp_path / f'{name}.jsonl').write_text(json.dumps(row) + '\n')
  c = tuning_on(tmp_path / 'train.jsonl', val=str(tmp_path / 'val.jsonl'))
  _, val = prepare.prepare_training_data(c, FORMAT, tmp_path / 'run', layout)
  assert files.read_json(val)['documents'] == 1
  open_held_out = {
    'packed': readers.open_held_out_packed,
    'windows': readers.open_held_out_windows,
  }[layout]
  assert open_held_out(c, FORMAT, tmp_path / 'eval').steps_per_epoch == 1
