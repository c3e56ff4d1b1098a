"""Lets Orbax read and write arrays at s3://, and bounds how long requests to buckets are retried.

Orbax 0.12 takes every path but gs:// for a local one when it tells TensorStore where arrays are.
`install` wraps the one function that gives Orbax's readers and writers that specification.
"""

import os
from typing import Any

from orbax.checkpoint._src.serialization import tensorstore_utils

# About a minute in all. The default of 32 retries takes a quarter of an hour.
RETRIES = {'max_retries': 8, 'initial_delay': '1s', 'max_delay': '8s'}


def install() -> None:
  """Makes Orbax read and write arrays at s3:// as it does at gs://."""
  original = tensorstore_utils.build_kvstore_tspec

  def build_kvstore_tspec(directory: str, *args: Any, **options: Any) -> dict[str, Any]:
    scheme = directory[:2] if directory.startswith(('gs:/', 's3:/')) else None
    if scheme is None:
      return original(directory, *args, **options)
    spec = original('gs://' + directory[3:].lstrip('/'), *args, **options)
    # `base` is the store that holds the files of OCDBT, a database in files; without OCDBT the
    # specification is that store itself.
    base = spec.get('base', spec)
    base |= _s3() if scheme == 's3' else {'gcs_request_retries': RETRIES}
    return spec

  tensorstore_utils.build_kvstore_tspec = build_kvstore_tspec


def _s3() -> dict[str, Any]:
  """Returns TensorStore's settings for S3, from the environment variables of other libraries."""
  settings = {'driver': 's3', 's3_request_retries': RETRIES}
  endpoint = os.environ.get('AWS_ENDPOINT_URL_S3') or os.environ.get('AWS_ENDPOINT_URL')
  region = os.environ.get('AWS_REGION') or os.environ.get('AWS_DEFAULT_REGION')
  if endpoint:
    settings['endpoint'] = endpoint
  if endpoint or region:
    settings['aws_region'] = region or 'us-east-1'
  if os.environ.get('AWS_ACCESS_KEY_ID'):
    settings['aws_credentials'] = {'type': 'environment'}
  return settings
