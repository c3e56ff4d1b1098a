import gzip
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import fsspec
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from refusals import refused

from data import tokenize
from data.chat import chat_formats
from data.records import jsonl, sources, spans
from data.records.split import split_hash
from data.shards import tokenization
from lm.base import files

FORMAT = chat_formats.load('bytes')
TOKENIZER = FORMAT.tokenizer
BOS = TOKENIZER.special_tokens[chat_formats.BOS]
REPOSITORY = pathlib.Path(__file__).parents[2]


def make_documents(count, seed=0, clusters=None):
  rng = random.Random(seed)
  words = ['alpha', 'βήτα', 'gamma\n', '<|endoftext|>', 'δ', '7']
  return [
    {
      'id': f'doc{i}',
      'text': ' '.join(rng.choices(words, k=rng.randrange(1, 80))),
      'metadata': {'cluster': f'c{rng.randrange(clusters)}'} if clusters else {},
    }
    for i in range(count)
  ]


def make_conversations(count):
  rng = random.Random(1)
  return [
    {
      'messages': [
        {'role': 'user', 'content': f'What is {i} + {i}?'},
        {
          'role': 'assistant',
          'content': [
            {'type': 'python', 'text': f'{i}+{i}'},
            {'type': 'output', 'text': str(2 * i)},
            {'type': 'text', 'text': 'It is ' + 'so ' * rng.randrange(50) + str(2 * i)},
          ],
        },
      ]
    }
    for i in range(count)
  ]


def write_lines(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def read(folder, key=None):
  """All values of a split, read without our code, and its manifest; checks each shard's counts on
  the way.
  """
  manifest = json.loads((folder / 'manifest.json').read_text())
  values = []
  for shard in manifest['shards']:
    reader = ArrayRecordReader(str(folder / (shard[key] if key else shard)['file']))
    records = [np.frombuffer(r, 'u1' if key else '<u2') for r in reader.read_all()]
    assert [len(r) for r in records[:-1]] == [4096] * (len(records) - 1)
    values.append(np.concatenate(records))
    assert len(values[-1]) == shard['tokens']
  return np.concatenate(values), manifest


def tree(folder):
  """Every file below a folder and its content."""
  return {
    str(p.relative_to(folder)): p.read_bytes()
    for p in sorted(folder.rglob('*'))
    if p.is_file() and p.name != '.lock'
  }


def shards(out):
  """The shards below a folder, those of unfinished runs included."""
  return sorted(out.rglob('*.array_record'))


def run(inputs, out, **options):
  return tokenization.tokenize(inputs, out, FORMAT, progress=False, **options)


def test_streams_hold_the_documents_in_order(tmp_path):
  rows = make_documents(300, clusters=60)
  manifests = run(
    write_lines(tmp_path / 'a.jsonl', rows), tmp_path / 'out', held_out=0.2, shard_bytes=5000
  )
  split_of, total = {}, 0
  for split in ('train', 'val'):
    values, manifest = read(tmp_path / 'out' / split)
    assert manifest == manifests[split] and len(manifest['shards']) > 3
    assert manifest['tokenizer'] == {
      'fingerprint': TOKENIZER.fingerprint,
      'vocab_size': TOKENIZER.vocab_size,
    }
    texts = [
      bytes(part[1:].astype(np.uint8)).decode()
      for part in np.split(values, np.flatnonzero(values == BOS)[1:])
    ]
    mine = [row for row in rows if row['text'] in set(texts)]
    assert texts == [row['text'] for row in mine]
    for row in mine:
      # no cluster on both sides
      assert split_of.setdefault(row['metadata']['cluster'], split) == split
    starts, at = [], 0
    for shard in manifest['shards']:
      index = np.load(tmp_path / 'out' / split / shard['index']['file'])
      starts += (index[:, 0] + at).tolist()
      at += shard['tokens']
      assert (index[:, 1] == 1).all() and len(index) == shard['documents']
    assert starts == np.flatnonzero(values == BOS).tolist()
    assert manifest['bytes'] == sum(len(t.encode()) for t in texts) and manifest[
      'documents'
    ] == len(texts)
    total += len(texts)
  assert total == 300 and 0.05 < manifests['val']['documents'] / 300 < 0.4


def test_cuts_lose_and_repeat_no_line(tmp_path):
  rows = [{'text': 'x' * n} for n in (1, 1, 1, 30, 5, 5, 100, 2)]
  path = write_lines(tmp_path / 'a.jsonl', rows)
  for size in range(1, path.stat().st_size + 2):
    skipped = jsonl.Skipped()
    assert (
      list(spans.documents(spans.spans(sources.find(path), size), skipped)) == rows
      and not skipped.count
    )


def test_the_split_depends_on_the_cluster_alone(tmp_path):
  rows = make_documents(300, clusters=60)
  run(write_lines(tmp_path / 'a.jsonl', rows), tmp_path / 'a')
  run(write_lines(tmp_path / 'b.jsonl', rows[100:][::-1]), tmp_path / 'b')
  a, b = (read(tmp_path / name / 'val')[0] for name in 'ab')

  def documents(values):
    return {tuple(part) for part in np.split(values, np.flatnonzero(values == BOS)[1:])}

  assert documents(b) <= documents(a)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['text', 'conversations'])
def test_bytes_do_not_depend_on_workers(tmp_path, kind):
  rows = make_documents(200) if kind == 'text' else make_conversations(200)
  write_lines(tmp_path / 'a.jsonl', rows[:150])
  write_lines(tmp_path / 'b.jsonl', rows[150:])
  inputs = f'{tmp_path}/*.jsonl'
  for workers in (1, 2, 3):
    run(inputs, tmp_path / str(workers), workers=workers, shard_bytes=4000)
  assert tree(tmp_path / '1') == tree(tmp_path / '2') == tree(tmp_path / '3')
  assert len(tree(tmp_path / '1')) > 8
  assert not any('tmp' in name for name in tree(tmp_path / '1'))


@pytest.mark.slow
@pytest.mark.parametrize('workers', [1, 2])
def test_killed_and_run_again(tmp_path, monkeypatch, workers):
  documents = make_documents(1500)
  source = write_lines(tmp_path / 'a.jsonl', documents)
  run(source, tmp_path / 'whole', shard_bytes=4000)
  out = tmp_path / 'out'
  command = [
    sys.executable,
    '-m',
    'data.tokenize',
    f'--input={source}',
    '--tokenizer=bytes',
    f'--out={out}',
  ]
  command += [f'--workers={workers}', '--shard-bytes=4000']
  before = 0
  for _ in range(2):
    process = subprocess.Popen(
      command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and len(shards(out)) < before + 16:
      time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)  # the main process alone: its workers must not stay
    assert process.wait() == -signal.SIGKILL
    assert not (out / 'train').exists()
    before = len(shards(out))
    shards(out)[0].with_name('.tokens-00001.array_record.1.tmp').write_bytes(b'half')
  while subprocess.run(['pgrep', '-g', str(process.pid)], capture_output=True).stdout:
    time.sleep(0.05)  # until its workers have ended
  encoded, encode = [], type(TOKENIZER).encode
  monkeypatch.setattr(
    type(TOKENIZER), 'encode', lambda self, text: encoded.append(text) or encode(self, text)
  )
  run(source, out, shard_bytes=4000)
  # What a killed run had finished is not done again.
  assert 0 < len(encoded) < len(documents) - before
  assert tree(out) == tree(tmp_path / 'whole')


def test_killed_between_the_moves(tmp_path, monkeypatch):
  source = write_lines(tmp_path / 'a.jsonl', make_documents(100))
  run(source, tmp_path / 'whole')
  moves, replace_dir = [], files.replace_dir

  def one_move(source, target, **options):
    if moves:
      raise KeyboardInterrupt
    replace_dir(source, target, **options)
    moves.append(target)

  monkeypatch.setattr(files, 'replace_dir', one_move)
  with pytest.raises(KeyboardInterrupt):
    run(source, tmp_path / 'out')
  monkeypatch.undo()
  assert len(moves) == 1 and moves[0].exists()
  run(source, tmp_path / 'out')
  assert tree(tmp_path / 'out') == tree(tmp_path / 'whole')


def test_done_is_not_done_again_and_changes_are(tmp_path):
  source = write_lines(tmp_path / 'a.jsonl', make_documents(100))
  first = run(source, tmp_path / 'out')
  times = {p: p.stat().st_mtime_ns for p in (tmp_path / 'out').rglob('*')}
  assert run(source, tmp_path / 'out') == first
  assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / 'out').rglob('*')}
  write_lines(source, make_documents(120))
  assert sum(m['documents'] for m in run(source, tmp_path / 'out').values()) == 120
  run(source, tmp_path / 'fresh')
  assert tree(tmp_path / 'out') == tree(tmp_path / 'fresh')


def test_conversations(tmp_path):
  rows = make_conversations(40)
  run(write_lines(tmp_path / 'c.jsonl', rows), tmp_path / 'out', held_out=0, shard_bytes=3000)
  assert not (tmp_path / 'out' / 'val').exists()
  values, manifest = read(tmp_path / 'out' / 'train')
  mask, _ = read(tmp_path / 'out' / 'train', 'mask')
  rendered = [FORMAT.render(row) for row in rows]
  assert values.tolist() == [i for ids, _ in rendered for i in ids]
  assert mask.tolist() == [m for _, masks in rendered for m in masks]
  index = np.concatenate(
    [np.load(tmp_path / 'out/train' / s['index']['file']) for s in manifest['shards']]
  )
  assert index[:, 1].tolist() == [masks.index(1) for _, masks in rendered]
  assert manifest['bytes'] == sum(i < 256 for i in values)


def test_text_files_and_gzip(tmp_path):
  (tmp_path / 'in').mkdir()
  (tmp_path / 'in' / 'a.txt').write_bytes('one\r\nζ'.encode())
  (tmp_path / 'in' / 'b.md').write_text('two')
  (tmp_path / 'in' / 'empty.py').write_text('')
  with gzip.open(tmp_path / 'in' / 'c.jsonl.gz', 'wt') as f:
    f.write('\n{"text": "three"}\n{"text": ""}\n{"text": "four", "id": null, "metadata": null}')
  run(f'{tmp_path}/in/*', tmp_path / 'out', held_out=0)
  values, manifest = read(tmp_path / 'out' / 'train')
  texts = [
    bytes(p[1:].astype(np.uint8)) for p in np.split(values, np.flatnonzero(values == BOS)[1:])
  ]
  assert texts == ['one\r\nζ'.encode(), b'two', b'three', b'four']
  assert manifest['documents'] == 4


def test_one_cluster_at_least_is_held_out_and_one_is_not(tmp_path):
  for n in (2, 5):
    rows = make_documents(n)
    ordered = sorted(rows, key=split_hash)
    for held_out, expected in ((1e-9, ordered[:1]), (1 - 1e-9, ordered[:-1])):
      out = tmp_path / f'{n}-{held_out}'
      run(write_lines(tmp_path / 'a.jsonl', rows), out, held_out=held_out, shard_bytes=50)
      values = read(out / 'val')[0]
      texts = [
        bytes(part[1:].astype(np.uint8)).decode()
        for part in np.split(values, np.flatnonzero(values == BOS)[1:])
      ]
      assert sorted(texts) == sorted(row['text'] for row in expected)
      assert read(out / 'train')[1]['documents'] == n - len(expected)


@pytest.mark.parametrize('below', [False, True])
def test_a_single_cluster_is_trained_on_and_nothing_is_held_out(tmp_path, capsys, below):
  names = (f'c{i}' for i in itertools.count())
  cluster = next(
    name for name in names if (split_hash({'metadata': {'cluster': name}}) < 0.05) == below
  )
  rows = [{'text': text, 'metadata': {'cluster': cluster}} for text in ('one', 'two')]
  manifests = run(write_lines(tmp_path / 'a.jsonl', rows), tmp_path / 'out', shard_bytes=10)
  assert {split: manifest['documents'] for split, manifest in manifests.items()} == {
    'train': 2,
    'val': 0,
  }
  assert 'nothing is held out' in capsys.readouterr().err
  assert run(tmp_path / 'a.jsonl', tmp_path / 'out', shard_bytes=10) == manifests  # it is complete


def test_a_single_text_file_gives_shards_by_command(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(REPOSITORY)
  monkeypatch.setattr(
    sys, 'argv', ['tokenize', '--input=README.md', '--tokenizer=bytes', f'--out={tmp_path}']
  )
  tokenize.main()
  assert read(tmp_path / 'train')[1]['documents'] == 1
  said = capsys.readouterr()
  assert 'nothing is held out' in said.err and '1 documents' in said.out


BAD_ROWS = [
  b'{"text": \n',
  b'{"text": 3}\n',
  b'null\n',
  b'{"other": "x"}\n',
  b'\xff\xfe\n',
  b'[' * 100_000 + b'\n',
  b'{"text": "x", "metadata": [1]}\n',
  b'{"messages": [{"role": "user", "content": "x"}]}\n',
]


def test_bad_rows_are_skipped_and_listed_and_the_others_are_tokenized(tmp_path, capsys):
  rows = make_documents(60)
  run(write_lines(tmp_path / 'good.jsonl', rows), tmp_path / 'whole', held_out=0)
  lines = [json.dumps(row).encode() + b'\n' for row in rows]
  lines[7:7], lines[30:30] = BAD_ROWS[:4], BAD_ROWS[4:]
  (tmp_path / 'a.jsonl').write_bytes(b''.join(lines))
  for workers in (1, 2):
    out = tmp_path / f'out{workers}'
    capsys.readouterr()
    manifest = run(tmp_path / 'a.jsonl', out, held_out=0, shard_bytes=2000, workers=workers)[
      'train'
    ]
    assert read(out / 'train')[0].tolist() == read(tmp_path / 'whole' / 'train')[0].tolist()
    assert (
      manifest['skipped'] == 8
      and f'8 rows skipped; the first: {tmp_path}/a.jsonl, line 8: ' in capsys.readouterr().err
    )
    listed = [json.loads(line) for line in (out / 'skipped.jsonl').read_text().splitlines()]
    assert [row['place'] for row in listed] == [
      f'{tmp_path}/a.jsonl, line {n}' for n in (8, 9, 10, 11, 31, 32, 33, 34)
    ]
    causes = (
      'not JSON',
      '"text"',
      '"text"',
      '"text"',
      'not UTF-8',
      'too deep',
      'metadata',
      'conversation',
    )
    assert all(cause in row['cause'] for cause, row in zip(causes, listed, strict=True))


def test_lone_surrogates_are_no_obstacle(tmp_path):
  (tmp_path / 'a.jsonl').write_text('{"text": "a\\ud800b", "id": "\\udfff"}\n{"text": "c"}\n')
  run(tmp_path / 'a.jsonl', tmp_path / 'out', held_out=0)
  values, manifest = read(tmp_path / 'out' / 'train')
  assert (
    manifest['documents'] == 2
    and bytes(values[1:6].astype(np.uint8)).decode() == 'a\N{REPLACEMENT CHARACTER}b'
  )


def test_conversations_that_cannot_be_rendered_are_skipped_by_line(tmp_path):
  rows = make_conversations(5)
  bad = {'messages': [{'role': 'cook', 'content': 'x'}]}
  write_lines(tmp_path / 'a.jsonl', [*rows[:2], bad, *rows[2:], {'text': 'a document'}])
  manifest = run(tmp_path / 'a.jsonl', tmp_path / 'out', held_out=0)['train']
  assert manifest['documents'] == 5 and manifest['skipped'] == 2
  listed = [
    json.loads(line) for line in (tmp_path / 'out' / 'skipped.jsonl').read_text().splitlines()
  ]
  assert listed[0]['place'].endswith('a.jsonl, line 3') and "'cook'" in listed[0]['cause']


def test_files_that_are_damaged_are_read_as_far_as_they_go(tmp_path):
  whole = ''.join(
    json.dumps({'text': f'{i} {random.Random(i).random()}'}) + '\n' for i in range(5000)
  ).encode()
  (tmp_path / 'a.jsonl.gz').write_bytes(gzip.compress(whole)[:-1000])
  (tmp_path / 'b.txt').write_bytes(b'\xff\xfe')
  (tmp_path / 'c.txt').write_text('good')
  manifest = run(f'{tmp_path}/*', tmp_path / 'out', held_out=0)['train']
  assert manifest['skipped'] == 2 and 2000 < manifest['documents'] < 5000
  listed = (tmp_path / 'out' / 'skipped.jsonl').read_text()
  assert (
    'a.jsonl.gz, line' in listed
    and 'cut off or damaged' in listed
    and 'b.txt' in listed
    and 'not UTF-8' in listed
  )


def test_no_row_that_can_be_used_is_an_error_with_the_first_cause(tmp_path):
  out = tmp_path / 'out'
  path = tmp_path / 'a.jsonl'
  for content, field, cause in (
    ('', 'document in', ''),
    ('{"text": ""}\n', 'text in the documents of', ''),
    ('{"text": \n', 'document in', f'{path}, line 1: row is not JSON'),
    ('{"messages": [{"role": "cook", "content": "x"}]}\n', 'text in the documents of', 'cook'),
  ):
    path.write_text(content)
    with refused(f'{field} {path}') as raised:
      run(path, out)
    assert cause in raised.value.message
    assert not list(out.glob('[a-z]*'))
  (tmp_path / 'bad.txt').write_bytes(b'\xff\xfe')
  with refused(f'document in {tmp_path / "bad.txt"}') as raised:
    run(tmp_path / 'bad.txt', out)
  assert 'bad.txt: text is not UTF-8' in raised.value.message
  with pytest.raises(FileNotFoundError, match=r"matches '.*absent"):
    run(tmp_path / 'absent*.jsonl', out)
  write_lines(tmp_path / 'a.jsonl', make_documents(3))
  with refused('held_out', 1.5):
    run(tmp_path / 'a.jsonl', out, held_out=1.5)


def test_a_worker_that_fails_ends_the_run_at_once(tmp_path, monkeypatch):
  write_lines(tmp_path / 'a.jsonl', make_documents(400))
  with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
    patch.setattr(tokenization, '_records', lambda *_: 1 / 0)
    run(tmp_path / 'a.jsonl', tmp_path / 'out', shard_bytes=1000)
  (tmp_path / 'out' / '.tokenize' / 'train').write_text('a file where a folder is to be')
  with pytest.raises(OSError, match='train'):
    run(tmp_path / 'a.jsonl', tmp_path / 'out', workers=2, shard_bytes=1000)
  assert not list((tmp_path / 'out').glob('[a-z]*'))


@pytest.mark.parametrize('suffix', ['.jsonl', '.jsonl.gz'])
def test_input_in_a_bucket_gives_the_same_shards(tmp_path, suffix):
  rows = make_documents(80)
  for i, name in enumerate(('00000', '00001')):
    content = ''.join(json.dumps(row) + '\n' for row in rows[40 * i : 40 * i + 40])
    (tmp_path / 'in').mkdir(exist_ok=True)
    local, url = tmp_path / 'in' / f'{name}{suffix}', f'memory://tokenize/in/{name}{suffix}'
    for path in (local, url):
      with fsspec.open(str(path), 'wb', compression='infer') as file:
        file.write(content.encode())
  for inputs, out in (
    (f'{tmp_path}/in/*{suffix}', 'local'),
    (f'memory://tokenize/in/*{suffix}', 'bucket'),
  ):
    run(inputs, tmp_path / out, shard_bytes=2000)
  for split in ('train', 'val'):
    assert (read(tmp_path / 'local' / split)[0] == read(tmp_path / 'bucket' / split)[0]).all()


def test_a_second_run_on_one_folder_is_refused(tmp_path):
  source = write_lines(tmp_path / 'a.jsonl', make_documents(100))
  with files.locked(tmp_path / 'out'), refused(tmp_path / 'out', allowed='free'):
    run(source, tmp_path / 'out')
  first = run(source, tmp_path / 'out')
  with files.locked(tmp_path / 'out'):
    assert run(source, tmp_path / 'out') == first  # what is complete is only read


def test_input_that_has_not_changed_is_not_hashed_again(tmp_path, monkeypatch):
  source = write_lines(tmp_path / 'a.jsonl', make_documents(100))
  os.utime(source, (1, 1))
  monkeypatch.setattr(sources, 'CACHE', tmp_path / 'cache')
  monkeypatch.setattr(sources, 'REMEMBER_BYTES', 1)
  monkeypatch.setattr(sources, 'SETTLED_SECONDS', -1)
  read_paths, plain = [], sources.hashlib.file_digest
  monkeypatch.setattr(
    sources.hashlib,
    'file_digest',
    lambda file, name: read_paths.append(file.name) or plain(file, name),
  )
  first = run(source, tmp_path / 'out')
  assert read_paths.count(str(source)) == 1
  assert run(source, tmp_path / 'out') == first
  assert read_paths.count(str(source)) == 1
