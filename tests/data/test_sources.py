"""Input files are found in any file system, and their digest is computed again only after a
change.
"""

import hashlib
import os

import fsspec
import pytest
from refusals import refused

from data.records import sources


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, 'CACHE', tmp_path / 'cache')
  monkeypatch.setattr(sources, 'REMEMBER_BYTES', 1)


@pytest.fixture
def reads(monkeypatch):
  """The paths whose bytes were read."""
  seen, plain = [], hashlib.file_digest
  monkeypatch.setattr(
    sources.hashlib, 'file_digest', lambda file, name: seen.append(file) or plain(file, name)
  )
  return seen


def later():
  return 4e9  # long after any file of the test was written


def test_globs_names_and_folders(tmp_path, monkeypatch):
  for name in ('a.txt', 'b.txt', 'in/c.txt', 'in/deep/d.txt', 'odd[1].txt'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(name)
  monkeypatch.chdir(tmp_path)

  def find(inputs):
    return [os.path.relpath(file.path, tmp_path) for file in sources.find(inputs)]

  assert find('b.txt,a.txt,a.*') == ['a.txt', 'b.txt']
  assert find('**/*.txt') == ['a.txt', 'b.txt', 'in/c.txt', 'in/deep/d.txt', 'odd[1].txt']
  assert find('in/*') == ['in/c.txt'] and find('odd[1].txt') == ['odd[1].txt']
  assert find([tmp_path / 'a.txt', 'in/*.txt']) == ['a.txt', 'in/c.txt'] and find(
    tmp_path / 'b.txt'
  ) == ['b.txt']
  assert [file.size for file in sources.find('in/*')] == [len('in/c.txt')]
  for missing in ('absent.txt', 'absent*', 'in'):
    with pytest.raises(FileNotFoundError, match=f"matches '{missing.replace('*', '.')}"):
      find(missing)
  with refused('s4://b/x', allowed='a path that can be opened'):
    find('s4://b/x')


def test_files_of_a_bucket_are_found():
  for name in ('x', 'y'):
    with fsspec.open(f'memory://sources/{name}.jsonl', 'wb') as file:
      file.write(name.encode())
  found = sources.find('memory://sources/*.jsonl')
  assert [file.path for file in found] == ['memory:///sources/x.jsonl', 'memory:///sources/y.jsonl']
  assert [sources.sha256(file) for file in found] == [
    hashlib.sha256(name).hexdigest() for name in (b'x', b'y')
  ]


def test_a_digest_is_computed_once_until_the_file_is_written_again(tmp_path, reads):
  path = tmp_path / 'a.txt'
  path.write_text('first')
  os.utime(path, (1, 1))

  def digest():
    return sources.sha256(sources.find(path)[0], now=later)

  assert digest() == digest() == hashlib.sha256(b'first').hexdigest() and len(reads) == 1
  path.write_text('other')  # the same size
  assert digest() == hashlib.sha256(b'other').hexdigest() and len(reads) == 2


def test_a_file_written_just_now_is_read_again(tmp_path, reads):
  path = tmp_path / 'a.txt'
  path.write_text('first')
  (file,) = sources.find(path)
  for _ in range(2):
    assert (
      sources.sha256(file, now=lambda: file.changed + 0.5) == hashlib.sha256(b'first').hexdigest()
    )
  assert len(reads) == 2 and not sources.CACHE.exists()


def test_small_files_leave_nothing_behind(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, 'REMEMBER_BYTES', 100)
  (tmp_path / 'a.txt').write_text('small')
  sources.sha256(sources.find(tmp_path / 'a.txt')[0], now=later)
  assert not sources.CACHE.exists()


def test_a_file_of_a_bucket_is_read_once_whatever_its_size(monkeypatch, reads):
  monkeypatch.setattr(sources, 'REMEMBER_BYTES', 100)
  with fsspec.open('memory://sources/small.txt', 'wb') as file:
    file.write(b'first')
  for _ in range(2):
    (file,) = sources.find('memory://sources/small.txt')
    assert sources.sha256(file, now=later) == hashlib.sha256(b'first').hexdigest()
  assert len(reads) == 1
