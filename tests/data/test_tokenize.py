import gzip
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from data import chat, tokenize
from lm.errors import UserError

FORMAT = chat.load('bytes')
TOKENIZER = FORMAT.tokenizer
BOS = TOKENIZER.special_tokens[chat.BOS]
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
  """All values of a split, read without our code, and its manifest; checks each shard's counts on the way."""
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
  return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def run(inputs, out, **options):
  return tokenize.tokenize(inputs, out, FORMAT, progress=False, **options)


def test_streams_hold_the_documents_in_order(tmp_path):
  rows = make_documents(300, clusters=60)
  manifests = run(write_lines(tmp_path / 'a.jsonl', rows), tmp_path / 'out', held_out=0.2, shard_bytes=5000)
  split_of, total = {}, 0
  for split in ('train', 'val'):
    values, manifest = read(tmp_path / 'out' / split)
    assert manifest == manifests[split] and len(manifest['shards']) > 3
    assert manifest['tokenizer'] == {'fingerprint': TOKENIZER.fingerprint, 'vocab_size': TOKENIZER.vocab_size}
    texts = [bytes(part[1:].astype(np.uint8)).decode() for part in np.split(values, np.flatnonzero(values == BOS)[1:])]
    mine = [row for row in rows if row['text'] in set(texts)]
    assert texts == [row['text'] for row in mine]
    for row in mine:
      assert split_of.setdefault(row['metadata']['cluster'], split) == split  # no cluster on both sides
    starts, at = [], 0
    for shard in manifest['shards']:
      index = np.load(tmp_path / 'out' / split / shard['index']['file'])
      starts += (index[:, 0] + at).tolist()
      at += shard['tokens']
      assert (index[:, 1] == 1).all() and len(index) == shard['documents']
    assert starts == np.flatnonzero(values == BOS).tolist()
    assert manifest['bytes'] == sum(len(t.encode()) for t in texts) and manifest['documents'] == len(texts)
    total += len(texts)
  assert total == 300 and 0.05 < manifests['val']['documents'] / 300 < 0.4


def test_cuts_lose_and_repeat_no_line(tmp_path):
  rows = [{'text': 'x' * n} for n in (1, 1, 1, 30, 5, 5, 100, 2)]
  path = write_lines(tmp_path / 'a.jsonl', rows)
  for size in range(1, path.stat().st_size + 2):
    assert list(tokenize.documents(tokenize.spans([str(path)], size))) == rows


def test_the_split_depends_on_the_cluster_alone(tmp_path):
  rows = make_documents(300, clusters=60)
  run(write_lines(tmp_path / 'a.jsonl', rows), tmp_path / 'a')
  run(write_lines(tmp_path / 'b.jsonl', rows[100:][::-1]), tmp_path / 'b')
  a, b = (read(tmp_path / name / 'val')[0] for name in 'ab')

  def documents(values):
    return {tuple(part) for part in np.split(values, np.flatnonzero(values == BOS)[1:])}

  assert documents(b) <= documents(a)


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


@pytest.mark.parametrize('workers', [1, 2])
def test_killed_and_run_again(tmp_path, workers):
  source = write_lines(tmp_path / 'a.jsonl', make_documents(1500))
  run(source, tmp_path / 'whole', shard_bytes=4000)
  out = tmp_path / 'out'
  command = [sys.executable, '-m', 'data.tokenize', f'--input={source}', '--tokenizer=bytes', f'--out={out}']
  command += [f'--workers={workers}', '--shard-bytes=4000']
  before = -1
  for _ in range(2):
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and len(list(out.glob('.tokenize/parts/*.json'))) < before + 8:
      time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)  # the main process alone: its workers must not stay
    assert process.wait() == -signal.SIGKILL
    assert not (out / 'train').exists()
    before = len(list(out.glob('.tokenize/parts/*.json')))
    assert before > 0
    stale = out / '.tokenize' / 'train' / '.tokens-00001.array_record.1.tmp'
    stale.write_bytes(b'half')
  deadline = time.time() + 10
  while subprocess.run(['pgrep', '-g', str(process.pid)], capture_output=True).stdout and time.time() < deadline:
    time.sleep(0.05)
  assert time.time() < deadline, 'a worker outlives its parent'
  done = {p: p.stat().st_mtime_ns for p in (out / '.tokenize' / 'parts').iterdir()}
  seen = []
  original = tokenize.files.write_json
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tokenize.files, 'write_json', lambda path, value: (seen.append(path), original(path, value)))
    run(source, out, shard_bytes=4000)
  assert done and not set(done) & set(seen)  # finished parts were not done again
  assert tree(out) == tree(tmp_path / 'whole')


def test_killed_between_the_moves(tmp_path, monkeypatch):
  source = write_lines(tmp_path / 'a.jsonl', make_documents(100))
  run(source, tmp_path / 'whole')
  moves = []

  def one_move(work, out, split, manifest, move=tokenize._move):
    if moves:
      raise KeyboardInterrupt
    moves.append(move(work, out, split, manifest))

  monkeypatch.setattr(tokenize, '_move', one_move)
  with pytest.raises(KeyboardInterrupt):
    run(source, tmp_path / 'out')
  monkeypatch.undo()
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
  index = np.concatenate([np.load(tmp_path / 'out/train' / s['index']['file']) for s in manifest['shards']])
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
  texts = [bytes(p[1:].astype(np.uint8)) for p in np.split(values, np.flatnonzero(values == BOS)[1:])]
  assert texts == ['one\r\nζ'.encode(), b'two', b'three', b'four']
  assert manifest['documents'] == 4


def test_one_cluster_is_always_held_out(tmp_path):
  for n in (2, 5):
    rows = make_documents(n)
    run(write_lines(tmp_path / 'a.jsonl', rows), tmp_path / str(n), held_out=1e-9, shard_bytes=50)
    least = min(rows, key=tokenize.place)
    assert bytes(read(tmp_path / str(n) / 'val')[0][1:].astype(np.uint8)).decode() == least['text']
    assert read(tmp_path / str(n) / 'train')[1]['documents'] == n - 1
  with pytest.raises(UserError, match='of one cluster'):
    run(write_lines(tmp_path / 'a.jsonl', rows[:1]), tmp_path / 'one')
  assert not (tmp_path / 'one' / 'train').exists()


def test_bad_input(tmp_path):
  out = tmp_path / 'out'
  cases = {
    '': 'no document in .*a.jsonl',
    '{"text": ""}\n': 'all documents of .*a.jsonl are empty',
    '{"text": "x"}\n{"text": \n': 'a.jsonl at byte 14: not JSON',
    '{"text": 3}\n': 'a.jsonl at byte 0: neither a document',
    '{"text": "x"}\n{"messages": []}\n': "first document is of kind 'text'",
    '{"messages": [{"role": "cook", "content": "x"}]}\n': 'cook',
  }
  for content, message in cases.items():
    (tmp_path / 'a.jsonl').write_text(content)
    with pytest.raises(UserError, match=message):
      run(tmp_path / 'a.jsonl', out)
    assert not list(out.glob('[a-z]*'))
  (tmp_path / 'bad.txt').write_bytes(b'\xff\xfe')
  with pytest.raises(UserError, match=r'bad\.txt is not UTF-8'):
    run(tmp_path / 'bad.txt', out)
  (tmp_path / 'cut.jsonl.gz').write_bytes(gzip.compress(b'{"text": "x"}\n')[:-1])
  with pytest.raises(UserError, match=r'cut\.jsonl\.gz is cut off or damaged'):
    run(tmp_path / 'cut.jsonl.gz', out)
  with pytest.raises(FileNotFoundError, match=r"matches '.*absent"):
    run(tmp_path / 'absent*.jsonl', out)
  write_lines(tmp_path / 'a.jsonl', make_documents(3))
  with pytest.raises(UserError, match=r'held_out=1\.5'):
    run(tmp_path / 'a.jsonl', out, held_out=1.5)


def test_a_worker_that_fails_ends_the_run_at_once(tmp_path):
  rows = make_documents(400)
  write_lines(tmp_path / 'a.jsonl', [*rows[:5], {'text': 1}, *rows[5:]])
  with pytest.raises(UserError, match=r'a\.jsonl at byte \d+: neither'):
    run(tmp_path / 'a.jsonl', tmp_path / 'out', workers=2, shard_bytes=1000)
  assert len(list((tmp_path / 'out' / '.tokenize' / 'parts').glob('*'))) < 100
