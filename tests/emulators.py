"""Buckets that live in this process: an emulator of Google Cloud Storage, and moto's of S3, each
behind a local port.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
from collections.abc import Callable, Iterator

import commands


@dataclasses.dataclass
class Bucket:
  """An empty bucket, what finds it, and what happens when something is to be written to it."""

  url: str
  environment: dict[str, str]
  objects: Callable[[], dict[str, bytes]]  # their content by name
  # called with the name of an object before it is there
  before_write: Callable[[str], None] = lambda name: None

  def copy_to(self, folder: pathlib.Path) -> pathlib.Path:
    """Writes all objects into a local folder."""
    for name, content in self.objects().items():
      path = folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(content)
    return folder

  def kill_at_write(self, log: pathlib.Path, part: str, *arguments: object) -> None:
    """Starts python ARGUMENTS ... and kills it when an object whose name contains `part` is to be
    written, which is lost.
    """
    killed = []
    process: list[subprocess.Popen] = []

    def before_write(name):
      if part in name and not killed:
        killed.append(name)
        os.kill(process[0].pid, signal.SIGKILL)
        process[0].wait()
      if killed:
        raise ConnectionError(f'the writer of {name} is dead')

    process.append(commands.start(log, *arguments, **self.environment))
    self.before_write = before_write
    try:
      status = process[0].wait()
    finally:
      self.before_write = lambda name: None
      process[0].kill()
      process[0].wait()
    assert (status, bool(killed)) == (-signal.SIGKILL, True), log.read_text()


@contextlib.contextmanager
def gcs() -> Iterator[Bucket]:
  """A bucket of Google Cloud Storage."""
  from gcp_storage_emulator import server
  from gcp_storage_emulator.storage import Storage

  port = commands.free_port()
  endpoint = f'http://127.0.0.1:{port}'
  running = server.create_server('127.0.0.1', port, in_memory=True, default_bucket='bucket')
  storage: Storage = running._storage
  bucket = Bucket(
    'gs://bucket',
    {'STORAGE_EMULATOR_HOST': endpoint, 'TENSORSTORE_GCS_HTTP_URL': endpoint},
    lambda: {
      found['name']: storage.get_file('bucket', found['name'])
      for found in storage.get_file_list('bucket')[0]
    },
  )
  create_file = storage.create_file

  def write(bucket_name, name, *args):
    bucket.before_write(name)
    create_file(bucket_name, name, *args)

  storage.create_file = write
  with running:
    yield bucket


@contextlib.contextmanager
def s3() -> Iterator[Bucket]:
  """A bucket of S3."""
  from moto.s3 import models
  from moto.server import ThreadedMotoServer

  running = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
  running.start()
  backend = models.s3_backends['123456789012']['aws']
  stored = backend.create_bucket('bucket', 'us-east-1').keys
  host, port = running.get_host_and_port()
  bucket = Bucket(
    's3://bucket',
    {
      'AWS_ENDPOINT_URL': f'http://{host}:{port}',
      'AWS_ACCESS_KEY_ID': 'key',
      'AWS_SECRET_ACCESS_KEY': 'secret',
      'AWS_REGION': 'us-east-1',
    },
    lambda: {name: key.value for name, key in stored.items()},
  )
  put_object = backend.put_object

  def write(bucket_name, key_name, *args, **options):
    bucket.before_write(key_name)
    return put_object(bucket_name, key_name, *args, **options)

  backend.put_object = write
  try:
    yield bucket
  finally:
    running.stop()
    models.s3_backends['123456789012']['aws'].reset()
