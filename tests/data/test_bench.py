"""The benchmarks, on little text."""

import json

import commands
import pytest

from data import bench
from lm.errors import UserError


def test_tokenizer():
  options = ('--megabytes=0.2', '--rounds=1')
  status, out, err = commands.run('-m', 'data.bench', 'tokenizer', *options)
  assert status == 0, err
  figures, = map(json.loads, out.splitlines())
  assert figures['vocab_size'] == 4096 and figures['bytes'] > 2e5
  assert figures['same_as_tiktoken'] and figures['speed_over_tiktoken'] > 0.5  # a busy machine; unloaded it is over 0.9


def test_by_turns():
  times = iter([0, 9, 9, 18, 0, 1, 1, 3, 3, 4, 4, 6])  # the round that warms up, then two of 1 s beside 2 s
  figures = bench.by_turns({'ours': list, 'theirs': sorted}, ['é' * 500_000], rounds=2, clock=lambda: next(times))
  assert figures['ours_mb_per_s'] == 1 and figures['theirs_mb_per_s'] == 0.5
  assert figures['speed_over_theirs'] == 2 and figures['same_as_theirs']


def test_inputs_without_text(tmp_path):
  (tmp_path / 'talk.jsonl').write_text('{"id": "a", "messages": []}\n')
  with pytest.raises(UserError, match=r"'a' of '.*talk\.jsonl' has no \"text\""):
    bench.read_texts(str(tmp_path / 'talk.jsonl'), 1)
  (tmp_path / 'none.jsonl').write_text('')
  with pytest.raises(UserError, match=r"no text in '.*none\.jsonl'"):
    bench.read_texts(str(tmp_path / 'none.jsonl'), 1)
