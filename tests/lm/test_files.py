"""Files that are whole or absent, whatever interrupts their writing."""

import asyncio
import functools
import hashlib
import os
import pathlib
import pickle
import signal
import subprocess
import sys

import fsspec
import gcsfs
import pytest
import s3fs
from refusals import refused

from lm.base import bucket_requests, buckets, files, gcs_filesystem, s3_filesystem
from lm.base.errors import UserError


def test_a_file_is_the_old_one_until_it_is_the_whole_new_one(tmp_path):
  path = tmp_path / 'sub' / 'a.txt'
  files.write_text(path, 'old')
  with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
    temporary.write_text('half of the n')
    assert path.read_text() == 'old'
    raise RuntimeError
  assert path.read_text() == 'old'
  with open(path) as reader:
    files.write_text(path, 'new ü')
    # who reads while it is replaced gets one or the other, never a mix
    assert reader.read() == 'old'
  assert path.read_bytes() == 'new ü'.encode()
  assert os.listdir(path.parent) == ['a.txt']


def test_a_folder_is_the_old_one_until_it_is_the_whole_new_one(tmp_path):
  path = tmp_path / 'sub' / 'd'
  with files.atomic_dir(path) as temporary:
    (temporary / 'x').write_text('old')
  with pytest.raises(RuntimeError), files.atomic_dir(path) as temporary:
    assert os.listdir(temporary) == []
    (temporary / 'y').write_text('half')
    raise RuntimeError
  assert os.listdir(path) == ['x']
  with files.atomic_dir(path) as temporary:
    (temporary / 'y').write_text('new')
  assert os.listdir(path) == ['y'] and os.listdir(path.parent) == ['d']


@pytest.mark.parametrize('kind', ['atomic_path', 'atomic_dir'])
def test_a_kill_while_writing_leaves_the_old_one(tmp_path, kind):
  path = tmp_path / 'a'
  with getattr(files, kind)(path) as temporary:
    (temporary if kind == 'atomic_path' else temporary / 'x').write_text('old')
  code = f"""
import os, signal, sys
from lm.base import files
with files.{kind}(sys.argv[1]) as t:
  (t if {kind == 'atomic_path'} else t / 'y').write_text('half')
  os.kill(os.getpid(), signal.SIGKILL)
"""
  root = pathlib.Path(files.__file__).parents[2]
  assert subprocess.run([sys.executable, '-c', code, path], cwd=root).returncode == -signal.SIGKILL
  content = path if kind == 'atomic_path' else path / 'x'
  assert content.read_text() == 'old'
  with getattr(files, kind)(path) as temporary:
    (temporary if kind == 'atomic_path' else temporary / 'x').write_text('new')
  assert content.read_text() == 'new'
  assert kind == 'atomic_path' or os.listdir(path) == ['x']


def test_a_folder_is_on_the_disk_before_the_old_one_is_touched(tmp_path, monkeypatch):
  """A kill at any call to the operating system leaves the old folder or the new one."""
  path = tmp_path / 'd'
  with files.atomic_dir(path) as temporary:
    (temporary / 'x').write_text('old')
  synced, sync = [], os.fsync

  class Killed(BaseException):
    pass

  def replace(source, target, real=os.replace):
    if target == path:
      assert {'y', 'z', '.d.tmp'} <= set(synced)
      raise Killed
    real(source, target)

  def fsync(descriptor):
    synced.append(os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}')))
    sync(descriptor)

  monkeypatch.setattr(os, 'fsync', fsync)
  monkeypatch.setattr(os, 'replace', replace)
  with pytest.raises(Killed), files.atomic_dir(path) as temporary:
    (temporary / 'y').write_text('new')
    (temporary / 'sub').mkdir()
    (temporary / 'sub' / 'z').write_text('new')
  monkeypatch.undo()
  with pytest.raises(RuntimeError), files.atomic_dir(path):
    assert (path / 'x').read_text() == 'old'
    raise RuntimeError
  assert (path / 'x').read_text() == 'old' and os.listdir(tmp_path) == ['d']


@pytest.mark.parametrize(
  'name', ['../x', '/etc/passwd', 'a/../../x', '', '.', '..', 'a\0b', 3, None, ['x']]
)
def test_a_file_that_a_file_names_lies_inside_its_folder(tmp_path, name):
  assert files.within(tmp_path, 'a/b.bin', 'index.json') == tmp_path / 'a' / 'b.bin'
  with refused('file name in index.json', name):
    files.within(tmp_path, name, 'index.json')


def test_json_round_trip_and_errors_that_name_the_file(tmp_path):
  path = tmp_path / 'a.json'
  files.write_json(path, {'b': [1, 2.5, None], 'a': 'é'})
  assert files.read_json(path) == {'b': [1, 2.5, None], 'a': 'é'}
  with pytest.raises(ValueError, match='JSON'):
    files.write_json(path, {'x': float('nan')})
  assert files.read_json(path)['a'] == 'é'
  path.write_text('{"a": ')
  with refused(path, allowed='valid JSON'):
    files.read_json(path)
  path.write_text('[1]')
  with refused(path, [1], 'a JSON object'):
    files.read_object(path)
  with pytest.raises(FileNotFoundError, match='nowhere'):
    files.read_json(tmp_path / 'nowhere')


@pytest.mark.parametrize('scheme', ['gs', 's3'])
def test_json_in_a_bucket_that_cannot_be_reached_is_not_called_invalid(scheme, monkeypatch):
  def unreachable(*_):
    raise UserError(field='bucket')

  monkeypatch.setattr(buckets, 'reach', unreachable)
  with refused('bucket'):
    files.read_json(f'{scheme}://bucket/a.json')


@pytest.mark.parametrize(
  'library, method, filesystem, request_',
  [
    (
      gcsfs.GCSFileSystem,
      '_request',
      gcs_filesystem.Filesystem,
      (('GET', 'b/{}/o/{}', 'bucket', 'run%2Fa.json'), {}),
    ),
    (
      s3fs.S3FileSystem,
      '_call_s3',
      s3_filesystem.Filesystem,
      (('get_object',), {'Bucket': 'bucket', 'Key': 'run/a.json'}),
    ),
  ],
)
def test_a_bucket_that_stops_answering_is_named_and_not_asked_again_at_once(
  library, method, filesystem, request_, monkeypatch
):
  """Libraries would repeat each of many requests for minutes."""
  asked = []

  async def silent(self, *args, **options):
    asked.append(args)
    await asyncio.sleep(60)

  monkeypatch.setattr(library, method, silent)
  scheme = library.protocol[0]
  monkeypatch.setattr(filesystem, 'requests', bucket_requests.Requests(scheme))
  monkeypatch.setattr(bucket_requests, 'REQUEST_SECONDS', 0.01)
  request = functools.partial(getattr(filesystem, method), object.__new__(filesystem))
  args, options = request_
  for _ in range(3):
    with pytest.raises(OSError, match=rf'^{scheme}://bucket/run/a\.json: no answer in 0\.01 s'):
      asyncio.run(request(*args, **options))
  assert len(asked) == 1
  monkeypatch.setattr(bucket_requests, 'LOST_SECONDS', 0)
  with pytest.raises(OSError, match='no answer'):
    asyncio.run(request(*args, **options))
  assert len(asked) == 2


def test_files_that_fsspec_opens_by_their_url_are_in_the_same_filesystem():
  """It is that of other libraries, and of other processes to which it is sent."""
  opened = buckets.filesystem('s3')
  assert type(opened) is s3_filesystem.Filesystem
  assert fsspec.filesystem('s3') is opened is pickle.loads(pickle.dumps(opened))


def test_digests(tmp_path):
  (tmp_path / 'a').write_bytes(b'abc')
  assert files.sha256_all([tmp_path / 'a'] * 20) == [files.sha256(tmp_path / 'a')] * 20
  # FIPS 180-2, appendix B.1.
  assert (
    files.sha256(tmp_path / 'a')
    == 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
  )
  assert files.digest({'b': 1, 'a': [2]}) == hashlib.sha256(b'{"a": [2], "b": 1}').hexdigest()
  assert files.digest({'a': [2], 'b': 1}) == files.digest({'b': 1, 'a': (2,)})


@pytest.mark.parametrize(
  ('stored', 'expected', 'found'),
  [
    ({'a': {'b': [1, 2]}}, {'a': {'b': (1, 2)}}, None),
    (None, None, None),
    (1, 2, ('', 1, 2)),
    ({'a': {'b': 1, 'c': 2}, 'z': 0}, {'a': {'b': 1, 'c': 3}, 'z': 1}, ('a.c', 2, 3)),
    ({'a': 1}, {'a': 1, 'b': {'c': 2}}, ('b', None, {'c': 2})),
    ({'a': 1, 'b': 0}, {'a': 1}, ('b', 0, None)),
  ],
)
def test_the_first_difference_is_named(stored, expected, found):
  assert files.difference(stored, expected) == found


def test_front_ends_end_in_one_line_and_status_1(capfd):
  code = 'from lm.base import errors\ndef f(): raise {}\nerrors.run(f)'
  root = pathlib.Path(files.__file__).parents[2]

  def run(error, **environment):
    command = [sys.executable, '-c', code.format(error)]
    return subprocess.run(
      command, cwd=root, capture_output=True, text=True, env=os.environ | environment
    )

  for error, line in (
    ('errors.UserError(field="a\\nb")', 'error: a b is missing\n'),
    ('FileNotFoundError("no x")', 'error: no x\n'),
    ('__import__("aiohttp").ServerDisconnectedError("gone")', 'error: gone\n'),
  ):
    result = run(error)
    assert (result.returncode, result.stderr) == (1, line)
    assert 'Traceback' in run(error, DEEPDIVE_TRACEBACK='1').stderr
  assert 'Traceback' in run('TypeError("ours")').stderr
  assert run('KeyboardInterrupt').returncode == 130


def test_a_folder_is_held_until_its_holder_ends(tmp_path):
  folder, code = (
    tmp_path / 'a' / 'b',
    'import sys; from lm.base import files\nwith files.locked(sys.argv[1]): print(1); input()',
  )
  root = pathlib.Path(files.__file__).parents[2]
  pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
  with subprocess.Popen([sys.executable, '-uc', code, folder], cwd=root, **pipes) as other:
    other.stdout.readline()
    with refused(folder, f'process {other.pid} uses it'), files.locked(folder):
      pass

    def end(seconds):
      other.kill()
      other.wait()

    with files.locked(folder, seconds=20, sleep=end):
      assert (folder / '.lock').read_text() == str(os.getpid())
    assert other.returncode == -signal.SIGKILL
  for _ in range(2):  # and given back
    with files.locked(folder):
      pass


def test_a_folder_that_stays_locked_is_waited_for_as_long_as_was_asked(tmp_path):
  slept = []
  with files.locked(tmp_path):
    with (
      refused(tmp_path, f'process {os.getpid()} uses it'),
      files.locked(tmp_path, seconds=2.05, clock=lambda: 100 + sum(slept), sleep=slept.append),
    ):
      pass
    assert 2.05 <= sum(slept) <= 2.2 and max(slept) < 0.5
