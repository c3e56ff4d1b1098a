"""Rows of untrusted files: what cannot be used is skipped by file, line and cause, and the reading
goes on.
"""

import bz2
import gzip
import itertools
import json
import lzma
import sys

import fsspec
import pytest

from data.records import jsonl, split
from lm.base.errors import UserError

if sys.version_info >= (3, 14):
  from compression import zstd
else:
  from backports import zstd


def parse(row):
  if not isinstance(row, dict) or not isinstance(row.get('text'), str):
    raise UserError(field='text')
  return row['text']


def read(path, **options):
  skipped = jsonl.Skipped()
  return list(jsonl.read(path, parse, skipped, **options)), skipped


GOOD = b'{"text": "good"}\n'


@pytest.mark.parametrize(
  ('line', 'cause'),
  [
    (b'{"text": "cut', 'not JSON'),
    (b'null', 'text is missing'),
    (b'[]', 'text is missing'),
    (b'{"text": null}', 'text is missing'),
    (b'{"other": 1}', 'text is missing'),
    (b'\xff\xfe\x00', 'not UTF-8'),
    (b'[' * 200_000, 'nested too deep'),
    (b'{"text": ' + b'1' * 5000 + b'}', 'not JSON'),
    (b'\x00\x00', 'not JSON'),
  ],
)
def test_a_bad_row_is_skipped_with_its_line_and_cause(tmp_path, line, cause):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes(GOOD + b'\n' + line + b'\n' + GOOD)
  texts, skipped = read(path)
  assert texts == ['good', 'good'] and skipped.count == 1
  ((place, why),) = skipped.rows
  assert place == f'{path}, line 3' and cause in why
  assert str(skipped).startswith(f'1 row skipped; the first: {path}, line 3: ')


def test_a_row_that_is_nested_too_deep_for_its_parser_is_skipped(tmp_path):
  path = tmp_path / 'rows.jsonl'
  deep = (b'{"text": "deep", "x": ' + b'[' * n + b']' * n + b'}\n' for n in range(800, 1000))
  path.write_bytes(b''.join(deep) + GOOD)
  skipped = jsonl.Skipped()

  def parse(row, calls=3):  # what reads rows calls functions that call others
    return parse(row, calls - 1) if calls else split.split_hash(row)

  hashes = list(jsonl.read(path, parse, skipped))
  assert len(hashes) + skipped.count == 201 and skipped.count
  assert all('nested too deep' in cause for _, cause in skipped.rows)


def test_half_a_character_is_replaced_and_a_whole_pair_is_kept(tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.write_text('{"text": "a\\ud800b"}\n{"text": "\\ud83d\\ude00"}\n{"text": "\\\\ud800"}\n')
  texts, skipped = read(path)
  assert texts == ['a\N{REPLACEMENT CHARACTER}b', '\U0001f600', '\\ud800'] and not skipped.count


def test_a_row_that_is_too_long_is_skipped_without_being_held(tmp_path, monkeypatch):
  monkeypatch.setattr(jsonl, 'MAX_ROW_BYTES', 100)
  path = tmp_path / 'rows.jsonl'
  for size, skipped_rows in ((99, []), (100, [2]), (101, [2]), (350, [2])):
    row = b'{"text": "' + b'x' * (size - 12) + b'"}\n'
    path.write_bytes(GOOD + row + GOOD + b'y' * 300)
    texts, skipped = read(path)
    assert len(texts) == 3 - len(skipped_rows)
    assert [place for place, _ in skipped.rows] == [f'{path}, line {n}' for n in [*skipped_rows, 4]]


@pytest.mark.slow
@pytest.mark.parametrize(
  ('suffix', 'pack'),
  [
    ('.gz', gzip.compress),
    ('.bz2', bz2.compress),
    ('.xz', lzma.compress),
    ('.zst', zstd.compress),
  ],
)
def test_packed_files_are_read_and_damaged_ones_as_far_as_they_go(tmp_path, suffix, pack):
  path = tmp_path / f'rows.jsonl{suffix}'
  path.write_bytes(pack(GOOD * 3))
  assert read(path) == (['good'] * 3, jsonl.Skipped())
  rows = b''.join(
    json.dumps({'text': f'{i} {hash(str(i))}'}).encode() + b'\n' for i in range(50_000)
  )
  path.write_bytes(pack(rows)[:-200])
  texts, skipped = read(path)
  assert skipped.count == 1 and 'cut off or damaged' in skipped.rows[0][1]
  assert f'line {len(texts) + 1}' in skipped.rows[0][0]
  if suffix == '.gz':
    assert len(texts) > 20_000
  path.write_bytes(b'no such format')
  texts, skipped = read(path)
  assert not texts and skipped.rows[0][0] == f'{path}, line 1'


def test_rows_of_a_part_have_the_line_numbers_of_the_file(tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes((GOOD + b'bad\n') * 50)
  cuts = [*range(0, path.stat().st_size, 37), path.stat().st_size]
  texts, places = [], []
  for start, stop in itertools.pairwise(cuts):
    found, skipped = read(path, start=start, stop=stop)
    texts += found
    places += [place for place, _ in skipped.rows]
  assert texts == ['good'] * 50 and places == [f'{path}, line {2 * i}' for i in range(1, 51)]


def test_urls_are_read():
  with fsspec.open('memory://jsonl/rows.jsonl.gz', 'wb', compression='gzip') as file:
    file.write(GOOD + b'bad\n')
  texts, skipped = read('memory://jsonl/rows.jsonl.gz')
  assert texts == ['good'] and skipped.rows[0][0] == 'memory://jsonl/rows.jsonl.gz, line 2'


def test_a_file_that_is_not_there_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError, match='nowhere'):
    read(tmp_path / 'nowhere.jsonl')


def test_many_bad_rows_are_counted_and_a_few_are_kept(tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes(b'bad\n' * 1000)
  _, skipped = read(path)
  assert skipped.count == 1000 and len(skipped.rows) == jsonl.KEPT
  total = jsonl.Skipped()
  total.extend(skipped)
  total.extend(skipped)
  assert total.count == 2000 and len(total.rows) == jsonl.KEPT
