import numpy as np
import pytest

from data import shards
from lm import files
from lm.errors import UserError


@pytest.mark.parametrize('dtype', ['uint16', 'uint32'])
def test_any_span_of_any_shards(tmp_path, dtype):
  record = shards.RECORD_TOKENS
  sizes = [record, 1, record + 1, record - 1, 3 * record, 2, 2 * record + 1, 5]
  rng = np.random.default_rng(0)
  stream = rng.integers(0, np.iinfo(dtype).max, sum(sizes))
  mask = rng.integers(0, 2, sum(sizes))
  ends, lines = np.cumsum(sizes), []
  for index, (size, end) in enumerate(zip(sizes, ends, strict=True)):
    builder = shards.Builder(dtype)
    builder.add(stream[end - size : end].tolist(), mask[end - size : end].tolist(), size)
    lines.append(builder.write(tmp_path, index))
  assert shards.Builder(dtype).write(tmp_path, 99) is None
  files.write_json(tmp_path / 'manifest.json', shards.manifest({'version': shards.VERSION, 'dtype': dtype}, [*lines, None]))
  manifest = shards.read_manifest(tmp_path / 'manifest.json', verify=True)
  assert manifest['tokens'] == manifest['bytes'] == len(stream) and manifest['documents'] == len(sizes)

  edges = [0, record, *ends.tolist(), *(ends - 1).tolist(), ends[4] - record, ends[4] - 2 * record + 1]
  edges = sorted({min(max(e, 0), len(stream)) for e in edges})
  spans = [(a, b) for a in edges for b in edges if a < b] + [(i, i + 1) for i in rng.integers(0, len(stream), 50)]
  for expected, is_mask in ((stream, False), (mask, True)):
    parts = shards.Stream(tmp_path, manifest, mask=is_mask).read(spans)
    for (start, stop), part in zip(spans, parts, strict=True):
      np.testing.assert_array_equal(part, expected[start:stop])


@pytest.mark.parametrize('part', ['tokens', 'index', 'mask'])
def test_a_manifest_that_names_files_outside_its_folder_is_refused(tmp_path, part):
  (tmp_path / 'run').mkdir()
  builder = shards.Builder('uint16')
  builder.add([1, 2], [0, 1], 2)
  line = builder.write(tmp_path / 'run', 0)
  described = line if part == 'tokens' else line[part]
  (tmp_path / 'run' / described['file']).rename(tmp_path / 'outside')
  described['file'] = '../outside'
  path = tmp_path / 'run' / 'manifest.json'
  files.write_json(path, shards.manifest({'version': shards.VERSION, 'dtype': 'uint16'}, [line]))
  with pytest.raises(UserError, match=r"run/manifest\.json names the file '\.\./outside'"):
    shards.read_manifest(path)
