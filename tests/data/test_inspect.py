import json
import re

import commands
import pytest

from data.chat import chat_formats
from data.shards import shard_summaries, token_shards, tokenization
from data.shards.loader import Loader

FORMAT = chat_formats.load('bytes')
TOKENIZER = FORMAT.tokenizer


def messages(i):
  return [{'role': 'user', 'content': f'é{i}?'}, {'role': 'assistant', 'content': f'ü{i}!'}]


@pytest.fixture
def manifest(tmp_path):
  rows = [{'messages': messages(i)} for i in range(4)]
  (tmp_path / 'c.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  tokenization.tokenize(tmp_path / 'c.jsonl', tmp_path / 'out', FORMAT, held_out=0, progress=False)
  return tmp_path / 'out' / 'train' / 'manifest.json'


def conversation(i):
  return f'<|endoftext|><|user|>é{i}?<|end|><|assistant|>ü{i}!<|end|>'


def test_documents(manifest):
  text = shard_summaries.documents(manifest, TOKENIZER, 2, first=1)
  size = len(FORMAT.render({'messages': messages(1)})[0])
  assert [line.split() for line in text.splitlines()[1:]] == [
    ['1', str(size), str(size), conversation(1)],
    ['2', str(2 * size), str(size), conversation(2)],
  ]
  total = token_shards.read_manifest(manifest)
  assert f'4 documents, {4 * size} tokens, {total["bytes"]} bytes' in shard_summaries.summary(total)


def test_batch(manifest):
  data = Loader(manifest, seq_len=30, batch_size=1, seed=0, layout='packed', shuffle=False)
  shown = shard_summaries.batch(data.batch(0), TOKENIZER).splitlines()
  assert shown[0] == 'row 0: 25 of 30 used, 2 documents, 10 learned'
  assert re.sub(r'\x1b\[[0-9]*m', '', shown[1]) == f'{conversation(0)}┃{conversation(1)}' + '␠' * 5
  learned = re.findall(r'\x1b\[32m([^\x1b]*)', shown[1])
  assert learned == ['ü0!<|end|>', 'ü1!<|end|>']


def test_command(manifest, tmp_path):
  command = '-m', 'data.inspect', manifest, '--step=0', '--seq-len=20'
  status, out, err = commands.call(*command, '--tokenizer=bytes')
  assert status == 0 and 'row 3: ' in out and 'document ' in out, err
  status, _, err = commands.call(*command, f'--tokenizer={tmp_path / "absent.json"}')
  assert status == 1 and err.startswith('error: ') and err.count('\n') == 1
