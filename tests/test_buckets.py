"""Runs in buckets: killed and gone on with, evaluated, continued and talked to; and what is said
when a bucket is not there.
"""

import json
import socket

import commands
import emulators
import pytest
import tiny
from moto.s3 import exceptions as s3_exceptions


@pytest.fixture(scope='module', params=['gcs', 's3'])
def bucket(request):
  """An empty bucket of each kind."""
  with getattr(emulators, request.param)() as made:
    yield made


@pytest.fixture(scope='module')
def text(tmp_path_factory):
  """Two texts, one of which is held out."""
  folder = tmp_path_factory.mktemp('text')
  cat = tiny.write_text(folder / 'cat.txt', sentences=60)
  return f'{cat},{tiny.write_text(folder / "dog.txt", noise=2, sentences=60)}'


@pytest.fixture(scope='module')
def unbroken(text, tmp_path_factory):
  """A run in a local folder that nothing disturbed."""
  run = tmp_path_factory.mktemp('unbroken')
  status, _, err = commands.call(*train(text, run))
  assert status == 0, err
  return run


def train(text, run, **fields):
  options = {'data__held_out': 0.2, 'optim__warmup': 1, 'steps': 6, 'checkpoint__every': 2} | fields
  return [*tiny.arguments(text, **options), f'--workdir={run}']


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_again_and_again_ends_as_if_nothing_had_been(bucket, text, unbroken, tmp_path):
  """Killed while it tokenizes, before the last file of a checkpoint, and while it saves another."""
  command = train(text, f'{bucket.url}/run')
  before = () if bucket.url.startswith('s3') else ('data/',)  # tokens are written alike in both
  for part in (*before, 'checkpoints/4/digest.json', 'checkpoints/6/state/'):
    bucket.kill_at_write(tmp_path / 'log', part, *command)
    steps = {name.split('/')[2] for name in bucket.objects() if name.endswith('digest.json')}
    assert steps <= {'2', '4'}
  status, _, err = commands.run(*command, **bucket.environment)
  assert status == 0, err
  copy = bucket.copy_to(tmp_path / 'copy') / 'run'
  assert tiny.lines(copy) == tiny.lines(unbroken)
  assert tiny.parameters(copy) == tiny.parameters(unbroken)
  first, second = (
    json.loads((run / 'report.json').read_text())['pretrain'] for run in (copy, unbroken)
  )
  assert first == second
  assert (copy / 'samples.jsonl').read_bytes() == (unbroken / 'samples.jsonl').read_bytes()
  assert sorted(p.name for p in (copy / 'checkpoints').iterdir()) == ['4', '6'] and list(
    copy.glob('events.out.tfevents.*')
  )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('bucket', ['gcs'], indirect=True)
def test_a_run_in_a_bucket_is_used_like_any_other(bucket, text, tmp_path):
  """Its tokens train another run; it is evaluated, exported, fine-tuned on conversations of the
  bucket, and talked to.
  """
  url, cache = f'{bucket.url}/used', tmp_path / 'cache'
  tokens = {
    'data__val': f'{url}/first/data/val/manifest.json',
    'data__tokenizer': f'{url}/first/tokenizer',
    'data__cache': cache,
  }
  talks = '-m', 'data.conversations', '--tasks=arithmetic', '--examples=40'
  tune = (
    'train.py',
    '--config=configs/sft.py',
    f'--workdir={url}/sft',
    f'--config.init_from={url}/first',
    f'--config.data.train={url}/talks.jsonl',
    '--config.steps=2',
    '--config.batch_size=8',
    '--config.seq_len=128',
    '--config.optim.warmup=1',
    '--config.eval.tasks=',
    f'--config.data.cache={cache}',
  )
  evaluate = (
    'eval.py',
    '--config=configs/eval.py:smoke',
    f'--config.data.val={url}/sft/data/val/manifest.json',
    '--config.eval.tasks=',
    '--config.seq_len=128',
    f'--config.data.cache={cache}',
  )
  commands.run_in_turn(
    train(text, f'{url}/first', steps=2, data__cache=cache),
    train(f'{url}/first/data/train/manifest.json', f'{url}/second', steps=2, **tokens),
    [*talks, f'--out={url}/talks.jsonl'],
    tune,
    ['-m', 'lm.hf', 'export', f'{url}/sft', f'{url}/hf'],
    [*evaluate, f'--checkpoint={url}/sft', f'--out={url}/run.json'],
    [*evaluate, f'--checkpoint={url}/hf', f'--out={url}/hf.json'],
    **bucket.environment,
  )
  talk = '-m', 'lm.chat', f'--checkpoint={url}/sft', '--max-new-tokens=4'
  status, said, err = commands.run(*talk, text='2+2?\n', **bucket.environment)
  assert status == 0 and '[stopped after 4 tokens]' in said, err
  objects = bucket.objects()

  def report(name):
    return json.loads(objects[f'used/{name}'])

  shard = report('first/data/train/manifest.json')['shards'][0]
  assert (cache / shard['sha256']).read_bytes() == objects[f'used/first/data/train/{shard["file"]}']
  assert report('second/report.json')['pretrain'] == report('first/report.json')['pretrain']
  assert report('run.json')['val_bpb'] == report('hf.json')['val_bpb']


NAME = """
import sys
from lm.base import buckets, errors, files
buckets.ANSWER_SECONDS = 5
errors.run(lambda: files.write_json(files.as_path(sys.argv[1]) / 'a.json', 1))
"""


def refused(bucket, url, tmp_path, **environment):
  """What is said, in one line, of a bucket that a file is to be written to."""
  status, out, err = commands.run(
    '-c', NAME, url, HOME=str(tmp_path), **bucket.environment | environment
  )
  assert (status, out, err.count('\n')) == (1, '', 1)
  return err


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_named(bucket, tmp_path):
  scheme = bucket.url.partition(':')[0]
  address = next(value for value in bucket.environment.values() if value.startswith('http'))
  said = refused(bucket, f'{scheme}://other/run', tmp_path)
  assert said.startswith(f'error: bucket {scheme}://other at {address} (')


@pytest.mark.slow
@pytest.mark.parametrize('listens', [True, False])
def test_an_endpoint_that_does_not_answer_is_named(bucket, tmp_path, listens):
  with socket.socket() as server:
    server.bind(('127.0.0.1', 0))
    if listens:  # and never says anything
      server.listen()
    address = f'http://127.0.0.1:{server.getsockname()[1]}'
    moved = {
      name: address for name, value in bucket.environment.items() if value.startswith('http')
    }
    said = refused(bucket, f'{bucket.url}/run', tmp_path, **moved)
  assert said.startswith(f'error: bucket {bucket.url} at {address} (')


@pytest.mark.parametrize('bucket', ['s3'], indirect=True)  # the emulator of the other asks for none
def test_missing_credentials_are_named(bucket, tmp_path):
  without = dict.fromkeys(('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'), '')
  said = refused(bucket, f'{bucket.url}/run', tmp_path, **without, AWS_EC2_METADATA_DISABLED='true')
  assert said.startswith(f'error: bucket {bucket.url} at ')
  assert 'Unable to locate credentials' in said


@pytest.mark.slow
def test_missing_google_credentials_are_named(tmp_path):
  """Where the address of Google cannot be reached, and where it refuses anonymous requests."""
  without = {'NO_GCE_CHECK': 'true', 'GOOGLE_APPLICATION_CREDENTIALS': '', 'HOME': str(tmp_path)}
  status, out, err = commands.run('-c', NAME, 'gs://deepdive-no-such-bucket/run', **without)
  assert (status, out, err.count('\n')) == (1, '', 1)
  assert 'no Google credentials were found' in err


@pytest.mark.parametrize('bucket', ['s3'], indirect=True)
def test_an_object_that_may_not_be_written_is_named(bucket, tmp_path, monkeypatch):
  """The library's own message is "Access Denied" alone."""

  def forbid(name):
    raise s3_exceptions.S3AccessDeniedError

  monkeypatch.setattr(bucket, 'before_write', forbid)
  said = refused(bucket, f'{bucket.url}/run', tmp_path)
  assert said.startswith(f'error: {bucket.url}/run/a.json: Access Denied at http://')


def test_where_a_report_goes_is_looked_at_before_anything_is_evaluated(tmp_path):
  options = (
    '--config=configs/eval.py:smoke',
    f'--checkpoint={tmp_path}',
    '--out=ftp://host/report.json',
  )
  status, _, err = commands.call('eval.py', *options)
  assert status == 1 and "'ftp://host/report.json'; allowed:" in err.splitlines()[-1]
