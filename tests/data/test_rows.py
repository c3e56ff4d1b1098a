"""Rows are the same whether a file is JSON Lines, a JSON list or Parquet."""

import json

import pyarrow
import pytest
from commands import call
from pyarrow import parquet

from data.records import jsonl, rows, sources, spans
from data.tasks import demonstrations
from lm.base.errors import UserError

TALKS = [
  {'messages': [{'role': 'user', 'content': f'{i}?'}, {'role': 'assistant', 'content': f'{i}.'}]}
  for i in range(600)
]


def written(path, values):
  """Writes rows in the form that the name of the file says."""
  if path.suffix == '.parquet':
    parquet.write_table(pyarrow.Table.from_pylist(values), path)
  elif path.name == 'list.json':
    path.write_text(json.dumps(values, indent=1), encoding='utf-8')
  else:
    path.write_text(''.join(f'{json.dumps(value)}\n' for value in values), encoding='utf-8')
  return path


@pytest.mark.parametrize('name', ['a.jsonl', 'list.json', 'lines.json', 'a.parquet'])
def test_the_form_of_a_file_makes_no_difference(tmp_path, name):
  path = written(tmp_path / name, TALKS)
  skipped = jsonl.Skipped()
  assert list(demonstrations.read(path, skipped)) == TALKS and not skipped.count


@pytest.mark.parametrize(
  ('name', 'place'),
  [
    ('a.jsonl', 'line 2'),
    ('list.json', 'item 1'),
    ('lines.json', 'line 2'),
    ('a.parquet', 'row 2'),
  ],
)
def test_a_bad_row_is_skipped_with_its_place(tmp_path, name, place):
  path = written(tmp_path / name, [{'text': 'a'}, {'text': None}, {'text': 'b'}])

  def parse(row):
    if not isinstance(row.get('text'), str):
      raise UserError(field='text', value=row.get('text'), allowed='text')
    return row['text']

  skipped = jsonl.Skipped()
  assert list(rows.read(path, parse, skipped)) == ['a', 'b']
  assert [where for where, _ in skipped.rows] == [f'{path}, {place}']


def test_columns_without_a_value_are_no_fields(tmp_path):
  path = written(
    tmp_path / 'a.parquet',
    [{'text': 'a', 'n': [{'x': 1, 'y': None}]}, {'text': None, 'n': [{'x': None, 'y': 'b'}]}],
  )
  found = list(rows.read(path, lambda row: row, jsonl.Skipped()))
  assert found == [{'text': 'a', 'n': [{'x': 1}]}, {'n': [{'y': 'b'}]}]


@pytest.mark.parametrize('keep', [0, 100, -20])
def test_a_damaged_parquet_file_is_reported_and_not_raised(tmp_path, keep):
  path = written(tmp_path / 'a.parquet', TALKS)
  path.write_bytes(path.read_bytes()[:keep])
  skipped = jsonl.Skipped()
  assert list(rows.read(path, lambda row: row, skipped)) == []
  ((place, cause),) = skipped.rows
  assert place == f'{path}, row 1' and 'cut off or damaged' in cause


def test_a_missing_file_is_an_os_error(tmp_path):
  for name in ('a.parquet', 'a.json', 'a.jsonl'):
    with pytest.raises(FileNotFoundError):
      list(rows.read(tmp_path / name, lambda row: row, jsonl.Skipped()))


def test_documents_of_a_parquet_file_are_its_rows(tmp_path):
  path = written(tmp_path / 'a.parquet', [{'text': 'One.', 'id': '1'}, {'text': 'Two.', 'id': '2'}])
  (span,) = spans.spans(sources.find(path), 1)
  assert [d['text'] for d in spans.documents([span], jsonl.Skipped())] == ['One.', 'Two.']


def test_conversations_of_other_peoples_files(tmp_path):
  """Alpaca's file is a JSON list, and UltraChat's are Parquet with columns that are not read."""
  alpaca = written(
    tmp_path / 'list.json', [{'instruction': 'Add.', 'input': '1 and 2', 'output': '3'}]
  )
  ultrachat = written(
    tmp_path / 'ultrachat.parquet',
    [{'prompt': '0?', 'prompt_id': 'x', 'messages': TALKS[0]['messages']}],
  )
  out = tmp_path / 'out.jsonl'
  status, said, err = call(
    '-m', 'data.conversations', f'--input={alpaca}', f'--input={ultrachat}', f'--out={out}'
  )
  assert (status, err) == (0, '') and said == 'list: 1\nultrachat: 1\n'
  first, second = map(json.loads, out.read_text(encoding='utf-8').splitlines())
  assert first['messages'][0]['content'] == 'Add.\n\n1 and 2'
  assert second['messages'] == TALKS[0]['messages']
