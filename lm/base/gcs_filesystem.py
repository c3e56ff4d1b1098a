"""The fsspec filesystem of gs://. It needs gcsfs, so `lm.base.buckets` imports it on first use."""

import functools
import re
import urllib.parse
from typing import Any

import gcsfs

from lm.base.bucket_requests import Requests


class Filesystem(gcsfs.GCSFileSystem):
  """gcsfs, whose requests raise the errors of `Requests.send`."""

  requests = Requests('gs')

  async def _request(self, method: str, path: str, *names: str, **options: Any) -> Any:
    request = functools.partial(super()._request, method, path, *names, **options)
    return await self.requests.send(_url(path, *names), request)


def _url(path: str, *names: str) -> str:
  """Returns the URL of the object, or of the bucket, that a request of gcsfs is about.

  Args:
    path: the path of the request, or a template of it.
    names: those that belong into the template.
  """
  found = re.search(
    r'\bb/([^/?]+)(?:/o/([^?]+)|/o\?.*\bname=([^&]+))?', path.format(*names) if names else path
  )
  bucket, name = (found[1], found[2] or found[3]) if found else ('', None)
  return f'gs://{bucket}' + (f'/{urllib.parse.unquote(name)}' if name else '')
