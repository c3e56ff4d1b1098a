"""Buckets: paths that begin with gs:// (Google Cloud Storage) or s3:// (S3 and compatible stores).

`etils.epath`, which Orbax uses too, gives them the methods of pathlib; gcsfs or s3fs does the work.
Both are imported when the first such path is used. Emulators and other providers are set up by the
environment variables of those libraries: STORAGE_EMULATOR_HOST, and TENSORSTORE_GCS_HTTP_URL for
Orbax; AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION, and the
credentials.

An object appears whole or not at all, and is overwritten as a whole. There are no folders, only
names with a common beginning, and nothing is renamed or locked. What counts as complete is
therefore decided by an object that is written last.
"""

import asyncio
import functools
import importlib
import logging
import os
import pathlib
from typing import TYPE_CHECKING, Any, BinaryIO

from lm.base.bucket_requests import endpoint, text_of
from lm.base.errors import UserError, invalid, missing_package

if TYPE_CHECKING:
  from etils import epath

LIBRARIES = {'gs': 'gcsfs', 's3': 's3fs'}  # by scheme
FILESYSTEMS = {'gs': 'lm.base.gcs_filesystem', 's3': 'lm.base.s3_filesystem'}  # that import them
EXTRAS = {'gs': 'gcs', 's3': 's3'}  # of pyproject.toml, that install the libraries
ANSWER_SECONDS = 20  # in which a bucket must answer when it is first used
_BLOCK = 1 << 25  # bytes of one request

# etils would use TensorFlow where it is installed, which takes seconds to import and knows neither
# s3:// nor emulators.
os.environ.setdefault('EPATH_USE_TF', 'false')
# gcsfs would ask for the kind of each bucket, which emulators do not answer; 'true' is for zonal
# buckets.
os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')


def is_url(path: str | os.PathLike) -> bool:
  """Returns whether a path is in a bucket."""
  return os.fspath(path).startswith(tuple(f'{scheme}://' for scheme in LIBRARIES))


def path(url: str) -> 'epath.Path':
  """Returns the path object of a URL, after checking once that its bucket can be reached.

  Raises:
    UserError: the library, the bucket, credentials or an answer in ANSWER_SECONDS is missing.
  """
  check(url)
  from etils import epath

  return epath.Path(url)


def check(path: str | os.PathLike) -> None:
  """Checks as `path` does that a bucket can be reached; for URLs that fsspec itself will open."""
  if is_url(path):
    scheme, bucket, _ = _parts(os.fspath(path))
    reach(scheme, bucket)


def _parts(url: str) -> tuple[str, str, str]:
  """Returns the scheme, the bucket and the name of the object of a URL."""
  scheme, _, rest = url.partition('://')
  bucket, _, name = rest.partition('/')
  return scheme, bucket, name


def _scheme_and_name(path: 'epath.Path') -> tuple[str, str]:
  """Returns the scheme and the rest of a URL, as fsspec takes them."""
  scheme, _, name = path.as_uri().partition('://')
  return scheme, name


@functools.cache
def reach(scheme: str, bucket: str) -> None:
  """Lists one object of a bucket, once in this process. Raises as `path`."""
  import fsspec

  fs, url = filesystem(scheme), f'{scheme}://{bucket}'
  if scheme == 'gs':
    request = functools.partial(fs._call, 'GET', 'b/{}/o', bucket, maxResults=1, json_out=True)
  else:
    request = functools.partial(fs._call_s3, 'list_objects_v2', Bucket=bucket, MaxKeys=1)

  async def ask():
    await asyncio.wait_for(request(), ANSWER_SECONDS)

  if not bucket:
    raise UserError(field='path', value=url, allowed=f'{scheme}://BUCKET/NAME')
  name = f'bucket {url}{endpoint(scheme)}'
  try:
    fsspec.asyn.sync(fs.loop, ask)
  except FileNotFoundError as error:
    raise UserError(field=name) from error
  except TimeoutError as error:
    cause = f'no answer in {ANSWER_SECONDS} s{_without_credentials(scheme, fs)}'
    raise invalid(name, 'reachable', cause) from error
  # The libraries raise errors of many unrelated types where a bucket cannot be used.
  except Exception as error:
    cause = text_of(error).removeprefix(f'{url}: ') + _without_credentials(scheme, fs)
    raise invalid(name, 'readable', cause) from error


def _without_credentials(scheme: str, fs: Any) -> str:
  """Returns what to say of a failed request that gcsfs sent without credentials, else ''.

  s3fs raises an error of its own where there are none; gcsfs asks as anybody may. Emulators are
  asked that way, too.
  """
  if scheme != 'gs' or endpoint(scheme) or fs.credentials.method != 'anon':
    return ''
  return (
    '; no Google credentials were found: run `gcloud auth application-default login`, or set '
    'GOOGLE_APPLICATION_CREDENTIALS'
  )


@functools.cache
def filesystem(scheme: str) -> Any:
  """Returns the fsspec filesystem of a scheme. Raises UserError if its library is missing."""
  import fsspec

  try:
    module = importlib.import_module(FILESYSTEMS[scheme])
  except ModuleNotFoundError as error:
    raise missing_package(error.name, EXTRAS[scheme], f'A path at {scheme}://') from error
  # They raise what they log with a traceback, so that the log would repeat it.
  logging.getLogger(LIBRARIES[scheme]).setLevel(logging.CRITICAL)
  # For every filesystem of this process: objects also come and go without fsspec, through
  # TensorStore and through other processes.
  fsspec.config.conf.setdefault(scheme, {}).setdefault('use_listings_cache', False)
  # etils and fsspec itself open files by scheme, too.
  fsspec.register_implementation(scheme, module.Filesystem, clobber=True)
  return fsspec.filesystem(scheme)


def sizes(folder: 'epath.Path') -> dict[str, int]:
  """Returns the bytes of each object below a folder, by its relative name, from one listing."""
  scheme, name = _scheme_and_name(folder)
  root = name.rstrip('/')
  listing = filesystem(scheme).find(root, detail=True)
  return {
    name.removeprefix(f'{root}/'): info['size']
    for name, info in listing.items()
    if not name.endswith('/')
  }


def reader(file: 'epath.Path') -> BinaryIO:
  """Opens an object to be read in large pieces, from beginning to end or at a few places."""
  scheme, name = _scheme_and_name(file)
  return filesystem(scheme).open(name, 'rb', block_size=_BLOCK)


def read_range(file: 'epath.Path', start: int, stop: int) -> bytes:
  """Returns the bytes [start, stop) of an object."""
  scheme, name = _scheme_and_name(file)
  return filesystem(scheme).cat_file(name, start=start, end=stop) if stop > start else b''


def download(source: 'epath.Path', target: pathlib.Path) -> None:
  """Copies an object to a local file."""
  scheme, name = _scheme_and_name(source)
  filesystem(scheme).get_file(name, str(target))


def upload(source: pathlib.Path, target: 'epath.Path') -> None:
  """Copies a local file into a bucket; the object appears when all of it is there."""
  scheme, name = _scheme_and_name(target)
  filesystem(scheme).put_file(str(source), name)


def remove(folder: 'epath.Path', first: str = '') -> None:
  """Removes all objects below a folder, the one called `first` before the others."""
  scheme, root = _scheme_and_name(folder)
  names = list(sizes(folder))
  rest = [name for name in names if name != first]
  for group in ([first] if first in names else [], rest):
    if group:
      filesystem(scheme).rm([f'{root}/{name}' for name in group])


def move(source: 'epath.Path', target: 'epath.Path', last: str = '') -> None:
  """Replaces what is below `target` by what is below `source`, the object `last` at the end."""
  scheme, old = _scheme_and_name(source)
  _, new = _scheme_and_name(target)
  remove(target, first=last)
  for name in sorted(sizes(source), key=lambda name: name == last):
    # Not `mv`, since emulators do not know its request.
    filesystem(scheme).copy(f'{old}/{name}', f'{new}/{name}')
  remove(source, first=last)
