"""Orbax on buckets: TensorStore's driver for s3://, which Orbax 0.12 does not ask for, and how long
requests are repeated.

Orbax takes every path but gs:// for a local one when it tells TensorStore where arrays are.
`install` wraps the one function that all its reading and writing of arrays gets that from.
"""

import os
from typing import Any

from orbax.checkpoint._src.serialization import tensorstore_utils

# About a minute; the default are 32 repetitions, a quarter of an hour.
RETRIES = {'max_retries': 8, 'initial_delay': '1s', 'max_delay': '8s'}


def install() -> None:
  """Has Orbax read and write arrays at s3:// as it does at gs://."""
  original = tensorstore_utils.build_kvstore_tspec

  def build_kvstore_tspec(directory: str, *args: Any, **options: Any) -> dict[str, Any]:
    scheme = directory[:2] if directory.startswith(('gs:/', 's3:/')) else None
    if scheme is None:
      return original(directory, *args, **options)
    spec = original('gs://' + directory[3:].lstrip('/'), *args, **options)
    # what OCDBT, a database within files, is kept in; or the files themselves
    base = spec.get('base', spec)
    base |= _s3() if scheme == 's3' else {'gcs_request_retries': RETRIES}
    return spec

  tensorstore_utils.build_kvstore_tspec = build_kvstore_tspec


def _s3() -> dict[str, Any]:
  """TensorStore's settings for S3, from the variables that other libraries read too."""
  get = os.environ.get
  settings = {'driver': 's3', 's3_request_retries': RETRIES}
  if endpoint := get('AWS_ENDPOINT_URL_S3') or get('AWS_ENDPOINT_URL'):
    settings |= {'endpoint': endpoint}
  if endpoint or get('AWS_REGION') or get('AWS_DEFAULT_REGION'):
    settings |= {'aws_region': get('AWS_REGION') or get('AWS_DEFAULT_REGION') or 'us-east-1'}
  if get('AWS_ACCESS_KEY_ID'):
    settings |= {'aws_credentials': {'type': 'environment'}}
  return settings
