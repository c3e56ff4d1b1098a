"""The fsspec filesystem of s3://. It needs s3fs, so `lm.base.buckets` imports it on first use."""

import functools
from typing import Any

import s3fs
from fsspec import asyn

from lm.base.bucket_requests import Requests


class Filesystem(s3fs.S3FileSystem):
  """s3fs, whose requests raise the errors of `Requests.send`."""

  requests = Requests('s3')

  async def _call_s3(self, method: str, *arguments: Any, **options: Any) -> Any:
    request = functools.partial(super()._call_s3, method, *arguments, **options)
    bucket, name = options.get('Bucket', ''), options.get('Key')
    return await self.requests.send(f's3://{bucket}' + (f'/{name}' if name else ''), request)

  call_s3 = asyn.sync_wrapper(_call_s3)  # Its file objects call this.
