"""Buckets: paths that begin with gs:// (Google Cloud Storage) or s3:// (S3 and what speaks its
protocol).

`etils.epath`, which Orbax uses too, gives them pathlib's methods, and gcsfs or s3fs does the work;
both are imported when the first such path is named. What an emulator or another provider needs
stands in the environment variables of those
libraries: STORAGE_EMULATOR_HOST, and TENSORSTORE_GCS_HTTP_URL for Orbax; AWS_ENDPOINT_URL_S3 or
  AWS_ENDPOINT_URL,
AWS_REGION or AWS_DEFAULT_REGION, and the credentials.

An object appears whole or not at all, and is overwritten as a whole; there are no folders but
common beginnings of names, and nothing is renamed or locked: what counts as complete is decided by
an object that is written last.
"""

import asyncio
import functools
import importlib
import logging
import os
import pathlib
import re
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from lm.base.errors import UserError

if TYPE_CHECKING:
  from etils import epath

# by scheme; each is also what the extra of pyproject.toml brings
LIBRARIES = {'gs': 'gcsfs', 's3': 's3fs'}
EXTRAS = {'gs': 'gcs', 's3': 's3'}
_BLOCK = 1 << 25  # bytes of one request
ANSWER_SECONDS = 20  # in which a bucket must answer when it is first named
REQUEST_SECONDS = 120  # for a later request, of _BLOCK bytes or so, and its repetitions
LOST_SECONDS = 60  # in which nothing is asked of an endpoint that did not answer

# etils would take TensorFlow where it is installed, which needs seconds to import and knows no
# s3:// and no emulator.
os.environ.setdefault('EPATH_USE_TF', 'false')
# gcsfs would ask for the kind of each bucket, which emulators do not know; 'true' is for zonal
# buckets.
os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')


def is_url(path: str | os.PathLike) -> bool:
  """Whether a path lies in a bucket."""
  return os.fspath(path).startswith(tuple(f'{scheme}://' for scheme in LIBRARIES))


def path(url: str) -> 'epath.Path':
  """The path object of a bucket's URL; the first of each bucket asks whether it can be reached.

  Raises UserError naming what is missing: the library, the bucket, credentials, or an answer in
  ANSWER_SECONDS.
  """
  check(url)
  from etils import epath

  return epath.Path(url)


def check(path: str | os.PathLike) -> None:
  """Raises UserError as `path`, if this is in a bucket: for what is then opened by fsspec
  itself.
  """
  if is_url(path):
    reach(*_parts(os.fspath(path))[:2])


def _parts(url: str) -> tuple[str, str, str]:
  """(scheme, bucket, name of the object) of a URL."""
  scheme, _, rest = url.partition('://')
  return scheme, *rest.partition('/')[::2]


@functools.cache
def reach(scheme: str, bucket: str) -> None:
  """Asks for a listing of a bucket, once in this process. Raises as `path`."""
  import fsspec

  fs, url = filesystem(scheme), f'{scheme}://{bucket}'
  if scheme == 'gs':
    request = functools.partial(fs._call, 'GET', 'b/{}/o', bucket, maxResults=1, json_out=True)
  else:
    request = functools.partial(fs._call_s3, 'list_objects_v2', Bucket=bucket, MaxKeys=1)

  async def ask():
    await asyncio.wait_for(request(), ANSWER_SECONDS)

  if not bucket:
    raise UserError(f'{url} names no bucket; {scheme}://BUCKET/NAME is wanted')
  try:
    fsspec.asyn.sync(fs.loop, ask)
  except FileNotFoundError as error:
    raise UserError(f'there is no bucket {url}{_at(scheme)}') from error
  except TimeoutError as error:
    raise UserError(f'{url} did not answer in {ANSWER_SECONDS} s{_at(scheme)}') from error
  except Exception as error:
    cause = _text(error).removeprefix(f'{url}: ')
    raise UserError(f'{url} cannot be read{_at(scheme)}: {cause}') from error


@functools.cache
def filesystem(scheme: str) -> Any:
  """The fsspec filesystem of a scheme. Raises UserError if its library is not installed."""
  import fsspec

  try:
    importlib.import_module(LIBRARIES[scheme])
  except ModuleNotFoundError as error:
    need = f"pip install 'deepdive-lm[{EXTRAS[scheme]}]'"
    raise UserError(f'{scheme}:// needs the package {error.name}: {need}') from error
  # what they log with a traceback, they raise too
  logging.getLogger(LIBRARIES[scheme]).setLevel(logging.CRITICAL)
  # For every filesystem of this process. Objects also come and go without fsspec (by TensorStore,
  # by other hosts).
  fsspec.config.conf.setdefault(scheme, {}).setdefault('use_listings_cache', False)
  _name_failures(scheme, fsspec.get_filesystem_class(scheme))
  return fsspec.filesystem(scheme)


def _name_failures(scheme: str, kind: type) -> None:
  """Makes requests of a filesystem class that are refused or not answered raise an OSError that
  names the URL: the libraries' own errors are of many kinds, and most name no bucket.

  No request takes longer than REQUEST_SECONDS. Where one was repeated in vain, those of the next
  LOST_SECONDS are not sent: a run ends soon, not after as many repetitions as there are things to
  put in order.
  """
  import fsspec.asyn

  method = {'gs': '_request', 's3': '_call_s3'}[scheme]
  call = getattr(kind, method)
  lost: list[tuple[float, str]] = []  # when an endpoint last failed to answer, and what was said

  @functools.wraps(call)
  async def named(self, *args: Any, **options: Any) -> Any:
    if lost and time.monotonic() - lost[-1][0] < LOST_SECONDS:
      raise OSError(lost[-1][1])
    try:
      return await asyncio.wait_for(call(self, *args, **options), REQUEST_SECONDS)
    except Exception as error:
      cause = _text(error) if str(error) else f'no answer in {REQUEST_SECONDS} s'
      text = f'{_requested(scheme, args, options)}: {cause}{_at(scheme)}'
      if isinstance(error, PermissionError) or _text(error).startswith('Forbidden'):
        raise PermissionError(text) from error
      if _no_answer(error):
        lost[:] = [(time.monotonic(), text)]
        raise OSError(text) from error
      raise

  setattr(kind, method, named)
  if scheme == 's3':  # what file objects call, made of the method as it was
    kind.call_s3 = fsspec.asyn.sync_wrapper(named)


def _no_answer(error: Exception) -> bool:
  """Whether a request failed because the endpoint was not reached, or could not serve it."""
  if type(error).__name__ == 'HttpError':  # gcsfs'
    return (error.code or 0) >= 500
  # Of Python, aiohttp and botocore, of which some are no OSErrors.
  names = {'TimeoutError', 'ConnectionError', 'ClientConnectionError', 'HTTPClientError'}
  return not names.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def _requested(scheme: str, args: Sequence[Any], options: Mapping[str, Any]) -> str:
  """The URL that a request is about, as far as it tells: of an object, or of its bucket."""
  if scheme == 's3':
    bucket, name = options.get('Bucket', ''), options.get('Key')
  else:  # an address, absolute or not, with places for names
    found = re.search(
      r'\bb/([^/?]+)(?:/o/([^?]+)|/o\?.*\bname=([^&]+))?',
      args[1].format(*args[2:]) if args[2:] else args[1],
    )
    bucket, name = (found[1], found[2] or found[3]) if found else ('', None)
  return f'{scheme}://{bucket}' + (f'/{urllib.parse.unquote(name)}' if name else '')


def _text(error: Exception) -> str:
  """What an error says, in one line."""
  return ' '.join(str(error).split()) or type(error).__name__


def sizes(folder: 'epath.Path') -> dict[str, int]:
  """Bytes of each object below a folder, at any depth, by its name relative to the folder; one
  listing for all.
  """
  fs, root = (
    filesystem(folder.as_uri().partition('://')[0]),
    folder.as_uri().partition('://')[2].rstrip('/'),
  )
  found = fs.find(root, detail=True)
  return {
    name.removeprefix(f'{root}/'): info['size']
    for name, info in found.items()
    if not name.endswith('/')
  }


def reader(file: 'epath.Path') -> BinaryIO:
  """An object opened to be read from beginning to end, or at a few places, in large pieces."""
  scheme, _, name = file.as_uri().partition('://')
  return filesystem(scheme).open(name, 'rb', block_size=_BLOCK)


def read_range(file: 'epath.Path', start: int, stop: int) -> bytes:
  """Bytes [start, stop) of an object."""
  scheme, _, name = file.as_uri().partition('://')
  return filesystem(scheme).cat_file(name, start=start, end=stop) if stop > start else b''


def download(source: 'epath.Path', target: pathlib.Path) -> None:
  """Copies an object to a local file."""
  scheme, _, name = source.as_uri().partition('://')
  filesystem(scheme).get_file(name, str(target))


def upload(source: pathlib.Path, target: 'epath.Path') -> None:
  """Copies a local file into a bucket; the object appears when all of it is there."""
  scheme, _, name = target.as_uri().partition('://')
  filesystem(scheme).put_file(str(source), name)


def remove(folder: 'epath.Path', first: str = '') -> None:
  """Removes all objects below a folder, the one called `first` before the others; nothing if there
  are none.
  """
  scheme, _, root = folder.as_uri().partition('://')
  fs, names = filesystem(scheme), list(sizes(folder))
  for some in ([first] if first in names else [], [name for name in names if name != first]):
    if some:
      fs.rm([f'{root}/{name}' for name in some])


def move(source: 'epath.Path', target: 'epath.Path', last: str = '') -> None:
  """Moves the objects below a folder, the one called `last` after the others, in the place of what
  `target` holds.
  """
  (scheme, _, old), new = source.as_uri().partition('://'), target.as_uri().partition('://')[2]
  remove(target, first=last)
  for name in sorted(sizes(source), key=lambda name: name == last):
    # not `mv`, whose request emulators do not know
    filesystem(scheme).copy(f'{old}/{name}', f'{new}/{name}')
  remove(source, first=last)


def _at(scheme: str) -> str:
  """Where requests go if not to the provider's own address."""
  names = (
    ('STORAGE_EMULATOR_HOST',) if scheme == 'gs' else ('AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL')
  )
  return next((f' at {os.environ[name]} ({name})' for name in names if os.environ.get(name)), '')
