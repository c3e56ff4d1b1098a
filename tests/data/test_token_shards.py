import hashlib

import numpy as np
import pytest
from refusals import refused

from data.records import sources
from data.shards import token_shards
from lm.base import files
from lm.base.errors import UserError


@pytest.mark.parametrize('dtype', ['uint16', 'uint32'])
def test_any_span_of_any_shards(tmp_path, dtype):
  record = token_shards.RECORD_TOKENS
  sizes = [record, 1, record + 1, record - 1, 3 * record, 2, 2 * record + 1, 5]
  rng = np.random.default_rng(0)
  stream = rng.integers(0, np.iinfo(dtype).max, sum(sizes))
  mask = rng.integers(0, 2, sum(sizes))
  ends, lines = np.cumsum(sizes), []
  for index, (size, end) in enumerate(zip(sizes, ends, strict=True)):
    builder = token_shards.ShardWriter(dtype)
    builder.add(stream[end - size : end].tolist(), mask[end - size : end].tolist(), size)
    lines.append(builder.write(tmp_path, index))
  assert token_shards.ShardWriter(dtype).write(tmp_path, 99) is None
  files.write_json(
    tmp_path / 'manifest.json',
    token_shards.manifest({'version': token_shards.VERSION, 'dtype': dtype}, [*lines, None]),
  )
  manifest = token_shards.read_manifest(tmp_path / 'manifest.json', verify=True)
  assert manifest['tokens'] == manifest['bytes'] == len(stream) and manifest['documents'] == len(
    sizes
  )

  edges = [
    0,
    record,
    *ends.tolist(),
    *(ends - 1).tolist(),
    ends[4] - record,
    ends[4] - 2 * record + 1,
  ]
  edges = sorted({min(max(e, 0), len(stream)) for e in edges})
  spans = [(a, b) for a in edges for b in edges if a < b] + [
    (i, i + 1) for i in rng.integers(0, len(stream), 50)
  ]
  for expected, is_mask in ((stream, False), (mask, True)):
    parts = token_shards.Stream(tmp_path, manifest, mask=is_mask).read(spans)
    for (start, stop), part in zip(spans, parts, strict=True):
      np.testing.assert_array_equal(part, expected[start:stop])


@pytest.fixture
def large(tmp_path):
  """A manifest whose files have more than 256 MiB together: most of them a hole that takes no room
  on the disk.
  """
  builder = token_shards.ShardWriter('uint16')
  builder.add([1, 2, 3], None, 3)
  line = builder.write(tmp_path, 0)
  path = tmp_path / line['file']
  with open(path, 'r+b') as file:
    file.truncate(300 << 20)
  line |= {'size': 300 << 20, 'sha256': files.sha256(path)}
  files.write_json(
    tmp_path / 'manifest.json',
    token_shards.manifest({'version': token_shards.VERSION, 'dtype': 'uint16'}, [line]),
  )
  return tmp_path / 'manifest.json', path


def test_a_flipped_byte_in_a_large_file_is_found(large, tmp_path, monkeypatch):
  monkeypatch.setattr(sources, 'CACHE', tmp_path / 'cache')
  manifest, path = large
  token_shards.read_manifest(manifest)
  with open(path, 'r+b') as file:
    file.seek(200 << 20)
    file.write(b'\x01')
  with pytest.raises(UserError) as raised:
    token_shards.read_manifest(manifest)
  assert raised.value.field == f'SHA-256 of shard file {path}'
  token_shards.read_manifest(manifest, verify=False)


def test_a_large_file_is_hashed_once(large, tmp_path, monkeypatch):
  monkeypatch.setattr(sources, 'CACHE', tmp_path / 'cache')
  monkeypatch.setattr(sources, 'SETTLED_SECONDS', -1e9)  # as if it had been written long ago
  manifest, path = large
  token_shards.read_manifest(manifest)
  plain = hashlib.file_digest

  def file_digest(file, name):
    assert file.name != str(path), 'hashed again'
    return plain(file, name)

  monkeypatch.setattr(sources.hashlib, 'file_digest', file_digest)
  token_shards.read_manifest(manifest)


@pytest.mark.parametrize('part', ['tokens', 'index', 'mask'])
def test_a_manifest_that_names_files_outside_its_folder_is_refused(tmp_path, part):
  (tmp_path / 'run').mkdir()
  builder = token_shards.ShardWriter('uint16')
  builder.add([1, 2], [0, 1], 2)
  line = builder.write(tmp_path / 'run', 0)
  described = line if part == 'tokens' else line[part]
  (tmp_path / 'run' / described['file']).rename(tmp_path / 'outside')
  described['file'] = '../outside'
  path = tmp_path / 'run' / 'manifest.json'
  files.write_json(
    path, token_shards.manifest({'version': token_shards.VERSION, 'dtype': 'uint16'}, [line])
  )
  with refused(f'file name in {path}', '../outside'):
    token_shards.read_manifest(path)
